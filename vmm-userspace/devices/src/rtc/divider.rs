//! The divider chain from the 32,768 Hz crystal to one second, whose taps give the periodic rates.

use serde::{Deserialize, Serialize};

use crate::time::{NS_PER_S, Time};

const CRYSTAL: u64 = 32_768;

/// After the chain is released, the first update comes half a second later (MC146818 datasheet,
/// "Divider Control Bits").
const RELEASED_AT_NS: u64 = NS_PER_S / 2;

/// A running chain. Positions count from a second's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Divider {
    started: Time,
    start_ns: u64,
    /// Position in nanoseconds up to which the clock has followed.
    seen_ns: u64,
}

/// What has happened on the chain.
pub(super) struct Passed {
    /// Whole seconds that ended.
    pub seconds: u64,
    /// At least one edge of the periodic rate.
    pub periodic: bool,
}

impl Divider {
    /// Runs since power-on, in step with guest time.
    pub fn from_power_on() -> Self {
        Self { started: Time::ZERO, start_ns: 0, seen_ns: 0 }
    }

    /// Is let go from reset at `now`.
    pub fn released(now: Time) -> Self {
        Self { started: now, start_ns: RELEASED_AT_NS, seen_ns: RELEASED_AT_NS }
    }

    fn position(&self, now: Time) -> u64 {
        now.since(self.started).saturating_add(self.start_ns)
    }

    fn time_of(&self, position_ns: u64) -> Time {
        self.started + position_ns.saturating_sub(self.start_ns)
    }

    /// Follows up to `now`. `rate` is the selection of register A.
    pub fn advance(&mut self, now: Time, rate: u8) -> Passed {
        let to = self.position(now).max(self.seen_ns);
        let from = core::mem::replace(&mut self.seen_ns, to);
        let edges = |ns: u64| period(rate).map(|period| Time(ns).ticks(CRYSTAL) / period);
        Passed { seconds: to / NS_PER_S - from / NS_PER_S, periodic: edges(to) != edges(from) }
    }

    /// When the current second ends and, `ahead` being 2 or more, later ones.
    pub fn end_of_second(&self, ahead: u64) -> Time {
        let second = (self.seen_ns / NS_PER_S).saturating_add(ahead);
        self.time_of(second.saturating_mul(NS_PER_S))
    }

    /// Nanoseconds from `now` to the end of the second.
    pub fn until_update(&self, now: Time) -> u64 {
        NS_PER_S - self.position(now) % NS_PER_S
    }

    /// When the next edge of the periodic rate comes.
    pub fn next_periodic(&self, rate: u8) -> Option<Time> {
        let period = period(rate)?;
        let next = (Time(self.seen_ns).ticks(CRYSTAL) / period + 1).saturating_mul(period);
        Some(self.time_of(Time::of_tick(next, CRYSTAL).0))
    }
}

/// Crystal pulses in a period of the given rate selection (MC146818 datasheet, table 5): selections
/// 1 and 2 repeat 8 and 9.
fn period(rate: u8) -> Option<u64> {
    match rate & 0xf {
        0 => None,
        rate @ 1..=2 => Some(1 << (rate + 6)),
        rate => Some(1 << (rate - 1)),
    }
}
