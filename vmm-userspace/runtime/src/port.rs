//! I/O ports. A task reaches those that its port space holds; any other raises a general-protection
//! exception, which ends the task.

use core::arch::asm;

macro_rules! width {
    ($read:ident, $write:ident, $type:ty, $register:tt, $bits:literal) => {
        #[doc = concat!("Reads ", $bits, " bits from a port.")]
        #[inline]
        #[must_use]
        pub fn $read(port: u16) -> $type {
            let value;
            // SAFETY: the task was given the port to use as it sees fit; memory is not touched.
            unsafe {
                asm!(
                    concat!("in ", $register, ", dx"),
                    out($register) value,
                    in("dx") port,
                    options(nomem, nostack, preserves_flags),
                );
            }
            value
        }

        #[doc = concat!("Writes ", $bits, " bits to a port.")]
        #[inline]
        pub fn $write(port: u16, value: $type) {
            // SAFETY: the task was given the port to use as it sees fit. A device that reads or
            // writes memory of this task in response is the concern of whoever drives it.
            unsafe {
                asm!(
                    concat!("out dx, ", $register),
                    in("dx") port,
                    in($register) value,
                    options(nostack, preserves_flags),
                );
            }
        }
    };
}

width!(inb, outb, u8, "al", "8");
width!(inw, outw, u16, "ax", "16");
width!(inl, outl, u32, "eax", "32");
