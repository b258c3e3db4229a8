//! The root task: gives every partition what the manifest says, watches it, and starts it again by
//! policy. It is the one task that everybody has to trust.
//!
//! | module | what it does |
//! |---|---|
//! | [`memory`] | physical memory: finding, seeing and filling it |
//! | [`task`], [`channel`] | making a task and its channels |
//! | [`console`] | starting the console service |
//! | [`partition`] | starting partitions and seeing to their end |
//! | [`watch`], [`watchdog`], [`report`] | how a task's end is noticed and shown |
//! | [`wall_clock`] | the time of day |
//! | [`power`] | the end of the machine |
//! | [`log`] | this task's own messages |
#![no_std]
#![no_main]

extern crate alloc;

mod channel;
mod console;
mod context;
mod log;
mod memory;
mod partition;
mod power;
mod report;
mod task;
mod wall_clock;
mod watch;
mod watchdog;

use alloc::string::ToString;
use alloc::vec::Vec;

use abi::bundle::{Bundle, SYSTEM};
use abi::hip::{Hip, LogRing};
use abi::layout::ROOT_LOG;
use abi::utcb::Utcb;
use config::{OnEnd, System};
use protocol::startup::Area;
use root_task::acpi::Power;
use root_task::kernel_log::{KernelLog, counted};
use root_task::status::Failure;
use runtime::clock::Clock;
use runtime::interrupt::Interrupt;
use runtime::memory::shared;
use runtime::pd::Pd;
use runtime::println;
use runtime::sm::Sm;

use crate::console::Console;
use crate::context::Context;
use crate::memory::Memory;
use crate::partition::Partition;
use crate::power::Machine;

runtime::root_entry!(main, heap: 4 << 20);

/// How long the machine stays on for what people should still read, in steps of 10 ms.
const LAST_WORDS: u32 = 3000;
/// How often the kernel's log is looked at, in nanoseconds.
const LOG_INTERVAL: u64 = 500_000_000;

fn main(hip: &'static Hip, utcb: &'static mut Utcb) -> ! {
    log::start();
    match Root::new(hip, utcb) {
        Ok(root) => root.run(),
        Err(failure) => {
            say!("{failure}");
            runtime::park()
        }
    }
}

/// Everything.
struct Root {
    context: Context,
    machine: Machine,
    on_end: OnEnd,
    partitions: Vec<Partition>,
    kernel_log: Option<(KernelLog, &'static LogRing)>,
}

impl Root {
    fn new(hip: &'static Hip, utcb: &'static mut Utcb) -> Result<Self, Failure> {
        let clock = Clock::new(hip.tsc_hz);
        let memory = Memory::new(hip);
        // Before anything is written to memory that the tables may lie in.
        let power = Power::find(&memory, &hip.acpi_root);
        let bundle = bundle(hip, &memory)?;
        let system = system(&bundle)?;
        let sm = || Sm::create(Pd::OWN, 0).map_err(Failure::doing("make a semaphore"));
        let machine = Machine::new(clock, power).map_err(Failure::doing("make a semaphore"))?;
        let console = Interrupt::global(config::CONSOLE_INTERRUPT).semaphore();
        let (epoch, wake) = (wall_clock::epoch(clock), sm()?);
        let mut context = Context { hip, utcb, clock, epoch, memory, bundle, wake, console };
        let mut partitions = Vec::new();
        for config in system.partitions {
            partitions.push(Partition::new(&mut context, config)?);
        }
        let area = Area { base: ROOT_LOG, len: size_of::<LogRing>() as u64 };
        // SAFETY: the kernel maps the ring here, and it is only read.
        let ring = unsafe { shared::<LogRing>(area) };
        let kernel_log = ring.map(|ring| (KernelLog::new(ring), ring));
        Ok(Self { context, machine, on_end: system.on_end, partitions, kernel_log })
    }

    fn run(mut self) -> ! {
        let free = self.context.memory.frames.free_bytes() >> 20;
        let count = self.partitions.len();
        let plural = if count == 1 { "" } else { "s" };
        say!("{free} MiB of memory, {count} partition{plural}");
        let mut console = match Console::start(&mut self.context, &self.partitions) {
            Ok(console) => Some(console),
            Err(failure) => {
                say!("there is no console: {failure}");
                None
            }
        };
        for partition in &mut self.partitions {
            partition.start_or_report(&mut self.context);
        }
        while self.partitions.iter().any(Partition::is_alive) {
            log::pump();
            // A time-out is a reason to look as well.
            let _ = self.context.wake.down_all(self.context.clock.in_ns(LOG_INTERVAL));
            // It may explain what is found below.
            self.show_kernel_log();
            for partition in &mut self.partitions {
                partition.attend(&mut self.context);
            }
            if let Some(console) = &mut console {
                console.attend(&mut self.context, &self.partitions);
            }
        }
        self.finish()
    }

    fn show_kernel_log(&mut self) {
        if let Some((log, ring)) = &mut self.kernel_log {
            log.pump(ring, |line| println!("kernel: {line}"));
        }
    }

    fn finish(mut self) -> ! {
        self.show_kernel_log();
        if let Some(counted) = self.kernel_log.as_ref().and_then(|(_, ring)| counted(ring)) {
            say!("{counted}");
        }
        say!(
            "all partitions have ended: {}",
            match self.on_end {
                OnEnd::Poweroff => "turning the machine off",
                OnEnd::Reboot => "resetting the machine",
                OnEnd::Halt => "the machine can be turned off",
            }
        );
        // What people should read has to leave the serial port first.
        for _ in 0..LAST_WORDS {
            let drained = |partition: &Partition| partition.channel().is_drained();
            if log::is_drained() && self.partitions.iter().all(drained) {
                break;
            }
            log::pump();
            self.machine.sleep(10_000_000);
        }
        self.machine.sleep(100_000_000);
        self.machine.end(self.on_end)
    }
}

/// The boot bundle.
fn bundle(hip: &Hip, memory: &Memory) -> Result<Bundle<'static>, Failure> {
    let bytes =
        usize::try_from(hip.bundle_len).ok().and_then(|len| memory.view(hip.bundle_base, len));
    let bytes = bytes.ok_or_else(|| {
        Failure::Other(
            "the boot bundle is not where the kernel says: boot a fresh image".to_string(),
        )
    })?;
    Bundle::parse(bytes).map_err(|error| {
        Failure::Other(alloc::format!(
            "the boot bundle is damaged ({error:?}): build the image again"
        ))
    })
}

/// The system description in it.
fn system(bundle: &Bundle<'static>) -> Result<System, Failure> {
    let entry = bundle.find(SYSTEM).ok_or_else(|| {
        Failure::Other(
            "the boot bundle has no system description: build the image again".to_string(),
        )
    })?;
    config::decode(entry.data)
        .map_err(|error| Failure::Other(alloc::format!("{error}: build the image again")))
}
