//! Watching a task: its exceptions, and what it says at its end.
//!
//! Each partition has handlers of its own here, one on each CPU that it may use, because a call stays on its CPU. Whatever
//! ends its task reaches such a handler as a call, on the task's own CPU time; it notes what happened, wakes the root task's first thread, and
//! does not answer as long as the task is there. So the thread that called stands still, and so does every
//! thread of the task that calls later, until the task is destroyed.
//!
//! A handler whose caller was destroyed finishes on the time of whoever calls next, which is the next task.
//! So each run has a number, which is part of the portals' identifiers.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::cap::{Perms, Selector};
use abi::fault::{FaultGroups, FaultState};
use abi::utcb::{MsgTag, Utcb};
use protocol::outcome::{OUTCOMES, Outcome};
use protocol::startup::{Caps, PORTALS};
use root_task::status::Failure;
use runtime::Status;
use runtime::handler::Handler;
use runtime::lock::Lock;
use runtime::pd::Pd;
use runtime::pt::Pt;
use runtime::selector;
use runtime::sm::Sm;
use runtime::space::ObjectSpace;
use runtime::stack;
use runtime::task::{Defaults, defaults};

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
    /// For each CPU, the lowest first: selector of the first portal there.
    portals: Vec<Selector>,
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
    /// Watches nothing yet. `wake` is upped when a task ends. `cpus` has a bit for each CPU that the task may use.
    ///
    /// # Errors
    /// When kernel memory is short.
    pub fn new(wake: Sm, cpus: u64) -> Result<Self, Failure> {
        let make = || -> Result<_, Status> {
            let (end, run, over) = (Lock::new(None), AtomicU64::new(0), Sm::create(Pd::OWN, 0)?);
            let shared: &'static Shared =
                alloc::boxed::Box::leak(alloc::boxed::Box::new(Shared { end, run, over, wake }));
            let cpus = (0..u64::BITS as u16).filter(|cpu| cpus >> cpu & 1 != 0);
            let portals = cpus.map(|cpu| portals(shared, cpu)).collect::<Result<_, _>>()?;
            Ok(Self { shared, portals })
        };
        make().map_err(Failure::doing("make the portals that watch the task"))
    }

    /// Watches the task with the object space `objects` from now on: puts the portals for its exceptions and
    /// its outcomes there, those of each CPU where it looks for them.
    ///
    /// # Errors
    /// When kernel memory is short.
    pub fn attach(&self, objects: ObjectSpace, caps: &Caps) -> Result<(), Failure> {
        let run = self.shared.run.load(Ordering::Relaxed) << EVENT_BITS;
        let attach_one = |first: Selector, offset: Selector| -> Result<(), Status> {
            for vector in 0..VECTORS {
                Pt::at(first + vector).change(run | u64::from(vector), FAULT)?;
            }
            for outcome in Outcome::ALL {
                let at = first + VECTORS + outcome as u32;
                Pt::at(at).change(run | outcome as u64, 0)?;
            }
            let (own, event, call) = (ObjectSpace::OWN, Perms::PT_EVENT, Perms::PT_CALL);
            own.grant_range(first, objects, caps.exceptions + offset, VECTORS, event)?;
            own.grant_range(first + VECTORS, objects, caps.exit + offset, OUTCOMES, call)
        };
        let mut offsets = (0..).step_by(PORTALS as usize);
        let mut attach = || {
            self.portals.iter().zip(&mut offsets).try_for_each(|(first, at)| attach_one(*first, at))
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
        // Each handler may wait for it.
        for _ in &self.portals {
            // The semaphore is the root task's own and stays.
            let _ = self.shared.over.up();
        }
    }
}

/// A handler on `cpu` with its portals: selector of the first.
fn portals(shared: &'static Shared, cpu: u16) -> Result<Selector, Status> {
    let handler = Handler::with(Defaults { cpu, ..defaults() }, stack::DEFAULT_SIZE, shared)?;
    let first = selector::FREE.range(VECTORS + OUTCOMES)?;
    for vector in 0..VECTORS {
        handler.portal_at(first + vector, 0, FAULT, fault)?;
    }
    for outcome in 0..OUTCOMES {
        handler.portal_at(first + VECTORS + outcome, 0, 0, ended)?;
    }
    Ok(first)
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
        {
            let mut noted = self.end.lock();
            // Threads on several CPUs can end a task at once: what came first counts. And what is left of an earlier run must
            // not hide how this one has ended.
            let is_current = self.run.load(Ordering::Relaxed) == run;
            if is_current && noted.is_none_or(|(earlier, _)| earlier != run) {
                *noted = Some((run, end));
            }
        }
        let _ = self.wake.up();
        while self.run.load(Ordering::Relaxed) == run {
            // Ups of earlier runs only make it look again.
            let _ = self.over.down();
        }
    }
}
