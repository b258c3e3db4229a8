//! Tests of what one CPU does to another.
#![no_std]
#![no_main]

use runtime::{Outcome, Task};

// Threads that have ended leave their stacks behind.
runtime::entry!(main, heap: 64 << 20);

fn main(task: Task) -> Outcome {
    system_tests::report::main(task, &system_tests::smp::TESTS)
}
