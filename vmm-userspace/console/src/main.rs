//! The console service: owns the serial port and the screen, and shares them between the root
//! task's log and the partitions.
//!
//! One semaphore wakes it for everything: the port's interrupt ups it, and so do clients. It never
//! waits for anything else but the time to go on drawing or to look at the port, and looks at everything each time.
#![no_std]
#![no_main]

extern crate alloc;

mod service;
mod uart;

use console::display::{Display, Pace};
use console::moderation::Moderation;
use console::patience::Patience;
use runtime::abi::hypercall::FOREVER;
use runtime::{Outcome, Status, Task, clock, println};
use screen::{Layout, Screen};

use crate::service::Service;
use crate::uart::Uart;

runtime::entry!(main);

/// The first serial port of a PC.
const COM1: u16 = 0x3f8;
/// Longest time to draw at once, in nanoseconds.
const DRAWING: u64 = 2_000_000;
/// Shortest time between two times, in nanoseconds: as long as a picture should stand to be seen.
const PAUSE: u64 = 20_000_000;
/// Time from one look at a port that receives to the next, in nanoseconds: its FIFO takes 1.4 milliseconds of the line.
const POLLING: u64 = 500_000;
/// How long others wait for the end of a line, in nanoseconds: the serial line takes seven milliseconds for 80 characters.
const LINE: u64 = 50_000_000;

fn main(task: Task) -> Result<Outcome, Status> {
    let uart = Uart::new(COM1);
    let clock = task.clock();
    let pace = Pace { longest: clock.to_ticks(DRAWING), shortest_pause: clock.to_ticks(PAUSE) };
    let display = screen(&task).map(|screen| Display::new(screen, pace));
    if uart.is_none() {
        println!("there is no serial port at {COM1:#x}: turn it on in the firmware's set-up");
        if display.is_none() {
            return Ok(Outcome::Failed);
        }
    }
    let moderation = Moderation::new(clock.to_ticks(POLLING));
    let patience = Patience::new(clock.to_ticks(LINE));
    let mut service = Service::new(uart, display, (moderation, patience), task.clients());
    loop {
        if service.work(clock::now) {
            match task.wake().down_all(service.deadline().unwrap_or(FOREVER)) {
                Ok(()) | Err(Status::Timeout) => {}
                Err(status) => return Err(status),
            }
        }
    }
}

/// The machine's screen, if this task was given one that can show text.
fn screen(task: &Task) -> Option<Screen<'static>> {
    let display = task.startup().display;
    if display.memory.is_empty() {
        return None;
    }
    let size = |value: u32| usize::try_from(value).ok();
    let layout = Layout {
        stride: size(display.stride)?,
        width: size(display.width)?,
        height: size(display.height)?,
        bytes: size(display.bytes_per_pixel)?,
    };
    let (start, len) = (display.memory.base as *mut u8, usize::try_from(display.memory.len).ok()?);
    // SAFETY: the root task mapped the screen's memory for reading and writing, for this task
    // alone; this is called once.
    let memory = unsafe { core::slice::from_raw_parts_mut(start, len) };
    Screen::new(memory, layout)
}
