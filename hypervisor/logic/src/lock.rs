//! The lock around the whole kernel, and what one CPU asks of another while it holds it.
//!
//! Both are all that CPUs share without the lock. `tests::interleaving` runs them under every order of events that the memory
//! model allows.

use atomic::{AtomicU32, Ordering};

mod atomic {
    #[cfg(not(test))]
    pub use core::sync::atomic::{AtomicU32, Ordering};
    #[cfg(test)]
    pub use loom::sync::atomic::{AtomicU32, Ordering};
}

/// A lock that is given in the order in which it was asked for, so that nobody waits for longer than all others hold it once.
#[derive(Debug)]
#[repr(C)]
pub struct TicketLock {
    pub(crate) next: AtomicU32,
    pub(crate) serving: AtomicU32,
}

impl TicketLock {
    /// Where the ticket of the holder is: whoever adds one to it gives the lock back.
    pub const SERVING: usize = core::mem::offset_of!(Self, serving);

    /// A lock that whoever made it holds.
    #[cfg(not(test))]
    pub const fn taken() -> Self {
        Self { next: AtomicU32::new(1), serving: AtomicU32::new(0) }
    }

    /// Takes the lock. `waiting` is called again and again until it is free.
    #[inline(always)]
    pub fn acquire(&self, waiting: impl FnMut()) {
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        if self.serving.load(Ordering::Acquire) != ticket {
            self.wait(ticket, waiting);
        }
    }

    /// Waits until a ticket is served, and calls `waiting` again and again.
    #[cold]
    pub fn wait(&self, ticket: u32, mut waiting: impl FnMut()) {
        while self.serving.load(Ordering::Acquire) != ticket {
            waiting();
        }
    }

    /// Gives the lock, which the caller holds, to the next one.
    pub fn release(&self) {
        // Only the holder changes it.
        let ticket = self.serving.load(Ordering::Relaxed);
        self.serving.store(ticket.wrapping_add(1), Ordering::Release);
    }

    /// Nobody who asks from now on gets the lock.
    pub fn close(&self) {
        self.next.fetch_add(1 << 31, Ordering::Relaxed);
    }
}

/// What the holder of the lock wants another CPU to forget, until that has. Whoever holds the lock waits for the answer, so there
/// is one demand at a time.
#[derive(Debug)]
pub struct Demand(pub(crate) AtomicU32);

impl Demand {
    /// Nothing is wanted.
    #[cfg(not(test))]
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Makes a demand, which is not 0.
    pub fn make(&self, what: u32) {
        self.0.store(what, Ordering::Release);
    }

    /// Whether the other CPU has done it.
    pub fn is_met(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }

    /// On the other CPU: does what is wanted.
    #[inline]
    pub fn meet(&self, act: impl FnOnce(u32)) {
        let what = self.0.load(Ordering::Acquire);
        if what != 0 {
            act(what);
            self.0.store(0, Ordering::Release);
        }
    }
}
