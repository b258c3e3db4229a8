//! Mutual exclusion between the threads of a task, as far as it is not the semaphore on which they sleep.
//!
//! A thread that finds the lock taken sleeps: spinning would not do, because the holder may be a thread of lower priority on the
//! same CPU.
//!
//! | waiter | holder | outcome |
//! |---|---|---|
//! | state `TAKEN` to `CONTENDED` | later sets `FREE`, sees `CONTENDED`: up | the waiter wakes and tries again |
//! | finds `FREE`, sets `CONTENDED` | - | the waiter has the lock; its unlock may up once too often |
//! | is about to sleep | ups | the semaphore keeps the count |
//! | makes the semaphore | another makes one as well | one is published, the other stays unused |

#[cfg(not(test))]
use core::sync::atomic::{AtomicU32, Ordering};
#[cfg(test)]
use loom::sync::atomic::{AtomicU32, Ordering};

use abi::cap::{NULL, Selector};

/// Nobody holds the lock.
const FREE: u32 = 0;
/// Somebody holds it, nobody waits.
const TAKEN: u32 = 1;
/// Somebody holds it, and others may wait on the semaphore.
const CONTENDED: u32 = 2;

/// The state of a lock, and the semaphore behind it, made when it is first needed.
#[derive(Debug)]
pub struct Mutex {
    state: AtomicU32,
    semaphore: AtomicU32,
}

impl Mutex {
    /// A free lock.
    #[cfg(not(test))]
    #[must_use]
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self { state: AtomicU32::new(FREE), semaphore: AtomicU32::new(NULL) }
    }

    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Self { state: AtomicU32::new(FREE), semaphore: AtomicU32::new(NULL) }
    }

    /// Takes the lock if it is free. Returns whether it was.
    #[inline]
    pub fn try_take(&self) -> bool {
        self.state.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes the lock, waiting for it if need be: `create` makes a semaphore, or returns [`NULL`] if it cannot; `down` waits for one.
    #[inline]
    pub fn take(&self, create: impl FnOnce() -> Selector, down: impl FnMut(Selector)) {
        if !self.try_take() {
            self.wait(create, down);
        }
    }

    #[cold]
    fn wait(&self, create: impl FnOnce() -> Selector, mut down: impl FnMut(Selector)) {
        // The semaphore has to be there before anybody can see that there are waiters.
        let semaphore = self.semaphore(create);
        while self.state.swap(CONTENDED, Ordering::AcqRel) != FREE {
            down(semaphore);
        }
    }

    fn semaphore(&self, create: impl FnOnce() -> Selector) -> Selector {
        let found = self.semaphore.load(Ordering::Acquire);
        if found != NULL {
            return found;
        }
        let new = create();
        // If another thread was faster, its semaphore is the lock's.
        self.semaphore
            .compare_exchange(NULL, new, Ordering::AcqRel, Ordering::Acquire)
            .map_or_else(|found| found, |_| new)
    }

    /// Gives the lock, which the caller holds, back; `up` wakes who waits for the semaphore.
    #[inline]
    pub fn give(&self, up: impl FnOnce(Selector)) {
        // Acquire: whoever sees that there are waiters also sees the semaphore.
        if self.state.swap(FREE, Ordering::AcqRel) == CONTENDED {
            up(self.semaphore.load(Ordering::Acquire));
        }
    }
}
