//! What has happened so far.

use core::fmt;

use abi::vcpu::{EXITS, Exit};

use super::operation::CLASSES;

/// Counts.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Operations that the guest has come to: it left with an exit there, or went past.
    pub operations: u64,
    /// Of those, where it left.
    pub left: u64,
    /// Of each class.
    pub classes: [u64; CLASSES],
    /// Exits by number.
    pub exits: [u64; EXITS as usize],
    /// Bursts.
    pub bursts: u64,
    /// Replies of each kind: behind the instruction, at the next slot, an event, nothing, all state.
    pub replies: [u64; 5],
    /// Exits at an instruction that the page tables no longer map.
    pub stale: u64,
    /// Entries that QEMU refused.
    pub refused: u64,
    /// Lengths that the kernel told, and that were right.
    pub lengths: u64,
}

impl Tally {
    /// All exits.
    #[must_use]
    pub fn all_exits(&self) -> u64 {
        self.exits.iter().sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (exit, count) in Exit::ALL.iter().zip(self.exits).filter(|(_, count)| *count > 0) {
            write!(f, "{exit:?} {count}, ")?;
        }
        write!(f, "{} in all", self.all_exits())
    }
}
