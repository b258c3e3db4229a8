//! Sets of CPUs.

/// CPUs that a [`CpuSet`] has room for.
pub const CPUS: u8 = u64::BITS as u8;

/// A set of CPUs, by their numbers from 0 to 63.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuSet(u64);

impl CpuSet {
    /// No CPU.
    pub const EMPTY: Self = Self(0);

    /// The set whose member `n` is bit `n`.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The set as bits: `n` is a member if bit `n` is set.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// One CPU; the empty set for a number that is no CPU's.
    #[must_use]
    pub const fn one(cpu: u8) -> Self {
        if cpu < CPUS { Self(1 << cpu) } else { Self::EMPTY }
    }

    /// Whether nobody is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many are in it.
    #[must_use]
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether `cpu` is in it.
    #[must_use]
    pub const fn contains(self, cpu: u8) -> bool {
        self.0 & Self::one(cpu).0 != 0
    }

    /// Together with `cpu`.
    #[must_use]
    pub const fn with(self, cpu: u8) -> Self {
        Self(self.0 | Self::one(cpu).0)
    }

    /// All but `cpu`.
    #[must_use]
    pub const fn without(self, cpu: u8) -> Self {
        Self(self.0 & !Self::one(cpu).0)
    }

    /// Those in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The lowest number in it.
    #[must_use]
    pub const fn first(self) -> Option<u8> {
        if self.is_empty() { None } else { Some(self.0.trailing_zeros() as u8) }
    }
}

/// From the lowest number to the highest.
impl Iterator for CpuSet {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let first = self.first()?;
        *self = self.without(first);
        Some(first)
    }
}
