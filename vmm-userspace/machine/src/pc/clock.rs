//! The clocks that the owner provides.

use devices::time::Time;

/// Time, read only where it is needed: most exits never look at it.
pub trait Clock {
    /// The host's time-stamp counter.
    fn tsc(&self) -> u64;
    /// Guest time since power-on.
    fn time(&self) -> Time;
    /// The host's time-stamp counter at a point of guest time; `u64::MAX` if that is out of reach.
    fn tsc_at(&self, time: Time) -> u64;
}
