//! A thread that runs into exceptions, and the handler that takes them.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::fault::{FaultGroups, FaultState};
use runtime::handler::Handler;
use runtime::lock::Lock;
use runtime::protocol::startup::Share;
use runtime::selector;
use runtime::sm::Sm;
use runtime::task::{Defaults, defaults};
use runtime::thread::Thread;

use super::threads::{SLICE, STACK, semaphore};
use crate::report::Bench;

/// What the handler does about an exception: `None` is to take note of it and to let the thread do its next job.
pub type Answer = fn(&mut FaultState) -> Option<FaultGroups>;

/// A job for a victim.
pub type Job = unsafe extern "C" fn();

struct Shared {
    job: Lock<Option<(Job, Answer)>>,
    fault: Lock<Option<FaultState>>,
    go: Sm,
    done: Sm,
    /// Stack pointer of the thread between jobs.
    home: AtomicU64,
    /// Exceptions seen in this job.
    count: AtomicU64,
}

/// A thread for jobs that fault.
pub struct Victim {
    shared: &'static Shared,
}

/// Takes note and gives up.
pub fn note(_: &mut FaultState) -> Option<FaultGroups> {
    None
}

impl Victim {
    /// A victim of lower priority than the caller.
    pub fn new(bench: &Bench<'_>) -> Result<Self, String> {
        let shared: &'static Shared = Box::leak(Box::new(Shared {
            job: Lock::new(None),
            fault: Lock::new(None),
            go: semaphore()?,
            done: semaphore()?,
            home: AtomicU64::new(0),
            count: AtomicU64::new(0),
        }));
        let make = || {
            let events = selector::FREE.range(32)?;
            let handler = Handler::with(defaults(), STACK, shared)?;
            for vector in 0..32 {
                let groups = FaultGroups::STATE.0 | FaultGroups::CAUSE.0;
                handler.portal_at(events + vector, vector.into(), groups, serve)?;
            }
            let at = Defaults { events, ..defaults() };
            let share = Share { priority: bench.priority - 1, budget: SLICE, period: 0 };
            Thread::spawn_with(at, STACK, share, move |_| work(shared))
        };
        make().map_err(|status| format!("no victim: {status:?}"))?;
        Ok(Self { shared })
    }

    /// Does a job. Returns the exception that ended it, if one did.
    pub fn run(
        &self,
        bench: &Bench<'_>,
        job: Job,
        answer: Answer,
    ) -> Result<Option<FaultState>, String> {
        *self.shared.fault.lock() = None;
        *self.shared.job.lock() = Some((job, answer));
        self.shared.count.store(0, Ordering::Relaxed);
        let up = self.shared.go.up();
        up.and_then(|()| self.shared.done.down_until(bench.in_ms(500)))
            .map_err(|status| format!("the job does not end: {status:?}"))?;
        Ok(*self.shared.fault.lock())
    }

    /// Does a job that must end with an exception.
    pub fn fault(&self, bench: &Bench<'_>, job: Job) -> Result<FaultState, String> {
        self.run(bench, job, note)?.ok_or_else(|| "no exception".into())
    }

    /// How many exceptions the last job raised.
    pub fn count(&self) -> u64 {
        self.shared.count.load(Ordering::Relaxed)
    }
}

fn serve(
    shared: &mut &'static Shared,
    state: &mut FaultState,
    _vector: u64,
    _groups: u64,
) -> FaultGroups {
    shared.count.fetch_add(1, Ordering::Relaxed);
    let answer = shared.job.lock().map_or(note as Answer, |(_, answer)| answer);
    if let Some(groups) = answer(state) {
        return groups;
    }
    *shared.fault.lock() = Some(*state);
    // Back to the start of the loop, with everything that was on the stack forgotten.
    state.rip = again as *const () as u64;
    state.gpr.rsp = shared.home.load(Ordering::Relaxed);
    state.gpr.rdi = core::ptr::from_ref(*shared) as u64;
    state.rflags = 0x202;
    FaultGroups::STATE
}

fn work(shared: &'static Shared) {
    let anchor = 0_u64;
    // Far enough below this frame, and aligned as behind a call.
    let home = (&raw const anchor as u64 - 1024) / 16 * 16 - 8;
    shared.home.store(home, Ordering::Relaxed);
    serve_jobs(shared)
}

extern "C" fn again(shared: &'static Shared) -> ! {
    let _ = shared.done.up();
    serve_jobs(shared)
}

fn serve_jobs(shared: &'static Shared) -> ! {
    loop {
        if shared.go.down().is_err() {
            runtime::park();
        }
        let job = shared.job.lock().map(|(job, _)| job);
        if let Some(job) = job {
            // SAFETY: jobs are made to be run here, whatever they do to the thread.
            unsafe { job() };
        }
        let _ = shared.done.up();
    }
}
