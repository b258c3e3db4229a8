//! The count of a semaphore, and the right to change its queue.
//!
//! ```text
//!    63  62                           0
//!   ┌───┬──────────────────────────────┐
//!   │ W │ count                        │
//!   └───┴──────────────────────────────┘
//! ```
//!
//! While `W` is clear nobody waits, and up and down change the count with one exchange, without a
//! lock. While it is set they take the lock of the semaphore. Who has taken the lock sets `W` first:
//! from then on the whole word is its own, since every exchange expects `W` clear. On release `W`
//! stays set if the queue is not empty. So, whenever nobody holds the lock, `W` says just that
//! somebody waits; and then the count is 0.
//!
//! # Why no up is lost
//!
//! A down that fails, and an up on another CPU, in the order in which they change the word:
//!
//! | down | up | outcome |
//! |---|---|---|
//! | finds the count 0 | exchange adds one | down's second look, under the lock, finds it |
//! | takes the lock, sets `W` | exchange fails, as it expects `W` clear | up goes for the lock and waits |
//! | looks again, queues, releases the lock, `W` stays set | finds `W` set, takes the lock | up finds the waiter and takes it out |
//! | fails too often because others are faster | - | goes for the lock, which is served in the order of asking |
//!
//! # Why none wakes two, and none wakes a waiter that is gone
//!
//! A waiter leaves the queue under the lock only, and once:
//!
//! | up | timeout on the waiter's CPU | outcome |
//! |---|---|---|
//! | takes it out | takes the lock later, does not find it queued | the wake-up is on its way to this CPU; the timeout does nothing |
//! | takes the lock later, finds the next waiter or none | takes it out | it is told of the timeout; up wakes the next or counts |
//!
//! # Ordering
//!
//! | store | load | what the load then sees |
//! |---|---|---|
//! | exchange of an up, release | exchange of a down, acquire | what came before that up and all before it: exchanges make a chain |
//! | the same | setting `W`, acquire | the same |
//! | releasing the lock: word, release | exchange of an up or down, acquire | what came before all that went through the lock |
//! | the same, then the ticket, release | taking the lock, acquire | that, and the queue |
//!
//! An up at the largest count exchanges the word for itself: it is part of the chain like any other.

use super::atomic::{AtomicU64, Ordering, const_fn};
use super::ticket_lock::{Ticket, TicketLock};

/// Somebody may wait.
const WAITING: u64 = 1 << 63;

/// How often up and down try without the lock.
const TRIES: u32 = 4;

/// A semaphore without its queue.
#[derive(Debug, Default)]
pub struct Semaphore {
    word: AtomicU64,
    lock: TicketLock,
}

impl Semaphore {
    /// The largest count. An up leaves it as it is.
    pub const MAX: u64 = WAITING - 1;

    const_fn! {
        /// A semaphore for which nobody waits, with a count of at most [`Self::MAX`].
        #[must_use]
        pub fn new(count: u64) -> Self {
            let count = if count > Self::MAX { Self::MAX } else { count };
            Self { word: AtomicU64::new(count), lock: TicketLock::new() }
        }
    }

    /// Adds one, if nobody waits. Otherwise, or if other CPUs are in the way, returns false: then
    /// [`Self::lock`] and [`Locked::up`] follow.
    #[inline(always)]
    #[must_use]
    pub fn try_up(&self) -> bool {
        self.exchange(|count| Some(raised(count)), Ordering::Release)
    }

    /// Takes one, or all, if there is any and nobody waits. Otherwise, or if other CPUs are in the
    /// way, returns false: then [`Self::lock`] and [`Locked::down`] follow.
    #[inline(always)]
    #[must_use]
    pub fn try_down(&self, all: bool) -> bool {
        self.exchange(|count| lowered(count, all), Ordering::Acquire)
    }

    /// Changes the count if `W` is clear and `change` wants to.
    #[inline(always)]
    fn exchange(&self, change: impl Fn(u64) -> Option<u64>, success: Ordering) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        for _ in 0..TRIES {
            if word & WAITING != 0 {
                return false;
            }
            let Some(changed) = change(word) else { return false };
            match self.word.compare_exchange_weak(word, changed, success, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// Takes the lock, and with it the right to look at and change the queue until the result is
    /// dropped. Then `queue_is_empty` is asked, still under the lock.
    ///
    /// Who has it must not wait for anything.
    #[must_use]
    pub fn lock<F: Fn() -> bool>(&self, queue_is_empty: F) -> Locked<'_, F> {
        let ticket = self.lock.acquire(|| {});
        let word = self.word.fetch_or(WAITING, Ordering::Acquire);
        let count = word & !WAITING;
        Locked { word: &self.word, count, queue_is_empty, _ticket: ticket }
    }
}

/// One more, as far as that goes.
const fn raised(count: u64) -> u64 {
    if count < Semaphore::MAX { count.wrapping_add(1) } else { count }
}

/// One less, or none; `None` if there is none already.
const fn lowered(count: u64, all: bool) -> Option<u64> {
    match count {
        0 => None,
        _ if all => Some(0),
        _ => Some(count.wrapping_sub(1)),
    }
}

/// The lock of a semaphore is held; dropping this releases it.
#[derive(Debug)]
pub struct Locked<'a, F: Fn() -> bool> {
    word: &'a AtomicU64,
    count: u64,
    queue_is_empty: F,
    /// Dropped after the word is stored.
    _ticket: Ticket<'a>,
}

impl<F: Fn() -> bool> Locked<'_, F> {
    /// The waiter that `pop` takes out of the queue; adds one if there is none.
    pub fn up<W>(&mut self, pop: impl FnOnce() -> Option<W>) -> Option<W> {
        let waiter = pop();
        if waiter.is_none() {
            self.count = raised(self.count);
        }
        waiter
    }

    /// Takes one, or all, if there is any. If not, and before it lets go of the lock, the caller
    /// may queue itself.
    #[must_use]
    pub fn down(&mut self, all: bool) -> bool {
        let lowered = lowered(self.count, all);
        self.count = lowered.unwrap_or(0);
        lowered.is_some()
    }
}

impl<F: Fn() -> bool> Drop for Locked<'_, F> {
    fn drop(&mut self) {
        let waiting = if (self.queue_is_empty)() { 0 } else { WAITING };
        self.word.store(self.count | waiting, Ordering::Release);
    }
}
