//! The end of a task that found itself broken.

use core::panic::PanicInfo;

/// Says why in the log, then faults, so that the root task shows the registers and ends the task.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    crate::log::print_last(format_args!("{info}"));
    crate::task::die()
}
