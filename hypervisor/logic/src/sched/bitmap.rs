//! The priorities at which something is ready.

use abi::hypercall::PRIORITIES;

const _: () = assert!(PRIORITIES == 128);

/// A set of priorities from 0 to 127 that finds its largest member in a few instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PriorityBitmap(u128);

impl PriorityBitmap {
    /// The empty set.
    pub const fn new() -> Self {
        Self(0)
    }

    /// Adds a priority; only its low seven bits count.
    #[inline]
    pub const fn set(&mut self, priority: u8) {
        self.0 |= 1 << (priority & 127);
    }

    /// Removes a priority; only its low seven bits count.
    #[inline]
    pub const fn clear(&mut self, priority: u8) {
        self.0 &= !(1 << (priority & 127));
    }

    /// The highest priority in the set.
    #[inline]
    pub const fn highest(&self) -> Option<u8> {
        if self.0 == 0 { None } else { Some(127 - self.0.leading_zeros() as u8) }
    }
}
