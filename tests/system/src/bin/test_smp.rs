//! Tests of what one CPU does to another.
#![no_std]
#![no_main]

use runtime::{Outcome, Task};

runtime::entry!(main, heap: 24 << 20);

fn main(task: Task) -> Outcome {
    system_tests::report::main(task, &system_tests::smp::TESTS)
}
