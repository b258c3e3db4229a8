//! Semaphores and deadlines.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::hypercall::{FOREVER, Status};
use runtime::clock::now;
use runtime::pd::Pd;
use runtime::sm::Sm;
use runtime::space::ObjectSpace;

use super::threads::{semaphore, settle, spawn, wait};
use crate::processor::{patiently, slack};
use crate::report::{Bench, Check, Test};
use crate::{check, check_eq};

pub const TESTS: &[Test] = &[
    ("semaphore.count", count),
    ("semaphore.deadline", deadline),
    ("semaphore.many-deadlines", many_deadlines),
    ("semaphore.order", order),
    ("semaphore.gone", gone),
    ("semaphore.late-up", late_up),
];

fn show(status: Status) -> String {
    format!("{status:?}")
}

fn count(_: &mut Bench<'_>) -> Check {
    let sm = Sm::create(Pd::OWN, 3).map_err(show)?;
    for turn in 0..3 {
        check_eq!(sm.down_until(0), Ok(()), "down {turn} of 3");
    }
    check_eq!(sm.down_until(0), Err(Status::Timeout), "down of nothing");
    for _ in 0..5 {
        sm.up().map_err(show)?;
    }
    check_eq!(sm.down_all(0), Ok(()), "taking all");
    check_eq!(sm.down_until(0), Err(Status::Timeout), "down behind that");
    check_eq!(sm.down_all(0), Err(Status::Timeout), "taking all of nothing");
    // The count does not wrap around.
    let full = Sm::create(Pd::OWN, u64::MAX).map_err(show)?;
    full.up().map_err(show)?;
    check_eq!(full.down_until(0), Ok(()), "down from the largest count");
    Ok(())
}

fn deadline(bench: &mut Bench<'_>) -> Check {
    let sm = semaphore()?;
    for us in [0, 1, 10, 100, 1000, 10_000] {
        patiently(|| {
            let deadline = now() + bench.hz / 1_000_000 * us;
            check_eq!(sm.down_until(deadline), Err(Status::Timeout), "after {us} us");
            let end = now();
            check!(end >= deadline, "{us} us: {} ticks too early", deadline - end);
            let late = end - deadline;
            check!(late < bench.hz / 1000, "{us} us: {late} ticks too late");
            Ok(())
        })?;
    }
    check_eq!(sm.down_until(1), Err(Status::Timeout), "a deadline long ago");
    // An up in time is no time-out.
    let deadline = bench.in_ms(100);
    spawn(1, move |_| {
        let _ = sm.up();
    })?;
    check_eq!(sm.down_until(deadline), Ok(()), "an up in time");
    check!(now() < deadline, "it waited for the deadline all the same");
    Ok(())
}

fn many_deadlines(bench: &mut Bench<'_>) -> Check {
    // Sixteen threads sleep, the last to start the shortest; each notes which one it is when it wakes.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.store(0, Ordering::Relaxed);
    let done = semaphore()?;
    let step = slack(bench.hz);
    let start = now() + 10 * step;
    let woken: &'static [AtomicU64; 16] = Box::leak(Box::new([const { AtomicU64::new(0) }; 16]));
    for i in 0..16 {
        let sleep = semaphore()?;
        spawn(bench.priority - 1, move |_| {
            let timeout = sleep.down_until(start + step * (15 - i)) == Err(Status::Timeout);
            let turn = NEXT.fetch_add(1, Ordering::Relaxed);
            woken[i as usize].store(if timeout { turn } else { 99 }, Ordering::Relaxed);
            let _ = done.up();
        })?;
    }
    for _ in 0..16 {
        wait(bench, done, "a sleeper waking up")?;
    }
    for (i, turn) in (0..).zip(woken) {
        check_eq!(turn.load(Ordering::Relaxed), 15 - i, "turn of sleeper {i}");
    }
    Ok(())
}

fn order(bench: &mut Bench<'_>) -> Check {
    // First come, first served.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.store(0, Ordering::Relaxed);
    let (sm, done) = (semaphore()?, semaphore()?);
    let turns: &'static [AtomicU64; 20] = Box::leak(Box::new([const { AtomicU64::new(0) }; 20]));
    for slot in turns {
        spawn(bench.priority - 1, move |_| {
            let _ = sm.down();
            slot.store(NEXT.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
            let _ = done.up();
        })?;
        // Each goes to sleep before the next one starts.
        settle(bench)?;
    }
    for _ in 0..20 {
        sm.up().map_err(show)?;
    }
    for _ in 0..20 {
        wait(bench, done, "a waiter waking up")?;
    }
    for (i, turn) in (0..).zip(turns) {
        check_eq!(turn.load(Ordering::Relaxed), i, "turn of waiter {i}");
    }
    check_eq!(sm.down_until(0), Err(Status::Timeout), "what is left");
    Ok(())
}

fn gone(bench: &mut Bench<'_>) -> Check {
    let (sm, done) = (semaphore()?, semaphore()?);
    static RESULT: AtomicU64 = AtomicU64::new(99);
    for deadline in [FOREVER, bench.in_ms(10_000)] {
        spawn(bench.priority - 1, move |_| {
            let status = sm.down_until(deadline).err().map_or(0, |status| status as u64);
            RESULT.store(status, Ordering::Relaxed);
            let _ = done.up();
        })?;
    }
    settle(bench)?;
    ObjectSpace::OWN.revoke(sm.selector(), 1).map_err(show)?;
    for _ in 0..2 {
        wait(bench, done, "waking up")?;
        check_eq!(RESULT.load(Ordering::Relaxed), Status::Aborted as u64, "status");
    }
    check_eq!(sm.up(), Err(Status::BadCap), "up afterwards");
    Ok(())
}

fn late_up(bench: &mut Bench<'_>) -> Check {
    // A waiter that timed out is no longer in the queue: the up is for somebody else.
    let sm = semaphore()?;
    for _ in 0..3 {
        check_eq!(sm.down_until(now() + bench.hz / 100_000), Err(Status::Timeout), "waiting");
    }
    sm.up().map_err(show)?;
    check_eq!(sm.down_until(0), Ok(()), "the up");
    check_eq!(sm.down_until(0), Err(Status::Timeout), "another");
    Ok(())
}
