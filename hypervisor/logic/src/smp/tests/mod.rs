//! Every interleaving, and every reordering that the memory model allows: `loom` runs the real code
//! under all of them, up to a bound of forced switches between threads.
//!
//! A thread stands for a CPU. Data that a hand-over is to make visible is relaxed everywhere else,
//! so `loom` returns any value of it that the hand-over itself does not rule out. A lost wake-up or
//! a circle of waiting ends as a deadlock or as a run without end, both of which `loom` reports.

mod locks;
mod mailbox;
mod online;
mod requests;
mod semaphore;
mod wake_up;

use loom::sync::atomic::{AtomicU64, Ordering};
use loom::sync::{Condvar, Mutex};

/// Runs `f` in all orders with at most `preemptions` forced switches.
fn model(preemptions: usize, f: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(f);
}

/// An interrupt of a CPU: pending until that CPU takes it, however often it was sent.
struct Interrupt {
    pending: Mutex<bool>,
    arrived: Condvar,
}

impl Interrupt {
    fn new() -> Self {
        Self { pending: Mutex::new(false), arrived: Condvar::new() }
    }

    fn send(&self) {
        *self.pending.lock().unwrap() = true;
        self.arrived.notify_one();
    }

    /// Halts until it comes.
    fn wait(&self) {
        let mut pending = self.pending.lock().unwrap();
        while !*pending {
            pending = self.arrived.wait(pending).unwrap();
        }
        *pending = false;
    }
}

/// Data that something else has to guard: two of these at once lose one of the additions.
fn add_unguarded(data: &AtomicU64, value: u64) {
    data.store(data.load(Ordering::Relaxed) + value, Ordering::Relaxed);
}
