//! Which CPUs can be asked.
//!
//! | step | CPU that starts | CPU that asks | ordering |
//! |---|---|---|---|
//! | 1 | builds its per-CPU data, holding the big lock | - | the lock's |
//! | 2 | [`Online::join`] | - | release |
//! | 3 | releases the lock | [`Online::get`], with the lock or without | acquire: sees all of step 1 |
//!
//! A CPU joins while it holds the big lock, so the set does not change under a holder that makes up
//! whom to ask. Until then it has used no translation that anybody could revoke.

use super::atomic::{AtomicU64, Ordering, const_fn};
use super::cpu_set::CpuSet;

/// The CPUs that are online. None leaves.
#[derive(Debug, Default)]
pub struct Online(AtomicU64);

impl Online {
    const_fn! {
        /// Nobody.
        #[must_use]
        pub fn new() -> Self {
            Self(AtomicU64::new(0))
        }
    }

    /// From now on `cpu` serves requests and has a mailbox.
    pub fn join(&self, cpu: u8) {
        self.0.fetch_or(CpuSet::one(cpu).bits(), Ordering::Release);
    }

    /// Who has joined.
    #[must_use]
    pub fn get(&self) -> CpuSet {
        CpuSet::from_bits(self.0.load(Ordering::Acquire))
    }
}
