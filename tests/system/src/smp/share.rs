//! Budgets are kept on every CPU.

use alloc::vec::Vec;

use runtime::clock::now;
use runtime::protocol::startup::Share;

use super::worker::{Counter, end, nap, others, show, slice};
use crate::check;
use crate::report::{Bench, Check, Test};

pub const TESTS: &[Test] = &[("share.budget", budget), ("share.after-a-move", after_a_move)];

/// Three tenths of each period, on all other CPUs at once, and what is left goes to the one below.
fn budget(bench: &mut Bench<'_>) -> Check {
    let period = bench.hz / 200;
    let share = Share { priority: 3, budget: period / 10 * 3, period };
    let mut counters = Vec::new();
    for cpu in others() {
        counters.push((cpu, Counter::new(cpu, share)?, Counter::new(cpu, slice(bench, 2))?));
    }
    nap(bench, 20_000);
    let used = |counter: &Counter| counter.thread.sc.consumed().map_err(show);
    let both = |(_, above, below): &(u16, Counter, Counter)| Ok((used(above)?, used(below)?));
    let before = counters.iter().map(both).collect::<Result<Vec<_>, alloc::string::String>>()?;
    let start = now();
    nap(bench, 1_000_000);
    let after = counters.iter().map(both).collect::<Result<Vec<_>, alloc::string::String>>()?;
    let time = now() - start;
    for ((cpu, _, _), (before, after)) in counters.iter().zip(before.into_iter().zip(after)) {
        let (above, below) = (after.0 - before.0, after.1 - before.1);
        let percent = |ticks: u64| ticks as f64 * 100.0 / time as f64;
        let (above, below) = (percent(above), percent(below));
        check!((29.0..=31.0).contains(&above), "CPU {cpu}: {above:.2} percent instead of 30");
        check!((69.0..=71.0).contains(&below), "CPU {cpu}: {below:.2} percent below it");
    }
    for (_, above, below) in counters {
        end(above.thread)?;
        end(below.thread)?;
    }
    Ok(())
}

/// Who moves does not get a budget twice.
fn after_a_move(bench: &mut Bench<'_>) -> Check {
    let period = bench.hz / 200;
    let share = Share { priority: 3, budget: period / 10 * 3, period };
    let cpus: Vec<u16> = runtime::task::cpus().collect();
    let counter = Counter::new(0, share)?;
    nap(bench, 20_000);
    let before = counter.thread.sc.consumed().map_err(show)?;
    let start = now();
    for round in 0..400 {
        let to = cpus[round % cpus.len()];
        super::worker::insist("moving", || counter.thread.ec.move_to(to))?;
        nap(bench, 2500);
    }
    let used = counter.thread.sc.consumed().map_err(show)? - before;
    let percent = used as f64 * 100.0 / (now() - start) as f64;
    check!((28.0..=31.0).contains(&percent), "{percent:.2} percent instead of 30");
    end(counter.thread)
}
