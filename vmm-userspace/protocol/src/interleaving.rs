//! Every interleaving, and every reordering that the memory model allows, of small transfers and of threads that exclude each other:
//! `loom` runs the real code under all of them. A lost wake-up shows as a deadlock.

use std::vec::Vec;

use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use crate::mutex;
use crate::ring::{Consumer, Producer, Ring};

/// A counting semaphore, as the kernel's.
struct Semaphore {
    count: Mutex<u32>,
    changed: Condvar,
}

impl Semaphore {
    fn new() -> Self {
        Self { count: Mutex::new(0), changed: Condvar::new() }
    }

    fn up(&self) {
        *self.count.lock().unwrap() += 1;
        self.changed.notify_one();
    }

    fn down(&self) {
        let mut count = self.count.lock().unwrap();
        while *count == 0 {
            count = self.changed.wait(count).unwrap();
        }
        *count -= 1;
    }
}

struct Shared<const N: usize> {
    ring: Ring<N>,
    data: Semaphore,
    room: Semaphore,
}

fn send<const N: usize>(shared: &Shared<N>, bytes: &[u8]) {
    let mut producer = Producer::new(&shared.ring);
    let mut sent = 0;
    while sent < bytes.len() {
        sent += producer.write(&bytes[sent..], || shared.data.up());
        if sent < bytes.len() && producer.prepare_wait() {
            shared.room.down();
        }
    }
}

fn receive<const N: usize>(shared: &Shared<N>, count: usize) -> Vec<u8> {
    let mut consumer = Consumer::new(&shared.ring);
    let mut received = Vec::new();
    while received.len() < count {
        let mut buffer = [0; N];
        let n = consumer.read(&mut buffer, || shared.room.up());
        received.extend_from_slice(&buffer[..n]);
        if received.len() < count && consumer.prepare_wait() {
            shared.data.down();
        }
    }
    received
}

fn transfer<const N: usize>(bytes: &'static [u8]) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let shared = Arc::new(Shared::<N> {
            ring: Ring::new(),
            data: Semaphore::new(),
            room: Semaphore::new(),
        });
        let sender = thread::spawn({
            let shared = Arc::clone(&shared);
            move || send(&shared, bytes)
        });
        assert_eq!(receive(&shared, bytes.len()), bytes);
        sender.join().unwrap();
    });
}

#[test]
fn nothing_is_lost_when_the_ring_has_room() {
    transfer::<2>(b"ab");
}

#[test]
fn nothing_is_lost_when_the_producer_has_to_wait() {
    transfer::<1>(b"abc");
}

/// A lock, the semaphores that were made for it, and what it guards: without order of its own, so that what the lock does not order
/// shows.
struct Guarded {
    mutex: mutex::Mutex,
    made: AtomicU32,
    semaphores: [Semaphore; 3],
    value: AtomicU64,
}

impl Guarded {
    fn add_one(&self) {
        let create = || self.made.fetch_add(1, Relaxed) + 1;
        let find = |selector: u32| &self.semaphores[selector as usize - 1];
        self.mutex.take(create, |selector| find(selector).down());
        self.value.store(self.value.load(Relaxed) + 1, Relaxed);
        self.mutex.give(|selector| find(selector).up());
    }
}

#[test]
fn one_thread_at_a_time_holds_a_lock_and_each_gets_it() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let guarded = Arc::new(Guarded {
            mutex: mutex::Mutex::new(),
            made: AtomicU32::new(0),
            semaphores: std::array::from_fn(|_| Semaphore::new()),
            value: AtomicU64::new(0),
        });
        let others: [_; 2] = std::array::from_fn(|_| {
            let guarded = Arc::clone(&guarded);
            thread::spawn(move || guarded.add_one())
        });
        guarded.add_one();
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(guarded.value.load(Relaxed), 3);
    });
}
