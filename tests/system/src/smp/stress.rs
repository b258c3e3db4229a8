//! All CPUs do all of it to each other at the same time.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::cap::{MemRights, Perms};
use abi::hypercall::Status;
use abi::vcpu::Groups;
use runtime::clock::now;
use runtime::ec::Ec;
use runtime::pd::{Limits, Pd};
use runtime::selector::FREE;
use runtime::sm::Sm;
use runtime::space::ObjectSpace;
use runtime::task::cpus;

use super::destroy::{counting_guest, guest_goes_on};
use super::domain::{Domain, Faults};
use super::worker::{Counter, end, show, slice, workers};
use crate::fuzz::rng::Rng;
use crate::kernel::threads::semaphore;
use crate::report::{Bench, Check, Test};
use crate::{check, check_eq, format};

pub const TESTS: &[Test] = &[("stress.everything", everything)];

/// What all workers share.
struct Common {
    /// Semaphores to up and to wait for.
    semaphores: Vec<Sm>,
    /// Threads that count, to be moved.
    counting: Vec<Ec>,
    /// Selectors that hold a capability at times.
    copies: Vec<u32>,
    /// A virtual CPU with a guest that counts, to be stopped and recalled.
    vcpu: Ec,
    /// Who takes the faults of threads that write where the page is gone: they wait for the end of their domain.
    faults: Vec<Faults>,
    hz: u64,
    cpus: u64,
    until: u64,
    /// How often each operation was done.
    done: [AtomicU64; OPERATIONS as usize],
    wrong: AtomicU64,
}

const OPERATIONS: u64 = 9;

impl Common {
    fn take_faults(&self, domain: Domain) -> Result<(), Status> {
        self.faults.iter().try_for_each(|faults| faults.take(domain))
    }

    /// A status that the operation cannot have.
    fn judge(&self, operation: u64, result: Result<(), Status>, allowed: &[Status]) {
        if let Some(done) = self.done.get(operation as usize) {
            done.fetch_add(1, Ordering::Relaxed);
        }
        if let Err(status) = result
            && !allowed.contains(&status)
        {
            // Which operation and which status: enough to find it.
            self.wrong.store(operation << 8 | status as u64, Ordering::Relaxed);
        }
    }

    /// What one CPU does. `domain` is its own: it is made, runs on all CPUs, and ends again and again.
    fn run(&self, number: u64, mut domain: Domain) {
        let mut random = Rng::new(0x57e5 + number);
        let mut made = true;
        let rest = Sm::create(Pd::OWN, 0);
        while now() < self.until {
            // Others on this CPU want to go on as well.
            if let (Ok(rest), true) = (rest, random.once_in(2)) {
                let _ = rest.down_until(now() + random.below(200) * (self.hz / 1_000_000));
            }
            let operation = random.below(OPERATIONS);
            let sm = self.semaphores[random.below(self.semaphores.len() as u64) as usize];
            let copy = self.copies[random.below(self.copies.len() as u64) as usize];
            let ec = self.counting[random.below(self.counting.len() as u64) as usize];
            let cpu = random.below(self.cpus) as u16;
            let (result, allowed): (_, &[Status]) = match operation {
                0 => (sm.up(), &[]),
                1 => {
                    let deadline = now() + random.below(100) * (self.hz / 1_000_000);
                    (sm.down_until(deadline), &[Status::Timeout])
                }
                2 => (ec.move_to(cpu).map(|_| ()), &[]),
                3 if !made => {
                    let again = domain.again(Limits { priority: 2, ..Limits::NONE });
                    if let Ok(new) = again {
                        (domain, made) = (new, true);
                    }
                    (again.and_then(|new| self.take_faults(new)), &[])
                }
                3 => {
                    let index = random.below(16);
                    let thread = domain.thread(cpu, index);
                    let run = thread.and_then(|_| domain.run(index, (2, self.hz / 10_000)));
                    (run.map(|_| ()), &[Status::Occupied, Status::Quota])
                }
                4 if made && random.once_in(4) => {
                    made = false;
                    (domain.pd.destroy(), &[])
                }
                4 | 5 if made => {
                    let unmapped = domain.unmap_data(MemRights::W);
                    (unmapped.and_then(|()| domain.map_data()), &[Status::Quota])
                }
                6 => {
                    let own = ObjectSpace::OWN;
                    let result = if random.once_in(2) {
                        own.grant(sm.selector(), own, copy, Perms::ALL)
                    } else {
                        own.revoke(copy, 1)
                    };
                    (result, &[Status::Occupied])
                }
                7 => (Sm::at(copy).up(), &[Status::BadCap]),
                8 => match random.below(3) {
                    0 => (self.vcpu.recall(), &[]),
                    1 => (self.vcpu.stop().map(|_| ()), &[]),
                    _ => (self.vcpu.go(), &[]),
                },
                _ => (Ok(()), &[]),
            };
            self.judge(operation, result, allowed);
        }
        if made {
            self.judge(4, domain.pd.destroy(), &[]);
        }
    }
}

