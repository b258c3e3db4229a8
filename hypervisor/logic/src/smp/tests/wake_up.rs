//! All together: a waiter on another CPU is woken through its mailbox, while its timeout runs out
//! there and its semaphore is destroyed.
//!
//! The destroyer holds the big lock and goes in this order: take the capability away; let every CPU
//! pass a quiescent point, after which nobody can queue any more; wake all waiters; let every CPU
//! pass a quiescent point again, after which all wake-ups have arrived; free the memory.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

use super::semaphore::Queue;
use super::{Interrupt, add_unguarded, model};
use crate::smp::atomic::spin_loop;
use crate::smp::big_lock::{BigLock, Held};
use crate::smp::cpu_set::CpuSet;
use crate::smp::mailbox::{Link, Mailbox};
use crate::smp::request::Requests;
use crate::smp::semaphore::Semaphore;

/// The address of the one context, which is bound to one CPU.
const NODE: u64 = 0x1000;
const OWNER: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    NoCapability,
    Success,
    Timeout,
    Aborted,
}

#[derive(Default)]
struct System {
    lock: BigLock,
    requests: Requests,
    /// Requests that the owner has served.
    served: AtomicU64,
    /// Not 0 once the capability is gone.
    revoked: AtomicU64,
    /// Not 0 once the semaphore's memory is free.
    freed: AtomicU64,
    semaphore: Semaphore,
    queue: Queue,
    mailbox: Mailbox,
    link: Link,
    /// How the context's wait has ended, stored by whoever took it out of the queue.
    outcome: AtomicU64,
}

struct Shared(System, Interrupt);

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Self(System::default(), Interrupt::new()))
    }

    fn assert_alive(&self) {
        assert_eq!(self.0.freed.load(Ordering::Relaxed), 0, "a semaphore that is freed");
    }

    fn post(&self, woken: Option<u64>, outcome: Outcome) {
        let Some(node) = woken else { return };
        self.0.outcome.store(outcome as u64, Ordering::Relaxed);
        if self.0.mailbox.push(node, &self.0.link) {
            self.1.send();
        }
    }

    fn up(&self) {
        let System { semaphore, queue, .. } = &self.0;
        if !semaphore.try_up() {
            let woken = semaphore.lock(|| queue.is_empty()).up(|| queue.pop());
            self.post(woken, Outcome::Success);
        }
    }

    fn quiesce(&self, held: &Held<'_>) {
        self.0.requests.post(held, CpuSet::one(OWNER), [0; 3]);
        self.1.send();
        while !self.0.requests.is_complete() {
            spin_loop();
        }
    }

    fn destroy(&self) {
        let System { semaphore, queue, .. } = &self.0;
        let held = self.0.lock.acquire(|| {});
        self.0.revoked.store(1, Ordering::Relaxed);
        self.quiesce(&held);
        let woken = {
            let _locked = semaphore.lock(|| queue.is_empty());
            queue.pop()
        };
        self.post(woken, Outcome::Aborted);
        self.quiesce(&held);
        self.0.freed.store(1, Ordering::Relaxed);
    }

    /// The owner's interrupt handler: how the wait has ended, if it has.
    fn interrupted(&self) -> Option<Outcome> {
        // The mailbox comes after the request, and before the answer.
        let asked = self.0.requests.take(OWNER).is_some();
        let mut ended = None;
        for node in self.0.mailbox.drain(|_| &self.0.link) {
            assert_eq!((node, ended), (NODE, None));
            ended = match self.0.outcome.load(Ordering::Relaxed) {
                outcome if outcome == Outcome::Success as u64 => Some(Outcome::Success),
                outcome if outcome == Outcome::Aborted as u64 => Some(Outcome::Aborted),
                outcome => panic!("posted for nothing: {outcome}"),
            };
        }
        if asked {
            add_unguarded(&self.0.served, 1);
            self.0.requests.done(OWNER);
        }
        ended
    }

    /// A down on the owner, with a timeout that comes as soon as nothing else is there.
    fn wait(&self) -> Outcome {
        let System { semaphore, queue, .. } = &self.0;
        // First entry into the kernel: the hypercall.
        if self.0.revoked.load(Ordering::Relaxed) != 0 {
            return Outcome::NoCapability;
        }
        self.assert_alive();
        {
            let mut locked = semaphore.lock(|| queue.is_empty());
            if locked.down(false) {
                return Outcome::Success;
            }
            queue.push(NODE);
        }
        // Second: an interrupt, if one has come.
        if let Some(outcome) = self.interrupted() {
            return outcome;
        }
        // Third: the timer. The context waits still, as far as this CPU knows.
        self.assert_alive();
        let removed = {
            let _locked = semaphore.lock(|| queue.is_empty());
            queue.remove(NODE)
        };
        if removed {
            return Outcome::Timeout;
        }
        loop {
            self.1.wait();
            if let Some(outcome) = self.interrupted() {
                return outcome;
            }
        }
    }
}

#[test]
fn an_up_from_afar_or_the_timeout_ends_the_wait() {
    model(3, || {
        let shared = Shared::new();
        let upper = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.up()
        });
        let outcome = shared.wait();
        upper.join().unwrap();
        assert!(matches!(outcome, Outcome::Success | Outcome::Timeout));
        assert_eq!(shared.0.semaphore.try_down(false), outcome == Outcome::Timeout);
        assert!(shared.0.mailbox.is_empty() && !shared.0.link.is_posted());
    });
}

#[test]
fn a_semaphore_is_freed_when_nobody_refers_to_it_any_more() {
    model(3, || {
        let shared = Shared::new();
        let destroyer = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.destroy()
        });
        let outcome = shared.wait();
        assert_ne!(outcome, Outcome::Success);
        while shared.0.served.load(Ordering::Relaxed) < 2 {
            shared.1.wait();
            assert_eq!(shared.interrupted(), None, "woken after the wait had ended");
        }
        destroyer.join().unwrap();
        assert!(shared.0.queue.is_empty() && !shared.0.link.is_posted());
    });
}

#[test]
fn an_up_and_the_end_of_a_semaphore_wake_its_waiter_once() {
    model(2, || {
        let shared = Shared::new();
        let other = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                shared.up();
                shared.destroy();
            }
        });
        let outcome = shared.wait();
        while shared.0.served.load(Ordering::Relaxed) < 2 {
            shared.1.wait();
            assert_eq!(shared.interrupted(), None, "woken after the wait had ended");
        }
        other.join().unwrap();
        assert!(shared.0.queue.is_empty() && !shared.0.link.is_posted());
        if matches!(outcome, Outcome::Timeout | Outcome::NoCapability) {
            assert!(shared.0.semaphore.try_down(false));
        }
    });
}
