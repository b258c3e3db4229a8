//! Interrupt messages that nobody expects.
#![no_std]
#![no_main]

use runtime::{Outcome, Task};

runtime::entry!(main, heap: 16 << 20);

fn main(task: Task) -> Outcome {
    system_tests::report::main(task, &[system_tests::stray::TESTS])
}
