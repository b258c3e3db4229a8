//! Time: ticks of the time-stamp counter, and nanoseconds.

/// The time-stamp counter.
#[inline(always)]
#[must_use]
pub fn now() -> u64 {
    // SAFETY: reads a register that every task may read.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// A fraction to multiply with: `x * multiplier >> shift`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ratio {
    multiplier: u64,
    shift: u32,
}

impl Ratio {
    /// `numerator / denominator` with as many bits as fit; a denominator of 0 is taken for 1.
    const fn new(numerator: u64, denominator: u64) -> Self {
        let denominator = if denominator == 0 { 1 } else { denominator as u128 };
        let mut shift = 63;
        loop {
            let scaled = ((numerator as u128) << shift) + denominator / 2;
            let multiplier = scaled / denominator;
            // With no shift at all it always fits.
            if multiplier <= u64::MAX as u128 || shift == 0 {
                return Self { multiplier: multiplier as u64, shift };
            }
            shift -= 1;
        }
    }

    #[inline(always)]
    const fn apply(self, x: u64) -> u64 {
        ((x as u128 * self.multiplier as u128) >> self.shift) as u64
    }
}

/// Converts between ticks and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    hz: u64,
    ns_per_tick: Ratio,
    ticks_per_ns: Ratio,
}

impl Clock {
    /// A counter of `hz` ticks in a second.
    #[must_use]
    pub const fn new(hz: u64) -> Self {
        Self {
            hz,
            ns_per_tick: Ratio::new(1_000_000_000, hz),
            ticks_per_ns: Ratio::new(hz, 1_000_000_000),
        }
    }

    /// Ticks in a second.
    #[must_use]
    pub const fn hz(self) -> u64 {
        self.hz
    }

    /// Nanoseconds in that many ticks; wraps around after 584 years.
    #[inline(always)]
    #[must_use]
    pub const fn to_ns(self, ticks: u64) -> u64 {
        self.ns_per_tick.apply(ticks)
    }

    /// Ticks in that many nanoseconds.
    #[inline(always)]
    #[must_use]
    pub const fn to_ticks(self, ns: u64) -> u64 {
        self.ticks_per_ns.apply(ns)
    }

    /// The time-stamp counter in `ns` nanoseconds from now; never beyond the last one before
    /// [`abi::hypercall::FOREVER`].
    #[must_use]
    pub fn in_ns(self, ns: u64) -> u64 {
        now().saturating_add(self.to_ticks(ns)).min(abi::hypercall::FOREVER - 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A year of ticks, converted, is off by less than a part in 10^9 (or by rounding).
        #[test]
        fn conversion_is_exact_to_a_part_in_a_billion(
            hz in 1_000_000_u64..10_000_000_000,
            seconds in 0_u64..31_536_000,
            fraction in 0_u64..1_000_000,
        ) {
            let clock = Clock::new(hz);
            let ticks = seconds * hz + fraction;
            let exact = u128::from(ticks) * 1_000_000_000 / u128::from(hz);
            let off = u128::from(clock.to_ns(ticks)).abs_diff(exact);
            prop_assert!(off <= 1 + exact / 1_000_000_000, "off by {} of {}", off, exact);
            let ns = seconds * 1_000_000_000 + fraction;
            let exact = u128::from(ns) * u128::from(hz) / 1_000_000_000;
            let off = u128::from(clock.to_ticks(ns)).abs_diff(exact);
            prop_assert!(off <= 1 + exact / 1_000_000_000, "off by {} of {}", off, exact);
        }

        #[test]
        fn time_never_runs_backwards(hz in 1_u64..1 << 32, a in any::<u32>(), b in any::<u32>()) {
            let clock = Clock::new(hz);
            prop_assert!(clock.to_ticks(a.min(b).into()) <= clock.to_ticks(a.max(b).into()));
        }
    }

    #[test]
    fn a_counter_of_one_gigahertz_counts_nanoseconds() {
        let clock = Clock::new(1_000_000_000);
        assert_eq!(clock.to_ns(123_456_789_012_345), 123_456_789_012_345);
        assert_eq!(clock.to_ticks(123_456_789_012_345), 123_456_789_012_345);
    }

    #[test]
    fn a_silent_counter_does_not_divide_by_zero() {
        assert_eq!(Clock::new(0).hz(), 0);
    }
}
