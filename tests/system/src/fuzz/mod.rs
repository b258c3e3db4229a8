//! A domain that makes hypercalls at random, a million of them, and a supervisor that brings it back whenever it has killed itself.
//!
//! | module | what it does |
//! |---|---|
//! | [`life`] | one domain: its making, mending and end |
//! | [`walk`], [`choose`] | its threads: choosing calls, making them, looking at how they ended |
//! | [`machine`], [`exits`], [`guest`] | its virtual machines, which mean no good |
//! | [`accounts`] | whether kernel memory is accounted for |
//! | [`control`], [`layout`], [`stubs`], [`rng`] | what these share |
//!
//! Domain and supervisor are one partition. What must not notice anything is the partition beside it, `test-neighbour`.
//!
//! A life follows from its seed, and the seeds of all lives from that of the run: where time counts instructions, so does the run.

mod accounts;
mod choose;
mod control;
mod exits;
mod guest;
mod layout;
mod life;
mod machine;
pub(crate) mod rng;
mod stubs;
mod walk;

use alloc::format;
use core::sync::atomic::Ordering;

use abi::hypercall::{Number, Status};
use runtime::memory::GuestMemory;
use runtime::pd::Pd;
use runtime::sm::Sm;
use runtime::{Outcome, Task, println};

use control::{NUMBERS, VIOLATION};
use life::{Gifts, Life};
use rng::Rng;

use crate::check;
use crate::report::Check;

/// Calls in a life.
const CALLS: u64 = 25_000;
/// Pages of kernel memory that a life starts with, that it gets later, one by one, and calls from one to the next.
const PAGES: (u64, u64, u64) = (50, 25, 1_000);
/// The priority of a life.
const PRIORITY: u64 = 2;
/// Pages of tables that the supervisor may need more at the end than at the start.
const TABLES: u64 = 8;
/// Looks at a life, a millisecond apart, after which it is over at the latest.
const LOOKS: u64 = 500;
/// Looks from one time to the next that a life gets back what it has taken away from itself.
const RESTORED: u64 = 8;
/// From one look to the next, fewer calls are too few.
const FEW: u64 = 8;
/// Looks with too few calls in a row after which the life is shaken, and after which it is over.
const STUCK: (u64, u64) = (4, 16);

/// What the lives came to.
#[derive(Default)]
struct Sums {
    calls: u64,
    faults: u64,
    exits: u64,
    on_cpu: [u64; layout::CPUS as usize],
    tally: [[u64; control::STATUSES]; NUMBERS],
}

struct Supervisor {
    memory: GuestMemory,
    gifts: Gifts,
    sleep: Sm,
    hz: u64,
    /// How many CPUs a life is on.
    cpus: u64,
}

/// The `main` of the task.
pub fn main(task: Task) -> Outcome {
    let arguments = task.partition().map(|partition| partition.args).unwrap_or_default();
    let number = |name: &str| {
        arguments.split_whitespace().find_map(|word| word.strip_prefix(name)?.parse::<u64>().ok())
    };
    let (Some(seed), Some(calls)) = (number("seed="), number("calls=")) else {
        println!("args must be like: seed=1 calls=1000000");
        return Outcome::Failed;
    };
    // To see one life again without those before it.
    let first = number("first=").unwrap_or(0);
    // The domain is on the first ones.
    let cpus = number("cpus=").unwrap_or(1).clamp(1, layout::CPUS);
    println!("seed {seed}, {calls} calls");
    match run(&task, (seed, first), (calls, cpus)) {
        // Its end would be work for the root task, which the neighbour could not but notice.
        Ok(()) => runtime::park(),
        Err(why) => {
            println!("FAILED: {why}");
            Outcome::Failed
        }
    }
}

fn run(task: &Task, (seed, first): (u64, u64), (calls, cpus): (u64, u64)) -> Check {
    let show = |status: Status| format!("{status:?}");
    let startup = task.startup();
    let (Some(memory), Some(msrs)) = (task.guest_memory(), task.msrs()) else {
        return Err("no memory, or no registers for guests".into());
    };
    let make = || Ok((life::echo()?, Sm::create(Pd::OWN, 0)?, Sm::create(Pd::OWN, 0)?));
    let (echo, up_only, sleep) = make().map_err(show)?;
    let selectors = life::selectors().map_err(show)?;
    let gifts = Gifts { msrs, echo, up_only, selectors };
    let supervisor = Supervisor { memory, gifts, sleep, hz: startup.tsc_hz, cpus };
    let mut rng = Rng::new(seed);
    accounts::come_back(&mut rng, 20_000)?;
    println!("semaphores and portals give back what they took");
    let before = Pd::OWN.quota().map_err(show)?;
    let mut sums = Sums::default();
    let mut number = 0;
    while sums.calls < calls {
        let seed = rng.next();
        if number < first {
            number += 1;
            continue;
        }
        supervisor
            .live(number, seed, &mut sums)
            .map_err(|why| format!("life {number}, seed {seed:#x}: {why}"))?;
        number += 1;
    }
    let after = Pd::OWN.quota().map_err(show)?;
    check!(
        before.limit == after.limit && after.free + TABLES >= before.free,
        "of {before:?} pages {after:?} are left"
    );
    sums.show();
    sums.check(cpus)?;
    println!(
        "{} calls in {number} lives, {} exceptions, {} exits; by CPU {:?}",
        sums.calls, sums.faults, sums.exits, sums.on_cpu
    );
    Ok(())
}

