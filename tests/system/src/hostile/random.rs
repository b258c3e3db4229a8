//! Numbers that look random and repeat with their seed.

/// A generator: xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled").
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        // Zero would stay zero.
        Self(seed ^ 0x9e37_79b9_7f4a_7c15 | 1)
    }

    /// Any number.
    #[inline]
    pub const fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`.
    #[inline]
    pub const fn below(&mut self, limit: u32) -> u32 {
        // The high bits are the better ones.
        (((self.next() >> 32) * limit as u64) >> 32) as u32
    }

    /// True once in `turns`.
    #[inline]
    pub const fn once_in(&mut self, turns: u32) -> bool {
        self.below(turns) == 0
    }

    /// One of `choices`, or the default if there is none.
    #[inline]
    pub fn one_of<T: Copy + Default>(&mut self, choices: &[T]) -> T {
        choices.get(self.below(choices.len() as u32) as usize).copied().unwrap_or_default()
    }

    /// A number with something to it: small, an address, a limit of a width, a single bit, or anything.
    #[inline]
    pub fn interesting(&mut self) -> u64 {
        match self.below(8) {
            0 => self.below(16).into(),
            1 => self.next() & 0xffff,
            2 => 1 << self.below(64),
            3 => !(1 << self.below(64)),
            4 => self.one_of(&[
                0,
                u64::MAX,
                0x7fff_ffff,
                0x8000_0000,
                0xffff_ffff,
                0x8000_0000_0000,
                0xffff_8000_0000_0000,
            ]),
            5 => u64::from(self.below(0x80_0000)),
            6 => self.next() & 0xffff_ffff,
            _ => self.next(),
        }
    }
}