fn everything(bench: &mut Bench<'_>) -> Check {
    const SECONDS: u64 = 3;
    let all: Vec<u16> = cpus().collect();
    let mut vm = counting_guest(bench, *all.last().unwrap_or(&0))?;
    let counters: Vec<Counter> =
        all.iter().map(|cpu| Counter::new(*cpu, slice(bench, 2))).collect::<Result<_, _>>()?;
    let semaphores = (0..4).map(|_| semaphore()).collect::<Result<Vec<_>, _>>()?;
    let first = FREE.range(4).map_err(show)?;
    let workers = workers(bench)?;
    let faults: Vec<Faults> = all.iter().map(|cpu| Faults::new(*cpu)).collect::<Result<_, _>>()?;
    let limits = Limits { priority: 2, ..Limits::NONE };
    let domains = (0..all.len() as u64)
        .map(|number| Domain::numbered(bench.memory, limits, number).map_err(show))
        .collect::<Result<Vec<_>, _>>()?;
    let common: &'static Common = Box::leak(Box::new(Common {
        semaphores,
        counting: counters.iter().map(|counter| counter.thread.ec).collect(),
        copies: (first..first + 4).collect(),
        vcpu: vm.vcpu,
        faults,
        hz: bench.hz,
        cpus: all.len() as u64,
        until: now() + SECONDS * bench.hz,
        done: [const { AtomicU64::new(0) }; OPERATIONS as usize],
        wrong: AtomicU64::new(0),
    }));
    domains.iter().try_for_each(|domain| common.take_faults(*domain)).map_err(show)?;
    let domain_pages = domains.len() as u64 * 120;
    let free = || Pd::OWN.quota().map(|quota| quota.free).map_err(show);
    let before = free()?;
    for ((number, worker), domain) in (0..).zip(&workers).zip(domains) {
        worker.start(move |_| common.run(number, domain))?;
    }
    // The guest's recalls are answered here meanwhile.
    let mut recalls = 0_u64;
    while now() < common.until {
        vm.patience = 1;
        if vm.wait().is_ok() {
            recalls += 1;
            vm.resume(Groups::NONE)?;
        }
    }
    for worker in &workers {
        worker.finish(bench, "what a CPU does")?;
    }
    let wrong = common.wrong.load(Ordering::Relaxed);
    check_eq!(wrong, 0, "an operation (bits 8 on) with a status that it cannot have");
    let after = free()?;
    // The domains are gone, and their own pages are back.
    check!(after + 4 >= before + domain_pages, "{} pages are lost", before + domain_pages - after);
    let done = common.done.each_ref().map(|done| done.load(Ordering::Relaxed));
    bench.say(format_args!("SMP stress {done:?}, {recalls} recalls"));
    check!(done.iter().all(|done| *done > 10), "operations done: {done:?}");
    // Everybody is still there, and does what it did. Of the recalls, the last can have come while the one before was answered.
    vm.vcpu.go().map_err(show)?;
    vm.patience = 10;
    while vm.wait().is_ok() {
        vm.resume(Groups::NONE)?;
    }
    vm.patience = 500;
    guest_goes_on(bench, &vm)?;
    vm.end()?;
    for (cpu, counter) in all.iter().zip(counters) {
        counter.goes_on(bench).map_err(|why| format!("counter {cpu}: {why}"))?;
        end(counter.thread)?;
    }
    workers.into_iter().try_for_each(|worker| end(worker.thread))
}
