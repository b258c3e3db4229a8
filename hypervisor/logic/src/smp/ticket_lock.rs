//! A lock that serves in the order of asking.
//!
//! Who wants it draws a ticket and waits until that ticket is served.
//!
//! | step | CPU A, holds ticket `n` | CPU B, draws `n + 1` | ordering |
//! |---|---|---|---|
//! | 1 | works | adds one to `next` | relaxed: a ticket is a number, nothing hangs on it |
//! | 2 | works | loads `serving`, finds `n`, waits | - |
//! | 3 | stores `n + 1` to `serving` | - | release: all that A did comes before |
//! | 4 | - | loads `serving`, finds `n + 1`: holds the lock | acquire: sees all that A did |
//!
//! Only the holder writes `serving`, so a store does. No wake-up can be lost, as nobody sleeps: a
//! waiter looks until it is served. It is served after at most as many holders as there are other
//! CPUs, since each CPU has drawn one ticket at most.

use super::atomic::{AtomicU16, Ordering, const_fn, spin_loop};

/// A lock. It guards no data by itself.
#[derive(Debug, Default)]
pub struct TicketLock {
    /// The ticket for whoever comes next. Tickets wrap around, far beyond the number of CPUs.
    next: AtomicU16,
    /// The ticket of the holder, or the next one if nobody holds the lock.
    serving: AtomicU16,
}

impl TicketLock {
    const_fn! {
        /// A lock that nobody holds.
        #[must_use]
        pub fn new() -> Self {
            Self { next: AtomicU16::new(0), serving: AtomicU16::new(0) }
        }
    }

    /// Waits for the lock, and calls `poll` each time it has looked in vain. `poll` must not want
    /// the same lock.
    #[inline]
    #[must_use]
    pub fn acquire(&self, mut poll: impl FnMut()) -> Ticket<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        while self.serving.load(Ordering::Acquire) != number {
            poll();
            spin_loop();
        }
        Ticket { lock: self, number }
    }
}

/// The lock is held; dropping this releases it.
#[derive(Debug)]
pub struct Ticket<'a> {
    lock: &'a TicketLock,
    number: u16,
}

impl Drop for Ticket<'_> {
    #[inline]
    fn drop(&mut self) {
        self.lock.serving.store(self.number.wrapping_add(1), Ordering::Release);
    }
}
