//! Threads on chosen CPUs.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::hypercall::Status;
use abi::utcb::Utcb;
use runtime::clock::now;
use runtime::handler::Handler;
use runtime::lock::Lock;
use runtime::pd::Pd;
use runtime::protocol::startup::Share;
use runtime::selector::FREE;
use runtime::sm::Sm;
use runtime::task::{Defaults, cpus, defaults};
use runtime::thread::Thread;

use crate::check;
use crate::kernel::threads::{STACK, semaphore};
use crate::processor::apic_id;
use crate::report::{Bench, Check};

pub fn show(status: Status) -> String {
    format!("{status:?}")
}

/// What threads and handlers on `cpu` get.
pub fn on(cpu: u16) -> Defaults {
    defaults().on(cpu)
}

/// All CPUs but the first, which is the main thread's.
pub fn others() -> Vec<u16> {
    cpus().skip(1).collect()
}

/// Two different CPUs, as far apart as there are, in both orders; the main thread is on one of them.
pub fn far_pairs() -> [(u16, u16); 2] {
    let last = cpus().last().unwrap_or(0);
    [(0, last), (last, 0)]
}

/// The share of those that run without end: QEMU's turns are as long as time slices.
pub fn slice(bench: &Bench<'_>, priority: u64) -> Share {
    Share { priority, budget: bench.hz / 10_000, period: 0 }
}

/// A thread that can be ended as soon as its body has said that it is done: what the body holds is not dropped behind that, with a lock
/// of the heap held for ever if the end comes just then.
pub fn spawn_on(
    cpu: u16,
    share: Share,
    body: impl FnMut(&mut Utcb) + Send + 'static,
) -> Result<Thread, String> {
    let mut body = ManuallyDrop::new(body);
    Thread::spawn_with(on(cpu), STACK, share, move |utcb| (*body)(utcb))
        .map_err(|status| format!("no thread on CPU {cpu}: {status:?}"))
}

pub fn handler_on<S: Send + 'static>(cpu: u16, state: S) -> Result<Handler<S>, String> {
    Handler::with(on(cpu), STACK, state)
        .map_err(|status| format!("no handler on CPU {cpu}: {status:?}"))
}

/// Ends a thread, and gives its selectors back.
pub fn end(thread: Thread) -> Check {
    // SAFETY: threads that are ended here hold nothing that anybody waits for.
    unsafe { thread.ec.destroy() }.map_err(show)?;
    FREE.give(thread.ec.selector());
    FREE.give(thread.sc.selector());
    Ok(())
}

/// Lets the other CPUs go on for so many microseconds.
pub fn nap(bench: &Bench<'_>, us: u64) {
    if let Ok(sleep) = NAP.get() {
        let _ = sleep.down_until(now() + bench.hz / 1_000_000 * us);
    }
}

/// Looks again and again until something is so.
pub fn until(bench: &Bench<'_>, what: &str, mut so: impl FnMut() -> bool) -> Check {
    let deadline = bench.in_ms(2000);
    while !so() {
        check!(now() < deadline, "{what} did not happen");
        nap(bench, 50);
    }
    Ok(())
}

/// Asks again as long as the answer is that it is not done yet.
pub fn insist(what: &str, mut ask: impl FnMut() -> Result<bool, Status>) -> Check {
    for _ in 0..100_000 {
        match ask() {
            Ok(true) => return Ok(()),
            Ok(false) => core::hint::spin_loop(),
            Err(status) => return Err(format!("{what}: {status:?}")),
        }
    }
    Err(format!("{what}: busy for ever"))
}

/// A semaphore that nobody ups, made once.
struct Never(Lock<Option<Sm>>);

static NAP: Never = Never(Lock::new(None));

impl Never {
    fn get(&self) -> Result<Sm, Status> {
        let mut kept = self.0.lock();
        match *kept {
            Some(sm) => Ok(sm),
            None => {
                let sm = Sm::create(Pd::OWN, 0)?;
                *kept = Some(sm);
                Ok(sm)
            }
        }
    }
}

/// A thread that counts as long as it is there, and says on which processor.
pub struct Counter {
    pub thread: Thread,
    shared: &'static Shared,
}

#[derive(Default)]
struct Shared {
    count: AtomicU64,
    at: AtomicU64,
}

impl Counter {
    pub fn new(cpu: u16, share: Share) -> Result<Self, String> {
        Self::after(cpu, share, || ())
    }

