//! A task that never rests.
#![no_std]
#![no_main]

use runtime::{Outcome, Task, println};

runtime::entry!(main);

fn main(_: Task) -> Outcome {
    println!("spinning");
    loop {
        core::hint::spin_loop();
    }
}
