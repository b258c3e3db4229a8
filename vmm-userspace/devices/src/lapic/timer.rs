//! The local APIC's timer (SDM 3A 11.5.4).

use serde::{Deserialize, Serialize};

use crate::time::Time;

/// MSR number of IA32_TSC_DEADLINE.
pub const IA32_TSC_DEADLINE: u32 = 0x6e0;

/// The two clocks that a local APIC sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Guest time, for the counting modes.
    pub now: Time,
    /// The guest's time-stamp counter, for TSC-deadline mode.
    pub tsc: u64,
}

/// When a local APIC must be advanced at the latest. At most one of the two is present, as the
/// timer modes exclude each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextEvent {
    /// Point of guest time.
    pub time: Option<Time>,
    /// Value of the guest's time-stamp counter.
    pub tsc: Option<u64>,
}

/// Timer mode, bits 18:17 of the LVT timer register (SDM 3A table 11-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimerMode {
    OneShot,
    Periodic,
    TscDeadline,
    /// The timer stands still.
    Reserved,
}

impl TimerMode {
    pub(super) const fn from_entry(entry: u32) -> Self {
        match entry >> 17 & 3 {
            0 => Self::OneShot,
            1 => Self::Periodic,
            2 => Self::TscDeadline,
            _ => Self::Reserved,
        }
    }

    const fn counts(self) -> bool {
        matches!(self, Self::OneShot | Self::Periodic)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Timer {
    /// Input clock of the divider in Hz.
    hz: u64,
    /// Divide configuration register.
    divide: u32,
    initial: u32,
    /// Zero if the counter stands still; else its value at tick `since` of the input clock.
    count: u32,
    since: u64,
    /// Zero if disarmed.
    deadline: u64,
}

impl Timer {
    pub(super) const fn new(hz: u64) -> Self {
        Self { hz, divide: 0, initial: 0, count: 0, since: 0, deadline: 0 }
    }

    pub(super) const fn divide(&self) -> u32 {
        self.divide
    }

    /// Binary logarithm of the divisor: bits 3, 1 and 0 give 2 to 128, and all ones give 1
    /// (figure 11-10).
    const fn shift(&self) -> u32 {
        let code = self.divide >> 1 & 0b100 | self.divide & 0b11;
        (code + 1) & 7
    }

    /// Changes the divisor; a running count goes on from where it is.
    pub(super) fn set_divide(&mut self, value: u32, now: Time) {
        self.count = self.current(now);
        self.since = now.ticks(self.hz);
        self.divide = value;
    }

    pub(super) const fn initial(&self) -> u32 {
        self.initial
    }

    /// Starts to count down from `value`; zero stops. Ignored in TSC-deadline mode (11.5.4.1).
    pub(super) fn set_initial(&mut self, value: u32, mode: TimerMode, now: Time) {
        if mode.counts() {
            self.initial = value;
            self.count = value;
            self.since = now.ticks(self.hz);
        }
    }

    /// The current count of a timer that has been advanced to `now`. It is zero in TSC-deadline
    /// mode (11.5.4.1), where the counter stands still.
    pub(super) fn current(&self, now: Time) -> u32 {
        if self.count == 0 {
            return 0;
        }
        let elapsed = now.ticks(self.hz).saturating_sub(self.since) >> self.shift();
        u32::try_from(u64::from(self.count).saturating_sub(elapsed)).unwrap_or(0)
    }

    /// IA32_TSC_DEADLINE; zero unless armed, and so in the other modes (11.5.4.1).
    pub(super) const fn deadline(&self) -> u64 {
        self.deadline
    }

    /// Arms the timer for a TSC value, or disarms it with zero. Ignored in the other modes.
    pub(super) fn set_deadline(&mut self, value: u64, mode: TimerMode) {
        if mode == TimerMode::TscDeadline {
            self.deadline = value;
        }
    }

    /// A write to the LVT timer register has changed the mode. Going to or from TSC-deadline mode
    /// disarms the timer; between one-shot and periodic mode the count goes on (11.5.4.1, read the
    /// way processors behave: a counter that has come to rest stays at rest).
    pub(super) fn change_mode(&mut self, from: TimerMode, to: TimerMode) {
        if from != to && !(from.counts() && to.counts()) {
            self.initial = 0;
            self.count = 0;
            self.deadline = 0;
        }
    }

    /// Brings the timer up to the clock and tells whether it has expired since; several periods
    /// count as one, as their interrupts would have merged in the IRR.
    pub(super) fn advance(&mut self, mode: TimerMode, clock: Clock) -> bool {
        if self.deadline != 0 && clock.tsc >= self.deadline {
            self.deadline = 0;
            return true;
        }
        if self.count == 0 {
            return false;
        }
        let elapsed = clock.now.ticks(self.hz).saturating_sub(self.since) >> self.shift();
        let Some(beyond) = elapsed.checked_sub(self.count.into()) else { return false };
        if mode == TimerMode::Periodic {
            // The current period began a whole number of ticks ago, so that nothing is lost.
            let into_period = beyond.checked_rem(self.initial.into()).unwrap_or(0);
            self.since = self.since.saturating_add((elapsed - into_period) << self.shift());
            self.count = self.initial;
        } else {
            self.count = 0;
        }
        true
    }

    pub(super) fn next_event(&self) -> NextEvent {
        NextEvent {
            time: (self.count != 0).then(|| {
                let ticks = u64::from(self.count) << self.shift();
                Time::of_tick(self.since.saturating_add(ticks), self.hz)
            }),
            tsc: (self.deadline != 0).then_some(self.deadline),
        }
    }
}
