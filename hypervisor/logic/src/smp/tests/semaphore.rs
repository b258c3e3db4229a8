//! Ups and downs of a semaphore with its queue, and timeouts that race with them.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use std::vec::Vec;

use super::{Interrupt, add_unguarded, model};
use crate::smp::semaphore::Semaphore;

/// CPUs, each with one context, named by its number.
const CPUS: usize = 3;

/// A queue that nothing but the semaphore's lock guards.
#[derive(Default)]
pub struct Queue {
    length: AtomicU64,
    waiters: [AtomicU64; CPUS],
}

impl Queue {
    fn contents(&self) -> Vec<u64> {
        let length = self.length.load(Ordering::Relaxed) as usize;
        self.waiters[..length].iter().map(|waiter| waiter.load(Ordering::Relaxed)).collect()
    }

    fn set(&self, waiters: &[u64]) {
        for (slot, waiter) in self.waiters.iter().zip(waiters) {
            slot.store(*waiter, Ordering::Relaxed);
        }
        self.length.store(waiters.len() as u64, Ordering::Relaxed);
    }

    pub fn is_empty(&self) -> bool {
        self.length.load(Ordering::Relaxed) == 0
    }

    pub fn push(&self, waiter: u64) {
        let mut contents = self.contents();
        assert!(!contents.contains(&waiter), "queued twice");
        contents.push(waiter);
        self.set(&contents);
    }

    pub fn pop(&self) -> Option<u64> {
        let contents = self.contents();
        let (first, rest) = contents.split_first()?;
        self.set(rest);
        Some(*first)
    }

    pub fn remove(&self, waiter: u64) -> bool {
        let mut contents = self.contents();
        let before = contents.len();
        contents.retain(|other| *other != waiter);
        self.set(&contents);
        contents.len() != before
    }
}

struct Shared {
    semaphore: Semaphore,
    queue: Queue,
    wake: [Interrupt; CPUS],
    woken: [AtomicU64; CPUS],
    /// What ups hand to downs.
    data: AtomicU64,
}

impl Shared {
    fn new(count: u64) -> Arc<Self> {
        Arc::new(Self {
            semaphore: Semaphore::new(count),
            queue: Queue::default(),
            wake: core::array::from_fn(|_| Interrupt::new()),
            woken: Default::default(),
            data: AtomicU64::new(0),
        })
    }

    fn up(&self) {
        if self.semaphore.try_up() {
            return;
        }
        let woken = self.semaphore.lock(|| self.queue.is_empty()).up(|| self.queue.pop());
        if let Some(cpu) = woken {
            add_unguarded(&self.woken[cpu as usize], 1);
            self.wake[cpu as usize].send();
        }
    }

    /// Whether it is down; if not, `cpu` is in the queue.
    fn down_or_queue(&self, cpu: u64, all: bool) -> bool {
        if self.semaphore.try_down(all) {
            return true;
        }
        let mut locked = self.semaphore.lock(|| self.queue.is_empty());
        let down = locked.down(all);
        if !down {
            self.queue.push(cpu);
        }
        down
    }

    fn down(&self, cpu: u64, all: bool) {
        if !self.down_or_queue(cpu, all) {
            self.await_wake_up(cpu);
        }
    }

    fn await_wake_up(&self, cpu: u64) {
        self.wake[cpu as usize].wait();
        assert_eq!(self.woken[cpu as usize].swap(0, Ordering::Relaxed), 1, "woken twice");
    }

    /// A down whose timeout comes at once. Whether it was in time.
    fn down_with_timeout(&self, cpu: u64) -> bool {
        if self.down_or_queue(cpu, false) {
            return true;
        }
        let removed = {
            let _locked = self.semaphore.lock(|| self.queue.is_empty());
            self.queue.remove(cpu)
        };
        if removed {
            return false;
        }
        self.await_wake_up(cpu);
        true
    }

    /// Nobody waits, nobody was woken for nothing, and what is left.
    fn count_at_rest(&self) -> u64 {
        assert!(self.queue.is_empty());
        assert!(self.woken.iter().all(|woken| woken.load(Ordering::Relaxed) == 0));
        let mut count = 0;
        while self.semaphore.try_down(false) {
            count += 1;
        }
        assert!(self.semaphore.try_up(), "somebody seems to wait");
        count
    }
}

