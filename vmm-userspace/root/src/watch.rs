//! Watching a task: its exceptions, and what it says at its end.
//!
//! Each task has a handler of its own here. Whatever ends the task reaches that handler as a call,
//! on the task's own CPU time; it notes what happened, wakes the root task's first thread, and
//! never answers. So the thread that called stands still for ever, and so does every thread of the
//! task that calls later.

use abi::cap::{Perms, Selector};
use abi::fault::{FaultGroups, FaultState};
use abi::utcb::{MsgTag, Utcb};
use protocol::outcome::{OUTCOMES, Outcome};
use root_task::status::Failure;
use runtime::handler::Handler;
use runtime::lock::Lock;
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

/// What is known about one run of a task.
#[derive(Debug)]
pub struct Watch {
    end: &'static Lock<Option<End>>,
}

struct Watcher {
    end: &'static Lock<Option<End>>,
    wake: Sm,
}

/// Exceptions that a thread can have.
const VECTORS: u32 = 32;
/// State and cause of an exception.
const FAULT: u64 = FaultGroups::STATE.0 | FaultGroups::CAUSE.0;

impl Watch {
    /// Watches the task with the object space `objects`: puts the portals for its exceptions and
    /// its outcomes there. `wake` is upped when it ends.
    ///
    /// # Errors
    /// When kernel memory is short.
    pub fn new(
        objects: ObjectSpace,
        exceptions: Selector,
        exit: Selector,
        wake: Sm,
    ) -> Result<Self, Failure> {
        let end: &'static Lock<Option<End>> =
            alloc::boxed::Box::leak(alloc::boxed::Box::new(Lock::new(None)));
        let portals = || -> Result<(), abi::hypercall::Status> {
            let handler = Handler::new(Watcher { end, wake })?;
            let first = selector::FREE.range(VECTORS + OUTCOMES)?;
            for vector in 0..VECTORS {
                handler.portal_at(first + vector, vector.into(), FAULT, fault)?;
            }
            for outcome in Outcome::ALL {
                let at = first + VECTORS + outcome as u32;
                handler.portal_at(at, outcome as u64, 0, ended)?;
            }
            let (own, event, call) = (ObjectSpace::OWN, Perms::PT_EVENT, Perms::PT_CALL);
            own.grant_range(first, objects, exceptions, VECTORS, event)?;
            own.grant_range(first + VECTORS, objects, exit, OUTCOMES, call)
        };
        portals().map_err(Failure::doing("make the portals that watch the task"))?;
        Ok(Self { end })
    }

    /// How the task ended, if it has.
    pub fn take(&self) -> Option<End> {
        // If it is just being noted, there will be another wake-up.
        self.end.try_lock()?.take()
    }
}

fn fault(watcher: &mut Watcher, state: &mut FaultState, _id: u64, _tag: u64) -> FaultGroups {
    watcher.note(End::Fault(*state))
}

fn ended(watcher: &mut Watcher, _utcb: &mut Utcb, id: u64, _tag: u64) -> MsgTag {
    watcher.note(End::Outcome(Outcome::from_number(id).unwrap_or(Outcome::Failed)))
}

impl Watcher {
    fn note(&mut self, end: End) -> ! {
        *self.end.lock() = Some(end);
        // The semaphore is the root task's own and stays.
        let _ = self.wake.up();
        runtime::park()
    }
}
