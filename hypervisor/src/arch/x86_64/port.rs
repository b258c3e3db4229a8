//! Port I/O for the few devices that the kernel drives itself.

use x86_64::instructions::port::Port;

/// Reads a byte.
///
/// # Safety
/// Reading the port must have no effect on memory.
pub unsafe fn inb(port: u16) -> u8 {
    // SAFETY: by the caller's word.
    unsafe { Port::new(port).read() }
}

/// Writes a byte.
///
/// # Safety
/// Writing the port must have no effect on memory.
pub unsafe fn outb(port: u16, value: u8) {
    // SAFETY: by the caller's word.
    unsafe { Port::new(port).write(value) };
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
    // Their first vectors, and on which line the second hangs, told each in its way.
    for (port, vectors, line) in [(0x20, 0xe0, 4), (0xa0, 0xe8, 2)] {
        // SAFETY: the 8259 pair belongs to the kernel.
        unsafe {
            outb(port, 0x11);
            [vectors, line, 1, 0xff].into_iter().for_each(|value| outb(port + 1, value));
        }
    }
}
