//! Guest time, and its exact conversion to and from the ticks of a clock of any frequency.

use core::ops::{Add, Sub};

use serde::{Deserialize, Serialize};

/// Nanoseconds in a second.
pub const NS_PER_S: u64 = 1_000_000_000;

/// A point of guest time: nanoseconds since power-on.
///
/// Arithmetic saturates: 2^64 ns are 584 years, so a saturated value means "never".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Time(pub u64);

impl Time {
    /// Power-on.
    pub const ZERO: Time = Time(0);
    /// The last point that can be told; stands for "never".
    pub const MAX: Time = Time(u64::MAX);

    /// The point `ns` nanoseconds later, or [`Time::MAX`].
    #[must_use]
    pub const fn saturating_add_ns(self, ns: u64) -> Time {
        Time(self.0.saturating_add(ns))
    }

    /// Nanoseconds from `earlier` to `self`, zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Number of whole ticks that a clock of `hz` ticks a second has made since power-on.
    ///
    /// Exact: no remainder is dropped from one call to the next, so a clock read this way does not
    /// drift. `hz` may be up to 18 GHz; beyond that, and beyond 2^64 ticks, the result saturates.
    #[must_use]
    pub const fn ticks(self, hz: u64) -> u64 {
        // Whole seconds apart from the rest, so that 64 bits suffice and nothing is lost.
        let (seconds, rest) = (self.0 / NS_PER_S, self.0 % NS_PER_S);
        seconds.saturating_mul(hz).saturating_add(rest.saturating_mul(hz) / NS_PER_S)
    }

    /// The first point at which [`Time::ticks`] with the same `hz` gives at least `ticks`;
    /// [`Time::MAX`] if that is out of reach or `hz` is zero.
    #[must_use]
    pub const fn of_tick(ticks: u64, hz: u64) -> Time {
        if hz == 0 {
            return Time::MAX;
        }
        let (seconds, rest) = (ticks / hz, ticks % hz);
        let ns = seconds.saturating_mul(NS_PER_S);
        Time(ns.saturating_add(rest.saturating_mul(NS_PER_S).div_ceil(hz)))
    }
}

/// Saturating, see [`Time`].
impl Add<u64> for Time {
    type Output = Time;
    fn add(self, ns: u64) -> Time {
        self.saturating_add_ns(ns)
    }
}

/// Nanoseconds between two points, saturating at zero.
impl Sub for Time {
    type Output = u64;
    fn sub(self, earlier: Time) -> u64 {
        self.since(earlier)
    }
}

/// The earlier of two possible events.
#[must_use]
pub fn earliest(a: Option<Time>, b: Option<Time>) -> Option<Time> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, None) => a,
        (None, b) => b,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn saturates() {
        assert_eq!(Time::MAX + 1, Time::MAX);
        assert_eq!(Time(3) - Time(5), 0);
        assert_eq!(Time::of_tick(u64::MAX, 1), Time::MAX);
        assert_eq!(Time::of_tick(1, 0), Time::MAX);
    }

    #[test]
    fn earliest_takes_the_smaller_and_ignores_none() {
        assert_eq!(earliest(Some(Time(2)), Some(Time(1))), Some(Time(1)));
        assert_eq!(earliest(None, Some(Time(1))), Some(Time(1)));
        assert_eq!(earliest(Some(Time(2)), None), Some(Time(2)));
        assert_eq!(earliest(None, None), None);
    }

    proptest! {
        #[test]
        fn ticks_are_exact(ns: u64, hz in 1u64..18_000_000_000) {
            let exact = u128::from(ns) * u128::from(hz) / u128::from(NS_PER_S);
            prop_assert_eq!(Time(ns).ticks(hz), u64::try_from(exact).unwrap_or(u64::MAX));
        }

        #[test]
        fn of_tick_is_the_first_nanosecond_of_its_tick(
            tick in 1u64..1 << 40,
            hz in 1u64..=1_000_000_000,
        ) {
            let time = Time::of_tick(tick, hz);
            prop_assert!(time.ticks(hz) >= tick);
            prop_assert!(Time(time.0 - 1).ticks(hz) < tick);
        }
    }
}
