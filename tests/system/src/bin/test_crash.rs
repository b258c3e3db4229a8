//! A task that writes where nothing is.
#![no_std]
#![no_main]

use runtime::{Outcome, Task, println};

runtime::entry!(main);

fn main(_: Task) -> Outcome {
    println!("writing to address 0x10");
    // SAFETY: the processor refuses, and that is the point.
    unsafe {
        core::arch::asm!(
            "mov r12, 0x1234567890abcdef",
            "mov ebx, 0x10",
            "mov [rbx], rbx",
            options(noreturn),
        )
    }
}