fn spawn<R: 'static>(
    shared: &Arc<Shared>,
    f: impl FnOnce(&Shared) -> R + 'static,
) -> thread::JoinHandle<R> {
    let shared = Arc::clone(shared);
    thread::spawn(move || f(&shared))
}

#[test]
fn as_many_downs_as_ups_pass_on_two_cpus() {
    model(3, || {
        let shared = Shared::new(0);
        let upper = spawn(&shared, |shared| {
            shared.up();
            shared.up();
        });
        shared.down(0, false);
        shared.down(0, false);
        upper.join().unwrap();
        assert_eq!(shared.count_at_rest(), 0);
    });
}

#[test]
fn two_waiters_each_get_one_of_two_ups() {
    model(2, || {
        let shared = Shared::new(0);
        let waiters = [1, 2].map(|cpu| spawn(&shared, move |shared| shared.down(cpu, false)));
        shared.up();
        shared.up();
        for waiter in waiters {
            waiter.join().unwrap();
        }
        assert_eq!(shared.count_at_rest(), 0);
    });
}

#[test]
fn two_ups_at_once_wake_one_and_count_one() {
    model(1, || {
        let shared = Shared::new(0);
        let uppers = [1, 2].map(|_| spawn(&shared, Shared::up));
        shared.down(0, false);
        for upper in uppers {
            upper.join().unwrap();
        }
        assert_eq!(shared.count_at_rest(), 1);
    });
}

#[test]
fn a_down_of_all_takes_one_wake_up_or_all_there_is() {
    model(3, || {
        let shared = Shared::new(0);
        let upper = spawn(&shared, |shared| {
            shared.up();
            shared.up();
        });
        shared.down(0, true);
        upper.join().unwrap();
        assert!(shared.count_at_rest() <= 1);
    });
}

#[test]
fn a_timeout_and_an_up_share_one_outcome() {
    model(3, || {
        let shared = Shared::new(0);
        let upper = spawn(&shared, Shared::up);
        let in_time = shared.down_with_timeout(0);
        upper.join().unwrap();
        assert_eq!(shared.count_at_rest(), u64::from(!in_time));
    });
}

#[test]
fn a_timeout_takes_no_wake_up_from_another_waiter() {
    model(2, || {
        let shared = Shared::new(0);
        let hasty = spawn(&shared, |shared| shared.down_with_timeout(1));
        let patient = spawn(&shared, |shared| shared.down(2, false));
        shared.up();
        shared.up();
        let in_time = hasty.join().unwrap();
        patient.join().unwrap();
        assert_eq!(shared.count_at_rest(), u64::from(!in_time));
    });
}

#[test]
fn a_binary_semaphore_guards_data_without_its_lock() {
    model(3, || {
        let shared = Shared::new(1);
        let work = |shared: &Shared, cpu| {
            shared.down(cpu, false);
            add_unguarded(&shared.data, 1);
            shared.up();
        };
        let other = spawn(&shared, move |shared| work(shared, 1));
        work(&shared, 0);
        other.join().unwrap();
        assert_eq!(shared.data.load(Ordering::Relaxed), 2);
        assert_eq!(shared.count_at_rest(), 1);
    });
}

#[test]
fn an_up_through_the_lock_is_seen_by_a_down_without_it() {
    model(3, || {
        let shared = Shared::new(0);
        let upper = spawn(&shared, |shared| {
            add_unguarded(&shared.data, 1);
            // Finds nobody to wake if the timeout is faster, but may have found that somebody waits.
            shared.up();
        });
        let in_time = shared.down_with_timeout(0);
        if in_time || shared.semaphore.try_down(false) {
            assert_eq!(shared.data.load(Ordering::Relaxed), 1);
        }
        upper.join().unwrap();
    });
}

#[test]
fn a_down_sees_what_came_before_every_up() {
    model(3, || {
        let shared = Shared::new(0);
        let parts = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let uppers = [0, 1].map(|part| {
            let parts = Arc::clone(&parts);
            spawn(&shared, move |shared| {
                parts[part].store(1, Ordering::Relaxed);
                // Nobody queues here.
                assert!(shared.semaphore.try_up());
            })
        });
        let mut count = 0;
        while shared.semaphore.try_down(false) {
            count += 1;
        }
        let seen: u64 = parts.iter().map(|part| part.load(Ordering::Relaxed)).sum();
        assert!(seen >= count, "{count} ups, but only {seen} of what came before them");
        for upper in uppers {
            upper.join().unwrap();
        }
    });
}
