//! Shares of CPU time: what a context was promised it gets, and what it was not promised it does not get, in every single period.
//!
//! Three contexts want the CPU:
//!
//! * a guest that loops for ever, with three tenths of the time;
//! * a thread that has something to do in each period, with a fifth of the time, which is a little more than it needs;
//! * a thread that loops for ever, below both, with whatever is left.
//!
//! The main thread, above all of them, looks at what each has consumed at the end of every period.

mod contexts;

use alloc::format;
use core::sync::atomic::Ordering;

use abi::hypercall::Status;
use runtime::clock::now;
use runtime::pd::Pd;
use runtime::println;
use runtime::protocol::startup::Share;
use runtime::sc::Sc;
use runtime::sm::Sm;

use crate::check;
use crate::report::{Bench, Check, Test};
use contexts::{Guest, Periodic, Spinner};

/// All of them.
pub const TESTS: [&[Test]; 1] = [&[
    ("share.guest-above", |bench| shares(bench, Order { guest: 100, periodic: 90 })),
    ("share.guest-equal", |bench| shares(bench, Order { guest: 90, periodic: 90 })),
    ("share.guest-below", |bench| shares(bench, Order { guest: 80, periodic: 90 })),
]];

/// Periods that are looked at.
const PERIODS: u64 = 10_000;
/// Periods in a second. In shorter ones, what it takes to wake the periodic thread is more than the share that may be off.
const RATE: u64 = 1_000;
/// Tenths of a percent: what the guest is promised, and the periodic thread.
const GUEST: u64 = 300;
const PERIODIC: u64 = 200;
/// What the periodic thread does takes this part of its budget, in percent.
const WORK: u64 = 80;
/// Tenths of a percent that a share may be off in the long run.
const OFF: u64 = 10;
/// Ticks by which a budget may be exceeded in one period are the ticks in a second divided by this: 10 microseconds. That is what it takes
/// from the end of a budget to the next context: the timer's interrupt, the exit of a guest, a decision; and that this test looks some
/// instructions earlier or later than the period ends.
const EXCESS: u64 = 100_000;

/// Priorities.
#[derive(Clone, Copy)]
struct Order {
    guest: u64,
    periodic: u64,
}

/// One context, as the main thread sees it.
struct Account {
    sc: Sc,
    /// Ticks it may have in a period.
    budget: u64,
    start: u64,
    last: u64,
    /// The most that it had in one period.
    most: u64,
}

fn show(status: Status) -> alloc::string::String {
    format!("{status:?}")
}

impl Account {
    fn new(sc: Sc, budget: u64) -> Result<Self, Status> {
        let start = sc.consumed()?;
        Ok(Self { sc, budget, start, last: start, most: 0 })
    }

    /// A period has ended.
    fn look(&mut self) -> Result<(), Status> {
        let consumed = self.sc.consumed()?;
        self.most = self.most.max(consumed - self.last);
        self.last = consumed;
        Ok(())
    }

    const fn total(&self) -> u64 {
        self.last - self.start
    }
}

fn shares(bench: &mut Bench<'_>, order: Order) -> Check {
    let period = bench.hz / RATE;
    let (guest_budget, periodic_budget) = (period * GUEST / 1000, period * PERIODIC / 1000);
    let work = periodic_budget * WORK / 100;
    let slice = Share { priority: 10, budget: period / 5, period: 0 };
    let spinner = Spinner::new(slice).map_err(show)?;
    let share = Share { priority: order.periodic, budget: periodic_budget, period };
    let periodic = Periodic::new(share, work, PERIODS).map_err(show)?;
    let share = Share { priority: order.guest, budget: guest_budget, period };
    // Its periods begin when its time is made: so do those of this test.
    let (guest, release) = Guest::new(bench.memory, share)?;
    // The first period is not a whole one for everybody.
    let start = release + 2 * period;
    periodic.begin(start);
    let sleep = Sm::create(Pd::OWN, 0).map_err(show)?;
    let until = |time| match sleep.down_until(time) {
        Err(Status::Timeout) => Ok(()),
        other => Err(format!("sleeping ended with {other:?}")),
    };
    until(start)?;
    let account = |sc, budget| Account::new(sc, budget).map_err(show);
    let mut accounts = [
        account(guest.sc, guest_budget)?,
        account(periodic.thread.sc, periodic_budget)?,
        account(spinner.thread.sc, period)?,
    ];
    let (began, mut looking, mut late) = (now(), 0, 0);
    for number in 1..=PERIODS {
        let end = start + number * period;
        until(end)?;
        let woken = now();
        late = woken.saturating_sub(end).max(late);
        for account in &mut accounts {
            account.look().map_err(show)?;
        }
        looking += now() - woken;
    }
    let time = now() - began;
    // The work of the last period is yet to be done.
    until(now() + 2 * period)?;
    spinner.end();
    guest.end();
    let permille = |ticks: u64| ticks * 1000 / time;
    let [guest_share, periodic_share, rest] =
        accounts.each_ref().map(|account| permille(account.total()));
    let us = |ticks: u64| ticks * 10_000_000 / bench.hz;
    let [guest_most, periodic_most, _] = accounts.each_ref().map(|account| us(account.most));
    let (done, missed) = (periodic.done(), periodic.missed());
    println!(
        "guest {guest_share}, periodic {periodic_share}, rest {rest}, looking {} of 1000; in one period at most \
         {guest_most} and {periodic_most} of {} and {} tenths of a us; slowest answer {}, latest look {}",
        permille(looking),
        us(guest_budget),
        us(periodic_budget),
        us(periodic.slowest()),
        us(late),
    );
    check!(done >= PERIODS, "the periodic thread did {done} of {PERIODS} periods' work");
    check!(missed == 0, "{missed} of {PERIODS} periods were missed");
    let near = |name: &str, got: u64, asked: u64| -> Check {
        check!(got.abs_diff(asked) <= OFF, "{name} had {got} of 1000, not {asked}");
        Ok(())
    };
    near("the guest", guest_share, GUEST)?;
    near("the periodic thread", periodic_share, permille(periodic.cost() * PERIODS))?;
    let left = 1000_u64.saturating_sub(guest_share + periodic_share + permille(looking));
    near("the rest", rest, left)?;
    for (name, account) in ["the guest", "the periodic thread"].iter().zip(&accounts) {
        let limit = account.budget + bench.hz / EXCESS;
        check!(
            account.most <= limit,
            "{name} had {} ticks in a period, {limit} are allowed",
            account.most
        );
    }
    check!(guest.exits.load(Ordering::Relaxed) <= 1, "the guest that loops had exits");
    Ok(())
}
