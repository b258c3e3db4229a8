//! A value that the threads of a task share. [`protocol::mutex`] is how they exclude each other.

use core::cell::UnsafeCell;
use core::fmt;
use core::ops::{Deref, DerefMut};

use abi::cap::NULL;
use protocol::mutex::Mutex;

use crate::pd::Pd;
use crate::sm::Sm;

/// A value that one thread at a time can use.
pub struct Lock<T> {
    mutex: Mutex,
    value: UnsafeCell<T>,
}

// SAFETY: the lock hands its value to one thread at a time.
unsafe impl<T: Send> Sync for Lock<T> {}

impl<T> Lock<T> {
    /// A free lock.
    pub const fn new(value: T) -> Self {
        Self { mutex: Mutex::new(), value: UnsafeCell::new(value) }
    }

    /// Takes the lock, waiting for it if need be.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T> {
        let create = || Sm::create(Pd::OWN, 0).map_or(NULL, Sm::selector);
        self.mutex.take(create, |semaphore| {
            if Sm::at(semaphore).down().is_err() {
                // Without a semaphore there is no way to wait: the task's memory is used up.
                panic!("a lock has no semaphore: raise the partition's kernel-memory quota");
            }
        });
        Guard { lock: self }
    }

    /// Takes the lock if it is free.
    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        self.mutex.try_take().then(|| Guard { lock: self })
    }

    #[inline]
    fn unlock(&self) {
        self.mutex.give(|semaphore| {
            let woken = Sm::at(semaphore).up();
            debug_assert!(woken.is_ok());
        });
    }
}

impl<T> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").field("mutex", &self.mutex).finish_non_exhaustive()
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
