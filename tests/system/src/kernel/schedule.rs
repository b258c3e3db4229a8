//! Who runs when, and for how long.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use abi::hypercall::Status;
use runtime::clock::now;
use runtime::protocol::startup::Share;
use runtime::task::defaults;
use runtime::thread::Thread;

use super::threads::{STACK, semaphore, settle, spawn, wait};
use crate::processor::{is_tcg, patiently, slack};
use crate::report::{Bench, Check, Test};
use crate::{check, check_eq};

pub const TESTS: &[Test] = &[
    ("schedule.preemption", preemption),
    ("schedule.equals", |bench| patiently(|| equals(bench))),
    ("schedule.budget", |bench| patiently(|| budget(bench))),
    ("schedule.consumed", |bench| patiently(|| consumed(bench))),
    ("schedule.donation", donation),
];

fn show(status: Status) -> String {
    format!("{status:?}")
}

/// A thread that counts as long as it may.
struct Counter {
    count: &'static AtomicU64,
    stop: &'static AtomicBool,
    thread: Thread,
}

impl Counter {
    fn new(share: Share) -> Result<Self, String> {
        let count: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(0)));
        let stop: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
        let body = move |_: &'static mut abi::utcb::Utcb| {
            while !stop.load(Ordering::Relaxed) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        };
        let thread = Thread::spawn_with(defaults(), STACK, share, body).map_err(show)?;
        Ok(Self { count, stop, thread })
    }

    fn end(&self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.count.load(Ordering::Relaxed)
    }
}

fn preemption(bench: &mut Bench<'_>) -> Check {
    // The instruction behind the up comes only after everything that the woken thread does.
    static STEPS: AtomicU64 = AtomicU64::new(0);
    STEPS.store(0, Ordering::Relaxed);
    let (go, done) = (semaphore()?, semaphore()?);
    spawn(2, move |_| {
        let _ = go.down();
        let _ = STEPS.compare_exchange(1, 2, Ordering::Relaxed, Ordering::Relaxed);
        let _ = done.up();
    })?;
    settle(bench)?;
    spawn(1, move |_| {
        STEPS.store(1, Ordering::Relaxed);
        let _ = go.up();
        let _ = STEPS.compare_exchange(2, 3, Ordering::Relaxed, Ordering::Relaxed);
        let _ = done.up();
    })?;
    for _ in 0..2 {
        wait(bench, done, "a thread's end")?;
    }
    check_eq!(STEPS.load(Ordering::Relaxed), 3, "steps");
    Ok(())
}

fn equals(bench: &Bench<'_>) -> Check {
    let share = Share { priority: 2, budget: bench.hz / 2000, period: 0 };
    let counters = [Counter::new(share)?, Counter::new(share)?, Counter::new(share)?];
    // The lower one gets nothing.
    let starved = Counter::new(Share { priority: 1, ..share })?;
    let sleep = semaphore()?;
    let _ = sleep.down_until(now() + 30 * slack(bench.hz));
    let lowest = starved.count.load(Ordering::Relaxed);
    let counts = counters.each_ref().map(Counter::end);
    starved.end();
    check_eq!(lowest, 0, "turns of a thread below them");
    let (low, high) = (counts.iter().min(), counts.iter().max());
    check!(
        low.zip(high).is_some_and(|(low, high)| *low > 0 && high / low < 2),
        "three equals counted to {counts:?}"
    );
    Ok(())
}

fn budget(bench: &Bench<'_>) -> Check {
    // A tenth of the time, for twenty periods: of 2 ms, if the clock is exact.
    let unit = slack(bench.hz);
    let counter = Counter::new(Share { priority: 3, budget: unit / 5 * 2, period: unit * 4 })?;
    let below = Counter::new(Share { priority: 1, budget: bench.hz / 1000, period: 0 })?;
    let sleep = semaphore()?;
    let start = now();
    let _ = sleep.down_until(start + 80 * unit);
    let time = now() - start;
    let (used, rest) = (counter.thread.sc.consumed(), below.thread.sc.consumed());
    counter.end();
    below.end();
    let (used, rest) = (used.map_err(show)?, rest.map_err(show)?);
    let expected = time / 10;
    // Where the timer may be late, so is the end of the budget.
    let (less, more) = if is_tcg() { (4 * unit, 4 * unit) } else { (2 * unit, unit) };
    check!(used < expected + more, "{used} ticks used of {expected}");
    check!(used > expected - less, "only {used} ticks used of {expected}");
    check!(rest > time / 10 * 8, "only {rest} ticks of {time} for the one below");
    Ok(())
}

fn consumed(bench: &Bench<'_>) -> Check {
    let limit = slack(bench.hz);
    let counter = Counter::new(Share { priority: 1, budget: bench.hz / 1000, period: 0 })?;
    let sleep = semaphore()?;
    let start = now();
    let _ = sleep.down_until(start + 10 * limit);
    let first = counter.thread.sc.consumed().map_err(show)?;
    let time = now() - start;
    counter.end();
    check!(first > time / 5 * 4 && first < time / 5 * 6, "{first} ticks in {time}");
    // It has to run to see that it should stop.
    let _ = sleep.down_until(now() + 10 * limit);
    let second = counter.thread.sc.consumed().map_err(show)?;
    check!(second - first < limit, "it stopped, and used {} ticks", second - first);
    Ok(())
}

fn donation(bench: &mut Bench<'_>) -> Check {
    // A handler's time is its caller's.
    let ms = bench.hz / 1000;
    let handler = runtime::handler::Handler::new(ms).map_err(show)?;
    let portal = handler
        .portal(0, 0, |ms: &mut u64, _: &mut abi::utcb::Utcb, _, _| {
            let start = now();
            while now() - start < 3 * *ms {}
            abi::utcb::MsgTag::default()
        })
        .map_err(show)?;
    let done = semaphore()?;
    let thread = spawn(1, move |_| {
        let _ = portal.signal();
        let _ = done.up();
    })?;
    wait(bench, done, "the thread's end")?;
    let used = thread.sc.consumed().map_err(show)?;
    // Of the 3 ms, others may have had a part.
    check!(used >= 2 * ms, "the caller paid {used} ticks of {}", 3 * ms);
    Ok(())
}
