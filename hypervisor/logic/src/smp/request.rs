//! Something that other CPUs are to do before the asking one goes on.
//!
//! A flush, the stop of a thread, the passing of a quiescent point: the holder of the big lock says
//! what and who, sends an interrupt to each, and waits until all have reported.
//!
//! | step | asking CPU, holds the big lock | CPU `n` | ordering |
//! |---|---|---|---|
//! | 1 | prepares: takes away the entry, the object | - | - |
//! | 2 | [`Requests::post`]: stores what, then `pending`, then `asked` | - | release on `asked` |
//! | 3 | sends interrupts, waits for `pending` to be empty | - | see [`super`] |
//! | 4 | waits | [`Requests::take`]: takes its bit out of `asked`, loads what | acquire: sees step 1 |
//! | 5 | waits | does it | - |
//! | 6 | waits | [`Requests::done`]: takes its bit out of `pending` | release: what it did comes before |
//! | 7 | [`Requests::is_complete`] | - | acquire: sees all that all have done |
//!
//! # Why none is lost, and none done twice
//!
//! | what might go wrong | why it does not |
//! |---|---|
//! | `n` looks before step 2 and finds nothing | the interrupt comes after step 2; its handler looks again |
//! | `n` finds it by polling, then the interrupt comes | its bit is out of `asked`: nothing to take |
//! | that interrupt comes even later, after the next request was posted | it finds the next one; the interrupt for that one finds nothing |
//! | `n` polls again between steps 4 and 6 | its bit is out of `asked`, though still in `pending` |
//! | what is overwritten while `n` loads it | that takes a next request, so step 7, so step 6 of `n` |
//! | two CPUs post | each needs the big lock, of which `post` wants to see the proof |
//!
//! A bit of either mask is set by the asking CPU only while it is clear, and cleared by its own CPU
//! only. All changes of a mask after step 2 are read-modify-write, so who sees the last of them sees
//! what came before each.

use super::atomic::{AtomicU64, Ordering, const_fn};
use super::big_lock::Held;
use super::cpu_set::CpuSet;

/// The request that is under way, if there is one. There is one of these beside the big lock.
#[derive(Debug, Default)]
pub struct Requests {
    what: [AtomicU64; 3],
    /// CPUs that have not taken it.
    asked: AtomicU64,
    /// CPUs that have not done it.
    pending: AtomicU64,
}

impl Requests {
    const_fn! {
        /// No request.
        #[must_use]
        pub fn new() -> Self {
            Self {
                what: [AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0)],
                asked: AtomicU64::new(0),
                pending: AtomicU64::new(0),
            }
        }
    }

    /// Asks every CPU of `targets` for `what`. The caller then sends each an interrupt, and waits
    /// for [`Self::is_complete`] before it posts again or releases the lock.
    ///
    /// It may be a target itself if it serves requests while it waits.
    pub fn post(&self, _: &Held<'_>, targets: CpuSet, what: [u64; 3]) {
        for (word, value) in self.what.iter().zip(what) {
            word.store(value, Ordering::Relaxed);
        }
        // Before `asked`: whoever has seen its bit there clears the one here.
        self.pending.store(targets.bits(), Ordering::Relaxed);
        self.asked.store(targets.bits(), Ordering::Release);
    }

    /// Whether there is something for `cpu` to take. Changes nothing; a poll that finds nothing
    /// does not take the cache line away from the others.
    #[inline]
    #[must_use]
    pub fn is_asked(&self, cpu: u8) -> bool {
        CpuSet::from_bits(self.asked.load(Ordering::Relaxed)).contains(cpu)
    }

    /// What this CPU, `cpu`, is asked for. It is given once; [`Self::done`] has to follow.
    #[inline]
    #[must_use]
    pub fn take(&self, cpu: u8) -> Option<[u64; 3]> {
        if !self.is_asked(cpu) {
            return None;
        }
        self.asked.fetch_and(!CpuSet::one(cpu).bits(), Ordering::Acquire);
        Some(self.what.each_ref().map(|word| word.load(Ordering::Relaxed)))
    }

    /// This CPU, `cpu`, has done what it took.
    pub fn done(&self, cpu: u8) {
        self.pending.fetch_and(!CpuSet::one(cpu).bits(), Ordering::Release);
    }

    /// Whether all have done what was posted last.
    #[inline]
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.pending.load(Ordering::Acquire) == 0
    }
}
