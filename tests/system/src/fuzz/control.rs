//! What the supervisor and a life share: one page, of which nothing but numbers is ever believed.

use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use abi::hypercall::Number;

use super::layout::{CPUS, POOL, SLOTS};

/// Hypercall numbers that are told apart: those that there are, and all others.
pub const NUMBERS: usize = Number::Destroy as usize + 2;
/// Statuses that are told apart: the twelve, and all others.
pub const STATUSES: usize = 13;

/// One thread that makes calls.
#[repr(C)]
pub struct Walker {
    /// Calls that it has made.
    pub calls: AtomicU64,
    /// Where its random numbers are.
    pub random: AtomicU64,
}

/// The page.
#[repr(C, align(4096))]
pub struct Control {
    /// Set when calls are to end.
    pub stop: AtomicU64,
    /// Ticks in a second.
    pub hz: AtomicU64,
    /// The highest priority that the domain may give.
    pub max_priority: AtomicU64,
    /// The CPUs that the domain may use are those below.
    pub cpus: AtomicU64,
    /// Calls made on each of them.
    pub on_cpu: [AtomicU64; CPUS as usize],
    /// By slot.
    pub walkers: [Walker; SLOTS],
    /// Exits of guests that were answered.
    pub exits: AtomicU64,
    /// Threads that have asked for a slot.
    pub threads: AtomicU64,
    /// Handlers that have.
    pub handlers: AtomicU64,
    /// Machines that have been made.
    pub machines: AtomicU64,
    /// How calls ended, by number and status.
    pub tally: [[AtomicU32; STATUSES]; NUMBERS],
    /// The first thing that must not happen: [`VIOLATION`], RAX, the arguments, status and values.
    pub violation: [AtomicU64; 10],
    /// What the walkers believe to be at each selector of the pool.
    pub kinds: [AtomicU8; POOL.1 as usize],
}

/// First word of a violation: whatever else is there was written by accident.
pub const VIOLATION: u64 = u64::from_le_bytes(*b"violated");

const _: () = assert!(size_of::<Control>() == 4096);

impl Control {
    /// Calls made by all walkers.
    pub fn calls(&self) -> u64 {
        self.walkers.iter().map(|walker| walker.calls.load(Ordering::Relaxed)).sum()
    }
}
