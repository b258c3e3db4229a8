//! The end: a kernel bug. Says where, and halts.

use core::panic::PanicInfo;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    crate::log::take_back();
    crate::println!("kernel bug: {info}");
    crate::arch::halt_forever()
}

/// Stops the machine at boot because it cannot run Ferrite, and says why in one line.
pub fn refuse(reason: core::fmt::Arguments<'_>) -> ! {
    crate::log::take_back();
    crate::println!("Ferrite cannot run on this machine: {reason}");
    crate::arch::halt_forever()
}
