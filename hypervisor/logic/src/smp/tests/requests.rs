//! Requests reach every target once, order memory both ways, and do not deadlock with the lock.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

use super::{Interrupt, add_unguarded, model};
use crate::smp::atomic::spin_loop;
use crate::smp::big_lock::BigLock;
use crate::smp::cpu_set::CpuSet;
use crate::smp::request::Requests;

struct Shared<const CPUS: usize> {
    lock: BigLock,
    requests: Requests,
    interrupts: [Interrupt; CPUS],
    /// What a requester has prepared, for its targets to see.
    prepared: AtomicU64,
    /// What each target has done, for the requester to see.
    effects: [AtomicU64; CPUS],
}

impl<const CPUS: usize> Shared<CPUS> {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            lock: BigLock::new(),
            requests: Requests::new(),
            interrupts: core::array::from_fn(|_| Interrupt::new()),
            prepared: AtomicU64::new(0),
            effects: core::array::from_fn(|_| AtomicU64::new(0)),
        })
    }

    /// Does what `cpu` is asked for, if anything.
    fn serve(&self, cpu: u8) {
        if let Some(what) = self.requests.take(cpu) {
            let value = self.prepared.load(Ordering::Relaxed);
            assert_eq!(what, [value, value + 1, value + 2], "torn, stale or too early");
            assert_eq!(self.requests.take(cpu), None, "given twice");
            add_unguarded(&self.effects[cpu as usize], value);
            self.requests.done(cpu);
        }
    }

    /// Asks `targets` to add `value` to their effects, as CPU `own`.
    fn ask(&self, own: u8, targets: CpuSet, value: u64) {
        let held = self.lock.acquire(|| self.serve(own));
        assert!(!self.requests.is_asked(own), "the last holder left before all was done");
        let before: std::vec::Vec<_> =
            targets.map(|cpu| self.effects[cpu as usize].load(Ordering::Relaxed)).collect();
        self.prepared.store(value, Ordering::Relaxed);
        self.requests.post(&held, targets, [value, value + 1, value + 2]);
        for cpu in targets {
            self.interrupts[cpu as usize].send();
        }
        while !self.requests.is_complete() {
            spin_loop();
        }
        for (cpu, before) in targets.zip(before) {
            let after = self.effects[cpu as usize].load(Ordering::Relaxed);
            assert_eq!(after, before + value, "CPU {cpu} has not done it, or twice");
        }
        // What was prepared is the targets' no more.
        self.prepared.store(u64::MAX / 2, Ordering::Relaxed);
    }
}

#[test]
fn all_targets_do_it_once_and_see_what_was_prepared() {
    model(2, || {
        let shared = Shared::<3>::new();
        let targets: std::vec::Vec<_> = [1, 2]
            .map(|cpu: u8| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    shared.interrupts[cpu as usize].wait();
                    shared.serve(cpu);
                })
            })
            .into();
        shared.ask(0, CpuSet::EMPTY.with(1).with(2), 10);
        for target in targets {
            target.join().unwrap();
        }
    });
}

#[test]
fn a_late_interrupt_finds_the_next_request_or_nothing() {
    model(3, || {
        let shared = Shared::<2>::new();
        let target = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                // Polls as well, so that interrupts come for what is done already.
                while shared.effects[1].load(Ordering::Relaxed) < 30 {
                    shared.serve(1);
                    if shared.effects[1].load(Ordering::Relaxed) < 30 {
                        shared.interrupts[1].wait();
                    }
                    shared.serve(1);
                }
            }
        });
        shared.ask(0, CpuSet::one(1), 10);
        shared.ask(0, CpuSet::one(1), 20);
        target.join().unwrap();
        assert_eq!(shared.effects[1].load(Ordering::Relaxed), 30);
    });
}

/// Asks the other of two CPUs, which asks as well.
fn ask_each_other(shared: &Shared<2>, own: u8) {
    let other = 1 - own;
    shared.ask(own, CpuSet::one(other), 10 + u64::from(own));
    // Back in ring 3, where interrupts come through.
    while shared.effects[own as usize].load(Ordering::Relaxed) == 0 {
        shared.interrupts[own as usize].wait();
        shared.serve(own);
    }
}

#[test]
fn two_that_ask_each_other_both_get_their_answer() {
    model(3, || {
        let shared = Shared::<2>::new();
        let second = thread::spawn({
            let shared = Arc::clone(&shared);
            move || ask_each_other(&shared, 1)
        });
        ask_each_other(&shared, 0);
        second.join().unwrap();
        assert_eq!(shared.effects[0].load(Ordering::Relaxed), 11);
        assert_eq!(shared.effects[1].load(Ordering::Relaxed), 10);
    });
}

#[test]
fn whoever_waits_for_the_lock_serves_its_holder() {
    model(3, || {
        let shared = Shared::<2>::new();
        let held = shared.lock.acquire(|| {});
        let waiter = thread::spawn({
            let shared = Arc::clone(&shared);
            // No interrupt reaches it while it waits.
            move || drop(shared.lock.acquire(|| shared.serve(1)))
        });
        shared.prepared.store(10, Ordering::Relaxed);
        shared.requests.post(&held, CpuSet::one(1), [10, 11, 12]);
        while !shared.requests.is_complete() {
            spin_loop();
        }
        assert_eq!(shared.effects[1].load(Ordering::Relaxed), 10);
        drop(held);
        waiter.join().unwrap();
    });
}
