//! Tags of TLB entries: ASIDs, VPIDs.
//!
//! A processor has few of them and keeps what it has cached under one until that is flushed. So a tag
//! is not given back: when all were given, everything is flushed once and a new generation begins, in
//! which every owner has to get a new one.
//!
//! ```text
//! before an entry:   tags.is_current(owner.tag)?  -- yes -->  enter
//!                               | no
//!                    (owner.tag, flush) = tags.assign()
//!                    flush?  -- yes -->  flush everything, then enter
//! ```

/// A tag, and the generation in which it is its owner's alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Assigned {
    /// The tag. 0 only in [`Self::NONE`].
    pub tag: u32,
    generation: u64,
}

impl Assigned {
    /// No tag: never current.
    pub const NONE: Self = Self { tag: 0, generation: 0 };
}

/// The tags of one CPU.
///
/// Generations of two CPUs have nothing to do with each other: an owner that moves to another CPU, or
/// wants to lose what is cached for it, takes [`Assigned::NONE`].
#[derive(Debug)]
pub struct Tags {
    /// Tags are below.
    count: u32,
    /// The next tag to give.
    next: u32,
    /// The current generation, never 0.
    generation: u64,
}

impl Tags {
    /// Tags from 1 up to `count - 1`; tag 0 is the host's. There is at least tag 1.
    pub const fn new(count: u32) -> Self {
        Self { count: if count < 2 { 2 } else { count }, next: 1, generation: 1 }
    }

    /// Whether the tag is still its owner's alone.
    #[inline(always)]
    #[must_use]
    pub const fn is_current(&self, assigned: Assigned) -> bool {
        assigned.generation == self.generation
    }

    /// A tag for an owner that has none that is current, and whether everything that is cached under
    /// any tag must be flushed before the tag is used: so it is with the first of each generation.
    #[must_use]
    pub const fn assign(&mut self) -> (Assigned, bool) {
        if self.next >= self.count {
            self.renew();
        }
        let tag = self.next;
        // Below the count, which is a u32 as well; and 2^64 generations are never used up.
        self.next = tag.wrapping_add(1);
        (Assigned { tag, generation: self.generation }, tag == 1)
    }

    /// Begins a new generation: no tag given so far is current, and the next one comes with a flush.
    pub const fn renew(&mut self) {
        self.next = 1;
        self.generation = self.generation.wrapping_add(1);
    }
}
