//! Guest time from the host's time-stamp counter.

use devices::time::Time;
use runtime::abi::hypercall::FOREVER;
use runtime::clock::{self, Clock};

/// The clock of a machine that was switched on at some point.
#[derive(Clone, Copy, Debug)]
pub struct GuestClock {
    host: Clock,
    power_on: u64,
}

impl GuestClock {
    /// A clock that starts now.
    #[must_use]
    pub fn start(host: Clock) -> Self {
        Self { host, power_on: clock::now() }
    }

    /// What makes the guest's time-stamp counter start at zero.
    #[must_use]
    pub const fn tsc_offset(&self) -> u64 {
        self.power_on.wrapping_neg()
    }
}

impl machine::pc::Clock for GuestClock {
    #[inline(always)]
    fn tsc(&self) -> u64 {
        clock::now()
    }

    #[inline]
    fn time(&self) -> Time {
        Time(self.host.to_ns(clock::now().wrapping_sub(self.power_on)))
    }

    #[inline]
    fn tsc_at(&self, time: Time) -> u64 {
        // One tick later than the rounded value: never before `time`.
        self.power_on.saturating_add(self.host.to_ticks(time.0)).saturating_add(1).min(FOREVER - 1)
    }
}
