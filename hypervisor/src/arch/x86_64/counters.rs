//! Counts of the slow register accesses, for the benchmark's second pass.

use core::sync::atomic::Ordering;

use abi::hip::counter;

/// What is counted: an index into [`abi::hip::LogRing::counters`].
pub use counter::{
    CONTROL_READ as VMREAD, CONTROL_WRITE as VMWRITE, MSR_READ as RDMSR, MSR_WRITE as WRMSR,
};

/// Counts one access.
#[inline(always)]
pub fn count(what: usize) {
    if let Some(counter) = crate::log::RING.counters.get(what) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
