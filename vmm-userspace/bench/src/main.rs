//! The benchmark task: measures the paths that matter and prints what it found.
//!
//! | module | what it measures |
//! |---|---|
//! | [`guest`] | VM exits, answered by the monitor that real guests have |
//! | [`ipc`] | call and reply between two protection domains |
//! | [`semaphore`] | semaphores, and two threads that wake each other |
//! | [`grant`] | giving memory to a guest |
//! | [`longest`] | the longest call of each hypercall, which interrupts wait for |
//! | [`meter`] | how: ticks, and accesses to control structures and MSRs |
//!
//! Figures are means over [`meter::ITERATIONS`] rounds of a loop, the loop's own instructions included: `loop` is a
//! guest's loop around nothing.
#![no_std]
#![no_main]

extern crate alloc;

mod grant;
mod guest;
mod ipc;
mod longest;
mod meter;
mod semaphore;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use longest::Case;
use meter::{Figure, Meter};
use protocol::console::OUTPUT;
use runtime::{Outcome, Task, println};

runtime::entry!(main, heap: 1 << 20);

/// Nanoseconds between two looks at what the console service has taken.
const POLL_INTERVAL: u64 = 10_000_000;

/// A figure and its name in the output.
type Named = (&'static str, Figure);

fn main(mut task: Task) -> Outcome {
    let (figures, longest) = match measure(&mut task) {
        Ok(measured) => measured,
        Err(error) => {
            println!("{error}");
            return Outcome::Failed;
        }
    };
    // The guest's monitor had it up to now.
    let Some((mut output, _)) = task.console() else {
        println!("this task needs a console: set `console = true` in its manifest");
        return Outcome::Failed;
    };
    let mut print = || {
        // Behind what the guest said.
        writeln!(output, "\r\nBENCH-BEGIN\r")?;
        for (name, figure) in &figures {
            writeln!(output, "BENCH {name} {figure}\r")?;
        }
        for (name, ticks) in &longest {
            writeln!(output, "BENCH-LONGEST {name} {ticks}\r")?;
        }
        writeln!(output, "BENCH-END\r")
    };
    let printed = print().is_ok();
    // The machine may be turned off at this task's end, whatever still waits for the serial port.
    while output.room() < OUTPUT {
        let _ = task.wake().down_until(task.clock().in_ns(POLL_INTERVAL));
    }
    if printed { Outcome::Done } else { Outcome::Failed }
}

fn measure(task: &mut Task) -> Result<(Vec<Named>, Vec<Case>), String> {
    let memory = task.guest_memory().ok_or("the manifest gives this partition no `memory`")?;
    let meter = Meter::new(task);
    let mut figures: Vec<Named> = Vec::new();
    figures.extend(guest::measure(task, &meter, memory)?);
    let failed = |doing| move |status| format!("cannot measure {doing}: {status:?}");
    figures.push(("ipc", ipc::measure(task, &meter).map_err(failed("IPC"))?));
    figures.extend(semaphore::measure(&meter).map_err(failed("semaphores"))?);
    figures.extend(grant::measure(&meter, memory).map_err(failed("grants"))?);
    let longest = longest::measure(task, memory)
        .map_err(|(case, status)| format!("cannot measure {case}: {status:?}"))?;
    Ok((figures, longest))
}
