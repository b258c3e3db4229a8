//! Numbers that look random, and are the same again for the same seed.

/// A generator: xorshift64*.
#[derive(Clone, Copy, Debug)]
pub struct Rng(u64);

impl Rng {
    /// One that starts at `seed`.
    pub const fn new(seed: u64) -> Self {
        // The state must not be 0, and seeds that differ by little must not begin alike.
        let mixed = (seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        Self((mixed ^ mixed >> 31) | 1)
    }

    /// One that goes on from a number that another has made.
    pub const fn resume(state: u64) -> Self {
        Self(if state == 0 { 1 } else { state })
    }

    /// 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`, which is not 0.
    pub const fn below(&mut self, limit: u64) -> u64 {
        ((self.next() as u128 * limit as u128) >> 64) as u64
    }

    /// True once in `times`.
    pub const fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// A number of any size: small ones are as frequent as large ones.
    pub const fn any_size(&mut self) -> u64 {
        let shift = self.below(64);
        self.next() >> shift
    }

    /// A number at a boundary of something: powers of two and their neighbours, and the limits of the interface.
    pub const fn boundary(&mut self) -> u64 {
        const LIMITS: [u64; 6] = [
            0,
            u64::MAX,
            abi::cap::SELECTORS as u64,
            abi::layout::USER_TOP,
            abi::layout::USER_TOP >> abi::layout::PAGE_SHIFT,
            abi::layout::HYPERCALL_PAGE,
        ];
        let base = if self.once_in(2) {
            1 << self.below(64)
        } else {
            LIMITS[self.below(LIMITS.len() as u64) as usize]
        };
        base.wrapping_add(self.below(3)).wrapping_sub(1)
    }
}
