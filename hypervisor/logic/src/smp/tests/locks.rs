//! The locks exclude, order memory, and serve in the order of asking.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use loom::thread;

use super::{add_unguarded, model};
use crate::smp::atomic::spin_loop;
use crate::smp::big_lock::BigLock;
use crate::smp::ticket_lock::TicketLock;

#[derive(Default)]
struct Shared {
    lock: TicketLock,
    data: AtomicU64,
}

fn count(threads: u64, rounds: u64, preemptions: usize) {
    model(preemptions, move || {
        let shared = Arc::new(Shared::default());
        let work = move |shared: &Shared| {
            for _ in 0..rounds {
                let _ticket = shared.lock.acquire(|| {});
                add_unguarded(&shared.data, 1);
            }
        };
        let others: std::vec::Vec<_> = (1..threads)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || work(&shared))
            })
            .collect();
        work(&shared);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(shared.data.load(Ordering::Relaxed), threads * rounds);
    });
}

#[test]
fn two_exclude_each_other_and_see_what_the_other_did() {
    count(2, 3, 4);
}

#[test]
fn three_exclude_each_other() {
    count(3, 1, 3);
}

#[test]
fn whoever_asks_first_gets_it_first() {
    model(2, || {
        let shared = Arc::new((BigLock::new(), AtomicBool::new(false), AtomicU64::new(0)));
        let held = shared.0.acquire(|| {});
        let second = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let (lock, asked, order) = &*shared;
                let _held = lock.acquire(|| asked.store(true, Ordering::Release));
                assert_eq!(order.load(Ordering::Relaxed), 0);
                order.store(2, Ordering::Relaxed);
                asked.store(true, Ordering::Release);
            }
        });
        let third = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let (lock, asked, order) = &*shared;
                while !asked.load(Ordering::Acquire) {
                    spin_loop();
                }
                let _held = lock.acquire(|| {});
                assert_eq!(order.load(Ordering::Relaxed), 2);
            }
        });
        drop(held);
        second.join().unwrap();
        third.join().unwrap();
    });
}
