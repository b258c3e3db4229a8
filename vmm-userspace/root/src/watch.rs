//! Watching a task: its exceptions, and what it says at its end.
//!
//! Each partition has a handler of its own here. Whatever ends its task reaches that handler as a call,
//! on the task's own CPU time; it notes what happened, wakes the root task's first thread, and
//! does not answer as long as the task is there. So the thread that called stands still, and so does every
//! thread of the task that calls later, until the task is destroyed.
//!
//! A handler whose caller was destroyed finishes on the time of whoever calls next, which is the next task.
//! So each run has a number, which is part of the portals' identifiers.

use core::sync::atomic::{AtomicU64, Ordering};

use abi::cap::{Perms, Selector};
use abi::fault::{FaultGroups, FaultState};
use abi::utcb::{MsgTag, Utcb};
use protocol::outcome::{OUTCOMES, Outcome};
use root_task::status::Failure;
use runtime::handler::Handler;
use runtime::lock::Lock;
use runtime::pd::Pd;
use runtime::pt::Pt;
use runtime::selector;
use runtime::sm::Sm;
use runtime::space::ObjectSpace;

/// How a task ended.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// It said so.
    Outcome(Outcome),
    /// It raised an exception.
    Fault(FaultState),
    /// Its monitor does not answer.
    Hang {
        /// Which exit it is that has no answer.
        exits: u64,
        /// What the monitor does instead.
        state: FaultState,
    },
    /// The kernel ended its virtual CPU.
    Dead,
}

/// Watches the runs of a task, one after the other.
#[derive(Debug)]
pub struct Watch {
    shared: &'static Shared,
    /// Selector of the first portal.
    first: Selector,
}

#[derive(Debug)]
struct Shared {
    /// How a run ended, and its number.
    end: Lock<Option<(u64, End)>>,
    /// The number of the run that is watched.
    run: AtomicU64,
    /// Upped when that is over.
    over: Sm,
    /// Wakes the root task.
    wake: Sm,
}

/// Exceptions that a thread can have.
const VECTORS: u32 = 32;
/// State and cause of an exception.
const FAULT: u64 = FaultGroups::STATE.0 | FaultGroups::CAUSE.0;

/// Bits of a portal's identifier: below the number of the run is which event it is.
const EVENT_BITS: u32 = 8;

impl Watch {
    /// Watches nothing yet. `wake` is upped when a task ends.
    ///
    /// # Errors
    /// When kernel memory is short.
    pub fn new(wake: Sm) -> Result<Self, Failure> {
        let make = || -> Result<_, abi::hypercall::Status> {
            let (end, run, over) = (Lock::new(None), AtomicU64::new(0), Sm::create(Pd::OWN, 0)?);
            let shared: &'static Shared =
                alloc::boxed::Box::leak(alloc::boxed::Box::new(Shared { end, run, over, wake }));
            let handler = Handler::new(shared)?;
            let first = selector::FREE.range(VECTORS + OUTCOMES)?;
            for vector in 0..VECTORS {
                handler.portal_at(first + vector, 0, FAULT, fault)?;
            }
            for outcome in 0..OUTCOMES {
                handler.portal_at(first + VECTORS + outcome, 0, 0, ended)?;
            }
            Ok(Self { shared, first })
        };
        make().map_err(Failure::doing("make the portals that watch the task"))
    }

    /// Watches the task with the object space `objects` from now on: puts the portals for its exceptions and
    /// its outcomes there.
    ///
    /// # Errors
    /// When kernel memory is short.
    pub fn attach(
        &self,
        objects: ObjectSpace,
        exceptions: Selector,
        exit: Selector,
    ) -> Result<(), Failure> {
        let run = self.shared.run.load(Ordering::Relaxed) << EVENT_BITS;
        let attach = || {
            for vector in 0..VECTORS {
                Pt::at(self.first + vector).change(run | u64::from(vector), FAULT)?;
            }
            for outcome in Outcome::ALL {
                let at = self.first + VECTORS + outcome as u32;
                Pt::at(at).change(run | outcome as u64, 0)?;
            }
            let (own, event, call) = (ObjectSpace::OWN, Perms::PT_EVENT, Perms::PT_CALL);
            own.grant_range(self.first, objects, exceptions, VECTORS, event)?;
            own.grant_range(self.first + VECTORS, objects, exit, OUTCOMES, call)
        };
        attach().map_err(Failure::doing("watch the task"))
    }

    /// How the task ended, if it has.
    pub fn take(&self) -> Option<End> {
        // If it is just being noted, there will be another wake-up.
        let (run, end) = self.shared.end.try_lock()?.take()?;
        (run == self.shared.run.load(Ordering::Relaxed)).then_some(end)
    }

    /// The task was destroyed: whoever works for it stops.
    pub fn detach(&self) {
        self.shared.run.fetch_add(1, Ordering::Relaxed);
        // The semaphore is the root task's own and stays.
        let _ = self.shared.over.up();
    }
}

type Watcher = &'static Shared;

fn fault(watcher: &mut Watcher, state: &mut FaultState, id: u64, _tag: u64) -> FaultGroups {
    watcher.note(id, End::Fault(*state));
    FaultGroups(0)
}

fn ended(watcher: &mut Watcher, _utcb: &mut Utcb, id: u64, _tag: u64) -> MsgTag {
    let outcome = Outcome::from_number(id & ((1 << EVENT_BITS) - 1)).unwrap_or(Outcome::Failed);
    watcher.note(id, End::Outcome(outcome));
    MsgTag::new(0, 0)
}

impl Shared {
    /// Notes how the run in a portal's identifier has ended, and holds its threads back as long as it lasts.
    fn note(&self, id: u64, end: End) {
        let run = id >> EVENT_BITS;
        *self.end.lock() = Some((run, end));
        let _ = self.wake.up();
        while self.run.load(Ordering::Relaxed) == run {
            // Ups of earlier runs only make it look again.
            let _ = self.over.down();
        }
    }
}
