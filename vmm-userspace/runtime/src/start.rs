//! The first instructions of a task.
//!
//! A task starts at `_start` with nothing but its memory and capabilities: the stack is a segment
//! of its own image, and what it was given is at the fixed addresses of [`protocol::startup`]. The
//! root task starts the same way, with its information at those of [`abi::layout`].

use core::fmt::Debug;

use abi::cap::root;
use abi::hip::{self, Hip};
use abi::layout::{ROOT_HIP, ROOT_UTCB};
use abi::utcb::Utcb;
use protocol::outcome::Outcome;
use protocol::startup::{ADDRESS, Startup, UTCBS};

use crate::log::{self, Sink};
use crate::memory::shared;
use crate::sm::Sm;
use crate::task::{self, Task};
use crate::{println, selector};

/// What `main` may return: how the task ends.
pub trait Termination {
    /// The outcome to report; errors go to the log here.
    fn outcome(self) -> Outcome;
}

impl Termination for Outcome {
    fn outcome(self) -> Outcome {
        self
    }
}

impl<T: Termination, E: Debug> Termination for Result<T, E> {
    fn outcome(self) -> Outcome {
        match self {
            Ok(value) => value.outcome(),
            Err(error) => {
                println!("error: {error:?}");
                Outcome::Failed
            }
        }
    }
}

/// Runs a task's `main`; called by [`crate::entry!`] once the heap is there.
pub fn run<T: Termination>(main: impl FnOnce(Task) -> T) -> ! {
    // SAFETY: the root task maps the page here before a task starts, and never changes it. A
    // start-up page holds for every content.
    let startup = unsafe { &*(ADDRESS as *const Startup) };
    if !startup.is_valid() {
        task::die();
    }
    selector::FREE.start_at(startup.caps.free);
    task::prepare_park();
    // SAFETY: the kernel mapped the first thread's UTCB here, and only this thread uses it.
    let utcb = unsafe { &mut *(UTCBS as *mut Utcb) };
    // SAFETY: the root task mapped the channel for reading and writing.
    if let Some(channel) = unsafe { shared::<protocol::console::LogChannel>(startup.log) } {
        let producer = protocol::ring::Producer::new(&channel.text);
        log::set_sink(Sink::Channel(producer, Sm::at(startup.caps.console)));
    }
    let outcome = main(Task::new(startup, utcb)).outcome();
    task::exit(outcome)
}

/// Runs the root task's `main`; called by [`crate::root_entry!`] once the heap is there.
pub fn run_root(main: fn(&'static Hip, &'static mut Utcb) -> !) -> ! {
    // SAFETY: the kernel maps the page here before the root task starts, and never changes it.
    let hip = unsafe { &*(ROOT_HIP as *const Hip) };
    if hip.magic != hip::MAGIC || hip.version != hip::VERSION {
        task::die();
    }
    selector::FREE.start_at(root::FREE);
    task::prepare_park();
    // SAFETY: the kernel mapped the first thread's UTCB here, and only this thread uses it.
    let utcb = unsafe { &mut *(ROOT_UTCB as *mut Utcb) };
    main(hip, utcb)
}

/// Makes a function the `main` of a task: `entry!(main)`, or `entry!(main, heap: BYTES)`.
///
/// `main` takes a [`Task`] and returns an [`Outcome`], or a result with one.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        $crate::entry!($main, heap: $crate::heap::DEFAULT_SIZE);
    };
    ($main:path, heap: $size:expr) => {
        $crate::start!($crate::start::run($main), $size);
    };
}

/// Makes a function the `main` of the root task. It takes the [`Hip`] and the first thread's UTCB.
#[macro_export]
macro_rules! root_entry {
    ($main:path, heap: $size:expr) => {
        $crate::start!($crate::start::run_root($main), $size);
    };
}

/// The part that [`crate::entry!`] and [`crate::root_entry!`] share.
#[doc(hidden)]
#[macro_export]
macro_rules! start {
    ($run:expr, $heap:expr) => {
        const _: () = {
            #[unsafe(naked)]
            #[unsafe(no_mangle)]
            #[unsafe(link_section = ".text._start")]
            extern "C" fn _start() -> ! {
                ::core::arch::naked_asm!(
                    "lea rsp, [rip + __stack_top]",
                    "xor ebp, ebp",
                    "call {main}",
                    main = sym start,
                )
            }

            extern "C" fn start() -> ! {
                static HEAP: $crate::heap::Arena<{ $heap }> = $crate::heap::Arena::new();
                // SAFETY: these are the first instructions of the task.
                unsafe { HEAP.activate() };
                $run
            }
        };
    };
}