    /// One that does something else first.
    pub fn after(
        cpu: u16,
        share: Share,
        mut first: impl FnMut() + Send + 'static,
    ) -> Result<Self, String> {
        let shared: &'static Shared = Box::leak(Box::default());
        let thread = spawn_on(cpu, share, move |_| {
            first();
            loop {
                shared.at.store(apic_id().into(), Ordering::Relaxed);
                shared.count.fetch_add(1, Ordering::Relaxed);
                core::hint::spin_loop();
            }
        })?;
        Ok(Self { thread, shared })
    }

    pub fn count(&self) -> u64 {
        self.shared.count.load(Ordering::Relaxed)
    }

    /// The processor that it was on when it counted last.
    pub fn at(&self) -> u32 {
        self.shared.at.load(Ordering::Relaxed) as u32
    }

    /// It counts further.
    pub fn goes_on(&self, bench: &Bench<'_>) -> Check {
        let before = self.count();
        until(bench, "counting", || self.count() > before + 2)
    }

    /// It does not count any more.
    pub fn stands_still(&self, bench: &Bench<'_>) -> Check {
        let before = self.count();
        nap(bench, 500);
        let after = self.count();
        check!(before == after, "it counted from {before} to {after}");
        Ok(())
    }
}

type Job = Box<dyn FnOnce(&mut Utcb) + Send>;

/// A thread that does one job after the other.
pub struct Worker {
    pub thread: Thread,
    jobs: &'static Jobs,
}

struct Jobs {
    next: Lock<Option<Job>>,
    go: Sm,
    done: Sm,
}

impl Worker {
    pub fn new(bench: &Bench<'_>, cpu: u16) -> Result<Self, String> {
        let (go, done) = (semaphore()?, semaphore()?);
        let jobs: &'static Jobs = Box::leak(Box::new(Jobs { next: Lock::new(None), go, done }));
        let thread = spawn_on(cpu, slice(bench, bench.priority - 1), move |utcb| {
            while jobs.go.down().is_ok() {
                let job = jobs.next.lock().take();
                if let Some(job) = job {
                    job(utcb);
                }
                let _ = jobs.done.up();
            }
        })?;
        Ok(Self { thread, jobs })
    }

    pub fn start(&self, job: impl FnOnce(&mut Utcb) + Send + 'static) -> Check {
        *self.jobs.next.lock() = Some(Box::new(job));
        self.jobs.go.up().map_err(show)
    }

    /// Waits for the end of its job.
    pub fn finish(&self, bench: &Bench<'_>, what: &str) -> Check {
        match self.jobs.done.down_until(bench.in_ms(10_000)) {
            Ok(()) => Ok(()),
            Err(status) => Err(format!("{what} does not end: {status:?}")),
        }
    }

    /// Has something done there, and waits for what comes of it.
    pub fn ask<T: Send + 'static>(
        &self,
        bench: &Bench<'_>,
        what: &str,
        question: impl FnOnce(&mut Utcb) -> T + Send + 'static,
    ) -> Result<T, String> {
        let answer: &'static Lock<Option<T>> = Box::leak(Box::new(Lock::new(None)));
        self.start(move |utcb| {
            let value = question(utcb);
            *answer.lock() = Some(value);
        })?;
        self.finish(bench, what)?;
        answer.lock().take().ok_or_else(|| format!("{what}: no answer"))
    }
}

/// A worker on each CPU.
pub fn workers(bench: &Bench<'_>) -> Result<Vec<Worker>, String> {
    cpus().map(|cpu| Worker::new(bench, cpu)).collect()
}

/// The processor's own numbers of all CPUs.
pub fn apic_ids(bench: &Bench<'_>) -> Result<Vec<u32>, String> {
    let mut ids = Vec::new();
    for worker in workers(bench)? {
        ids.push(worker.ask(bench, "a thread", |_| apic_id())?);
        end(worker.thread)?;
    }
    Ok(ids)
}

/// Does something again and again, and compares the kernel memory afterwards: the first time may take pages for tables that stay.
pub fn without_loss(rounds: u64, mut once: impl FnMut() -> Check) -> Check {
    let free = || Pd::OWN.quota().map(|quota| quota.free).map_err(show);
    once()?;
    let before = free()?;
    for _ in 0..rounds {
        once()?;
    }
    let after = free()?;
    // Message pages of new threads are at new addresses, which take a table for 512 of them.
    check!(after + 1 >= before, "{} pages are lost in {rounds} rounds", before - after);
    Ok(())
}
