//! What CPUs hand to each other, under load, on the processor's own atomics.

use std::array::from_fn;
use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hypervisor_logic::smp::big_lock::BigLock;
use hypervisor_logic::smp::cpu_set::CpuSet;
use hypervisor_logic::smp::mailbox::{Link, Mailbox};
use hypervisor_logic::smp::request::Requests;
use hypervisor_logic::smp::semaphore::Semaphore;

const CPUS: usize = 3;

/// Gives the time to other threads until `ready`, and fails if that never comes.
fn wait_until(mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !ready() {
        assert!(Instant::now() < deadline, "lost");
        thread::yield_now();
    }
}

/// Adds in two steps: two of these at once lose one of the additions.
fn add_unguarded(data: &AtomicU64, value: u64) {
    data.store(data.load(Ordering::Relaxed) + value, Ordering::Relaxed);
}

#[test]
fn cpus_that_all_ask_each_other_all_get_their_answers() {
    const ROUNDS: u64 = 2_000;
    let (lock, requests, finished) = (BigLock::new(), Requests::new(), AtomicUsize::new(0));
    let prepared = AtomicU64::new(0);
    let effects: [AtomicU64; CPUS] = from_fn(|_| AtomicU64::new(0));
    let serve = |cpu: u8| {
        if let Some(what) = requests.take(cpu) {
            let value = prepared.load(Ordering::Relaxed);
            assert_eq!(what, [value, !value, value + 1]);
            add_unguarded(&effects[usize::from(cpu)], value);
            requests.done(cpu);
        }
    };
    let work = |own: u8| {
        let others = CpuSet::from_bits((1 << CPUS) - 1).without(own);
        for value in 1..=ROUNDS {
            let held = lock.acquire(|| {
                serve(own);
                thread::yield_now();
            });
            let sum = || effects.iter().map(|effect| effect.load(Ordering::Relaxed)).sum::<u64>();
            let before = sum();
            prepared.store(value, Ordering::Relaxed);
            requests.post(&held, others, [value, !value, value + 1]);
            wait_until(|| requests.is_complete());
            assert_eq!(sum(), before + value * u64::from(others.len()));
        }
        finished.fetch_add(1, Ordering::Relaxed);
        wait_until(|| {
            serve(own);
            finished.load(Ordering::Relaxed) == CPUS
        });
    };
    thread::scope(|scope| {
        for cpu in 0..CPUS as u8 {
            scope.spawn(move || work(cpu));
        }
    });
    for effect in effects {
        assert_eq!(effect.into_inner(), (CPUS as u64 - 1) * ROUNDS * (ROUNDS + 1) / 2);
    }
}

#[test]
fn a_mailbox_delivers_all_reasons_of_all_cpus() {
    const ROUNDS: u64 = 100_000;
    const NODES: usize = 5;
    const PUSHERS: u64 = 2;
    let (mailbox, interrupt) = (Mailbox::new(), AtomicBool::new(false));
    let links: [Link; NODES] = from_fn(|_| Link::new());
    let reasons: [AtomicU64; NODES] = from_fn(|_| AtomicU64::new(0));
    let push = || {
        for round in 0..ROUNDS as usize {
            let index = round % NODES;
            reasons[index].fetch_add(1, Ordering::Relaxed);
            if mailbox.push(index as u64 + 1, &links[index]) {
                interrupt.store(true, Ordering::Release);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..PUSHERS {
            scope.spawn(push);
        }
        let seen = Cell::new(0);
        wait_until(|| {
            if interrupt.swap(false, Ordering::Acquire) {
                for node in mailbox.drain(|node| &links[node as usize - 1]) {
                    let reason = &reasons[node as usize - 1];
                    let count = reason.load(Ordering::Relaxed);
                    reason.fetch_sub(count, Ordering::Relaxed);
                    seen.set(seen.get() + count);
                }
            }
            seen.get() == PUSHERS * ROUNDS
        });
    });
    assert!(reasons.iter().all(|reason| reason.load(Ordering::Relaxed) == 0));
}

struct Shared {
    semaphore: Semaphore,
    /// Never contended if the semaphore's lock does what it should.
    queue: Mutex<std::collections::VecDeque<usize>>,
    woken: [AtomicU64; CPUS],
}

impl Shared {
    fn queue(&self) -> std::sync::MutexGuard<'_, std::collections::VecDeque<usize>> {
        self.queue.try_lock().expect("two have the lock of the semaphore")
    }

    fn up(&self) {
        if self.semaphore.try_up() {
            return;
        }
        let mut locked = self.semaphore.lock(|| self.queue().is_empty());
        let woken = locked.up(|| self.queue().pop_front());
        drop(locked);
        if let Some(cpu) = woken {
            assert_eq!(self.woken[cpu].fetch_add(1, Ordering::Release), 0, "woken twice");
        }
    }

    /// Whether it was in time; a wait without `patience` ends at once if nobody ends it earlier.
    fn down(&self, cpu: usize, patience: bool, waits: &AtomicU64) -> bool {
        if self.semaphore.try_down(false) {
            return true;
        }
        {
            let mut locked = self.semaphore.lock(|| self.queue().is_empty());
            if locked.down(false) {
                return true;
            }
            self.queue().push_back(cpu);
            waits.fetch_add(1, Ordering::Relaxed);
        }
        if !patience {
            thread::yield_now();
            let _locked = self.semaphore.lock(|| self.queue().is_empty());
            let mut queue = self.queue();
            let length = queue.len();
            queue.retain(|other| *other != cpu);
            if queue.len() != length {
                return false;
            }
        }
        wait_until(|| self.woken[cpu].swap(0, Ordering::Acquire) != 0);
        true
    }
}

#[test]
fn ups_and_downs_and_timeouts_keep_the_count() {
    const ROUNDS: u64 = 30_000;
    /// Ups that may be ahead of their downs: few, so that the downs have to wait.
    const AHEAD: u64 = 3;
    let shared = Shared {
        semaphore: Semaphore::new(0),
        queue: Mutex::default(),
        woken: from_fn(|_| AtomicU64::new(0)),
    };
    let (rounds, missed, waits) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let (shared, rounds, missed, waits) = (&shared, &rounds, &missed, &waits);
    thread::scope(|scope| {
        scope.spawn(|| {
            for up in 0..2 * ROUNDS {
                wait_until(|| up < rounds.load(Ordering::Relaxed) + AHEAD);
                shared.up();
            }
        });
        for cpu in 1..CPUS {
            scope.spawn(move || {
                let down = |patience| {
                    if !shared.down(cpu, patience, waits) {
                        missed.fetch_add(1, Ordering::Relaxed);
                    }
                };
                for round in 0..ROUNDS {
                    down(round % 3 != 0);
                    rounds.fetch_add(1, Ordering::Relaxed);
                    // Each further down has an up of its own before it.
                    if round % 2 == 0 {
                        shared.up();
                        down(round % 5 != 0);
                    }
                }
            });
        }
    });
    let mut left = 0;
    while shared.semaphore.try_down(false) {
        left += 1;
    }
    assert_eq!(left, missed.load(Ordering::Relaxed));
    assert!(waits.load(Ordering::Relaxed) > ROUNDS / 100, "nobody had to wait");
    assert!(shared.queue().is_empty());
    assert!(shared.semaphore.try_up(), "somebody seems to wait");
}
