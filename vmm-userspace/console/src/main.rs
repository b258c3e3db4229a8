//! The console service: owns the serial port and shares it between the root task's log and the
//! partitions.
//!
//! One semaphore wakes it for everything: the port's interrupt ups it, and so do clients. It never
//! waits for anything else, and looks at everything each time.
#![no_std]
#![no_main]

extern crate alloc;

mod service;
mod uart;

use runtime::abi::hypercall::FOREVER;
use runtime::{Outcome, Status, Task, println};

use crate::service::Service;
use crate::uart::Uart;

runtime::entry!(main);

/// The first serial port of a PC.
const COM1: u16 = 0x3f8;

fn main(task: Task) -> Result<Outcome, Status> {
    let Some(uart) = Uart::new(COM1) else {
        println!("there is no serial port at {COM1:#x}: turn it on in the firmware's set-up");
        return Ok(Outcome::Failed);
    };
    let mut service = Service::new(uart, task.clients());
    loop {
        if service.work() {
            task.wake().down_all(FOREVER)?;
        }
    }
}