impl Supervisor {
    fn live(&self, number: u64, seed: u64, sums: &mut Sums) -> Check {
        let before = Pd::OWN.quota().map_err(|status| format!("{status:?}"))?;
        let started = runtime::clock::now();
        let (start, more, every) = PAGES;
        let what = (seed, self.hz);
        let life = Life::new(self.memory, self.gifts, (start, PRIORITY, self.cpus), what)?;
        life.start((PRIORITY, self.hz / 10_000))?;
        self.watch(life, more, every)?;
        life.ask_to_stop();
        for _ in 0..4 {
            self.wait();
            life.shake();
        }
        accounts::settle(life, before)?;
        let control = life.control();
        let violation = control.violation.each_ref().map(|word| word.load(Ordering::Relaxed));
        check!(violation[0] != VIOLATION, "a call ended as none may: {:x?}", &violation[1..]);
        check!(life.is_kept(), "the page that may only be read has changed");
        let ms = (runtime::clock::now() - started) / (self.hz / 1000);
        let (calls, faults) = (control.calls(), life.faults.load(Ordering::Relaxed));
        let exits = control.exits.load(Ordering::Relaxed);
        println!(
            "life {number}: seed {seed:#x}, {calls} calls, {faults} exceptions, {exits} exits, {ms} ms"
        );
        sums.calls += calls;
        sums.faults += faults;
        sums.exits += exits;
        for (sum, count) in sums.on_cpu.iter_mut().zip(&control.on_cpu) {
            *sum += count.load(Ordering::Relaxed);
        }
        for (sums, counts) in sums.tally.iter_mut().zip(&control.tally) {
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum += u64::from(count.load(Ordering::Relaxed));
            }
        }
        Ok(())
    }

    /// Looks on until the life has made its calls, or makes no more; gives it pages meanwhile.
    fn watch(&self, life: &Life, more: u64, every: u64) -> Check {
        let (mut given, mut last, mut stuck) = (0, 0, 0);
        for look in 1..=LOOKS {
            self.wait();
            if self.cpus > 1 {
                life.bring_home();
            }
            let calls = life.control().calls();
            stuck = if calls < last + FEW { stuck + 1 } else { 0 };
            last = calls;
            if calls >= CALLS || stuck >= STUCK.1 {
                break;
            }
            if stuck % STUCK.0 == STUCK.0 - 1 {
                life.shake();
            }
            if look % RESTORED == 0 || stuck > 0 {
                life.restore();
            }
            if given < more && calls / every > given {
                life.pd.give(1).map_err(|status| format!("giving a page: {status:?}"))?;
                given += 1;
            }
        }
        Ok(())
    }

    /// A millisecond.
    fn wait(&self) {
        let _ = self.sleep.down_until(runtime::clock::now() + self.hz / 1000);
    }
}

impl Sums {
    /// Says how calls ended.
    fn show(&self) {
        for (number, counts) in self.tally.iter().enumerate() {
            let name = Number::from_abi(number as u8);
            println!("  {name:?}: {counts:?}");
        }
    }

    /// A fuzzer whose calls all fail tests little: every call that can succeed has to have done so.
    fn check(&self, cpus: u64) -> Check {
        for (number, counts) in self.tally.iter().enumerate() {
            let Some(name) = Number::from_abi(number as u8) else { continue };
            let (done, all) = (counts[Status::Success as usize], counts.iter().sum::<u64>());
            let least = match name {
                // They return only where they fail.
                Number::Reply | Number::AssignInt => 0,
                _ => 100,
            };
            check!(
                done >= least && all >= 1000,
                "{name:?} was made {all} times and succeeded {done} times"
            );
        }
        for (cpu, calls) in (0..cpus).zip(self.on_cpu) {
            check!(calls > self.calls / cpus / 4, "only {calls} calls on CPU {cpu}");
        }
        check!(self.exits > 1000 && self.faults > 100, "there were few exits or exceptions");
        Ok(())
    }
}
