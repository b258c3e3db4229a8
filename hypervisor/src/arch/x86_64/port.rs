//! Port I/O for the few devices that the kernel drives itself.

/// Reads a byte.
///
/// # Safety
/// Reading the port must have no effect on memory.
pub unsafe fn inb(port: u16) -> u8 {
    let value;
    // SAFETY: by the caller's word.
    unsafe {
        core::arch::asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags))
    };
    value
}

/// Writes a byte.
///
/// # Safety
/// Writing the port must have no effect on memory.
pub unsafe fn outb(port: u16, value: u8) {
    // SAFETY: by the caller's word.
    unsafe {
        core::arch::asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags))
    };
}

/// Whether a 16550 at `base` keeps what is written to its scratch register.
pub fn scratch_works(base: u16) -> bool {
    // SAFETY: the scratch register of a UART has no effect; where no UART is, nothing answers.
    unsafe {
        outb(base + 7, 0xa5);
        inb(base + 7) == 0xa5
    }
}

/// Sets the 16550 at `base` to 115,200 bits per second, 8 data bits, no parity (16550D data sheet 8.3).
pub fn set_line_speed(base: u16) {
    const DIVISOR_ACCESS: u8 = 0x80;
    const EIGHT_NONE_ONE: u8 = 0x03;
    // SAFETY: the port belongs to the kernel.
    unsafe {
        outb(base + 3, DIVISOR_ACCESS | EIGHT_NONE_ONE);
        outb(base, 1);
        outb(base + 1, 0);
        outb(base + 3, EIGHT_NONE_ONE);
    }
}

/// Masks the legacy interrupt controllers for good, with their vectors out of the way of exceptions (8259A data sheet).
pub fn mask_legacy_pics() {
    const SEQUENCE: [(u16, u8); 10] = [
        (0x20, 0x11),
        (0xa0, 0x11),
        (0x21, 0xe0),
        (0xa1, 0xe8),
        (0x21, 4),
        (0xa1, 2),
        (0x21, 1),
        (0xa1, 1),
        (0x21, 0xff),
        (0xa1, 0xff),
    ];
    for (port, value) in SEQUENCE {
        // SAFETY: the 8259 pair belongs to the kernel.
        unsafe { outb(port, value) };
    }
}
