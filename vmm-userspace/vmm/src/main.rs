//! The virtual-machine monitor task: a PC with one CPU, and Linux in it.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;

use runtime::abi::hypercall::FOREVER;
use runtime::pd::Pd;
use runtime::protocol::startup::Share;
use runtime::sc::Sc;
use runtime::sm::Sm;
use runtime::task::defaults;
use runtime::thread::Thread;
use runtime::{Outcome, Status, Task, park, println};
use vmm::console::Console;
use vmm::guest::Software;
use vmm::monitor::{self, Parts};
use vmm::ram::Ram;

runtime::entry!(main, heap: 1 << 20);

fn main(task: Task) -> Outcome {
    match start(&task) {
        Ok(()) => park(),
        Err(error) => {
            println!("{error}");
            Outcome::Failed
        }
    }
}

fn kernel_error(doing: &str, status: Status) -> String {
    alloc::format!("cannot {doing}: {status:?}; give the partition more memory")
}

fn start(task: &Task) -> Result<(), String> {
    let memory = task.guest_memory().ok_or("the manifest gives this partition no `memory`")?;
    let ram = Ram::new(memory);
    let wake = Sm::create(Pd::OWN, 0).map_err(|s| kernel_error("make a semaphore", s))?;
    let parts = Parts {
        ram,
        clock: task.clock(),
        epoch: task.startup().epoch,
        features: task.startup().features,
        console: Console::new(task.console()),
        software: Software::of(task)?,
        wake,
    };
    let space = ram.share().map_err(|s| kernel_error("map the guest's memory", s))?;
    let vcpu = monitor::create(parts, space, task.msrs())
        .map_err(|s| kernel_error("make the virtual CPU", s))?;

    // Input must get through to a guest that computes: the thread that brings it outranks the guest.
    let share = defaults().share;
    let service = task.wake();
    Thread::spawn(share, move |_| {
        while service.down_all(FOREVER).is_ok() {
            // Both can only fail for a bad selector, and these are good.
            let _ = wake.up();
            let _ = vcpu.recall();
        }
    })
    .map_err(|s| kernel_error("make a thread", s))?;
    let share = Share { priority: share.priority.saturating_sub(1), ..share };
    Sc::create(Pd::OWN, vcpu, share).map_err(|s| kernel_error("start the virtual CPU", s))?;
    Ok(())
}
