//! Wake-ups from one CPU to another.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::hypercall::{FOREVER, Status};
use runtime::clock::now;
use runtime::sm::Sm;
use runtime::task::cpus;

use super::worker::{Worker, end, far_pairs, show, workers};
use crate::fuzz::rng::Rng;
use crate::kernel::threads::semaphore;
use crate::report::{Bench, Check, Test};
use crate::{check_eq, format};

pub const TESTS: &[Test] = &[
    ("wake.ping-pong", ping_pong),
    ("wake.time-outs", time_outs),
    ("wake.one-of-many", one_of_many),
];

/// Two threads wake each other in turns, on each pair of CPUs. One wake-up that is lost, and both wait for ever.
fn ping_pong(bench: &mut Bench<'_>) -> Check {
    const ROUNDS: u64 = 3000;
    let workers = workers(bench)?;
    for first in 0..workers.len() {
        for second in first + 1..workers.len() {
            let (there, back) = (semaphore()?, semaphore()?);
            let count: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(0)));
            workers[first].start(move |_| {
                for _ in 0..ROUNDS {
                    let answered = there.up().and_then(|()| back.down());
                    count.fetch_add(answered.is_ok().into(), Ordering::Relaxed);
                }
            })?;
            workers[second].start(move |_| {
                for _ in 0..ROUNDS {
                    let answered = there.down().and_then(|()| back.up());
                    count.fetch_add(answered.is_ok().into(), Ordering::Relaxed);
                }
            })?;
            for worker in [&workers[first], &workers[second]] {
                worker.finish(bench, "ping-pong").map_err(|why| {
                    let done = count.load(Ordering::Relaxed);
                    format!("CPUs {first} and {second}, after {done} steps: {why}")
                })?;
            }
            check_eq!(count.load(Ordering::Relaxed), 2 * ROUNDS, "steps");
        }
    }
    workers.into_iter().try_for_each(|worker| end(worker.thread))
}

/// Ups from one CPU, while a thread on another waits with deadlines that pass just then: none is lost, and none counts twice.
fn time_outs(bench: &mut Bench<'_>) -> Check {
    const UPS: u64 = 4000;
    for (from, to) in far_pairs() {
        let (upper, downer) = (Worker::new(bench, from)?, Worker::new(bench, to)?);
        let (sm, end_mark) = (semaphore()?, semaphore()?);
        let unit = bench.hz / 1_000_000;
        let seen: &'static [AtomicU64; 2] = Box::leak(Box::new([const { AtomicU64::new(0) }; 2]));
        downer.start(move |_| {
            let mut random = Rng::new(0xd0);
            while end_mark.down_until(0).is_err() {
                let which = match sm.down_until(now() + random.below(30) * unit) {
                    Ok(()) => 0,
                    Err(Status::Timeout) => 1,
                    Err(_) => break,
                };
                seen[which].fetch_add(1, Ordering::Relaxed);
            }
        })?;
        upper.start(move |_| {
            let mut random = Rng::new(0x0b);
            let pause = Sm::create(runtime::pd::Pd::OWN, 0);
            for _ in 0..UPS {
                if sm.up().is_err() {
                    break;
                }
                if let Ok(pause) = pause {
                    let _ = pause.down_until(now() + random.below(30) * unit);
                }
            }
        })?;
        upper.finish(bench, "upping")?;
        end_mark.up().map_err(show)?;
        downer.finish(bench, "waiting")?;
        let mut left = 0;
        while sm.down_until(0).is_ok() {
            left += 1;
        }
        let [taken, timed_out] = seen.each_ref().map(|count| count.load(Ordering::Relaxed));
        check_eq!(taken + left, UPS, "ups from CPU {from} that arrived on {to}");
        crate::check!(timed_out > UPS / 100, "only {timed_out} time-outs");
        crate::check!(taken > UPS / 2, "only {taken} were waited for");
        end(upper.thread)?;
        end(downer.thread)?;
    }
    Ok(())
}

/// Waiters on all CPUs: each up wakes one.
fn one_of_many(bench: &mut Bench<'_>) -> Check {
    let workers = workers(bench)?;
    let sm = semaphore()?;
    let woken: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(0)));
    for _ in 0..50 {
        woken.store(0, Ordering::Relaxed);
        for worker in &workers {
            worker.start(move |_| {
                let took = sm.down_until(FOREVER).is_ok();
                woken.fetch_add(took.into(), Ordering::Relaxed);
            })?;
        }
        for _ in cpus() {
            sm.up().map_err(show)?;
        }
        for worker in &workers {
            worker.finish(bench, "a wait")?;
        }
        check_eq!(woken.load(Ordering::Relaxed), workers.len() as u64, "woken");
        check_eq!(sm.down_until(0), Err(Status::Timeout), "an up that is left");
    }
    workers.into_iter().try_for_each(|worker| end(worker.thread))
}
