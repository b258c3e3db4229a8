//! Tests of who gets how much of the CPU.
#![no_std]
#![no_main]

use runtime::{Outcome, Task};

runtime::entry!(main);

fn main(task: Task) -> Outcome {
    system_tests::report::main(task, &system_tests::share::TESTS)
}
