//! The priorities at which something is ready.

use abi::hypercall::PRIORITIES;

const _: () = assert!(PRIORITIES == 128);

/// A set of priorities from 0 to 127 that finds its largest member in a few instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PriorityBitmap {
    low: u64,
    high: u64,
}

impl PriorityBitmap {
    /// The empty set.
    pub const fn new() -> Self {
        Self { low: 0, high: 0 }
    }

    #[inline]
    const fn word(&mut self, priority: u8) -> &mut u64 {
        if priority & 64 == 0 { &mut self.low } else { &mut self.high }
    }

    /// Adds a priority; only its low seven bits count.
    #[inline]
    pub const fn set(&mut self, priority: u8) {
        *self.word(priority) |= 1 << (priority & 63);
    }

    /// Removes a priority; only its low seven bits count.
    #[inline]
    pub const fn clear(&mut self, priority: u8) {
        *self.word(priority) &= !(1 << (priority & 63));
    }

    /// The highest priority in the set.
    #[inline]
    pub const fn highest(&self) -> Option<u8> {
        match (self.high, self.low) {
            (0, 0) => None,
            (0, low) => Some(63 - low.leading_zeros() as u8),
            (high, _) => Some(127 - high.leading_zeros() as u8),
        }
    }
}
