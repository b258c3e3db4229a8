//! Mutual exclusion between the threads of a task.
//!
//! A thread that finds a lock taken sleeps on a semaphore: spinning would not do, because on one
//! CPU the holder may be a thread of lower priority.

use core::cell::UnsafeCell;
use core::fmt;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering};

use abi::cap::NULL;

use crate::pd::Pd;
use crate::sm::Sm;

/// Nobody holds the lock.
const FREE: u32 = 0;
/// Somebody holds it, nobody waits.
const TAKEN: u32 = 1;
/// Somebody holds it, and others may wait on the semaphore.
const CONTENDED: u32 = 2;

/// A value that one thread at a time can use.
///
/// | waiter | holder | outcome |
/// |---|---|---|
/// | state `TAKEN` to `CONTENDED` | later sets `FREE`, sees `CONTENDED`: up | the waiter wakes and tries again |
/// | finds `FREE`, sets `CONTENDED` | - | the waiter has the lock; its unlock may up once too often |
/// | is about to sleep | ups | the semaphore keeps the count |
pub struct Lock<T> {
    state: AtomicU32,
    /// Selector of the semaphore, made when it is first needed.
    semaphore: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the lock hands its value to one thread at a time.
unsafe impl<T: Send> Sync for Lock<T> {}

impl<T> Lock<T> {
    /// A free lock.
    pub const fn new(value: T) -> Self {
        Self {
            state: AtomicU32::new(FREE),
            semaphore: AtomicU32::new(NULL),
            value: UnsafeCell::new(value),
        }
    }

    /// Takes the lock, waiting for it if need be.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T> {
        if self.state.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.wait();
        }
        Guard { lock: self }
    }

    /// Takes the lock if it is free.
    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        self.state
            .compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed)
            .ok()
            .map(|_| Guard { lock: self })
    }

    #[cold]
    fn wait(&self) {
        // The semaphore has to be there before anybody can see that there are waiters.
        let semaphore = self.semaphore();
        while self.state.swap(CONTENDED, Ordering::Acquire) != FREE {
            if semaphore.down().is_err() {
                // Without a semaphore there is no way to wait: the task's memory is used up.
                panic!("a lock has no semaphore: raise the partition's kernel-memory quota");
            }
        }
    }

    fn semaphore(&self) -> Sm {
        let found = self.semaphore.load(Ordering::Acquire);
        if found != NULL {
            return Sm::at(found);
        }
        let Ok(new) = Sm::create(Pd::OWN, 0) else { return Sm::at(NULL) };
        match self.semaphore.compare_exchange(
            NULL,
            new.selector(),
            Ordering::AcqRel,
            Ordering::Acquire,
        ) {
            Ok(_) => new,
            // Another thread was faster: its semaphore is the lock's, this one stays unused.
            Err(found) => Sm::at(found),
        }
    }

    #[inline]
    fn unlock(&self) {
        if self.state.swap(FREE, Ordering::Release) == CONTENDED {
            let woken = Sm::at(self.semaphore.load(Ordering::Acquire)).up();
            debug_assert!(woken.is_ok());
        }
    }
}

impl<T> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").field("state", &self.state).finish_non_exhaustive()
    }
}

/// Access to the value of a [`Lock`]; dropping it frees the lock.
#[derive(Debug)]
pub struct Guard<'a, T> {
    lock: &'a Lock<T>,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this guard holds the lock.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard holds the lock.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.unlock();
    }
}
