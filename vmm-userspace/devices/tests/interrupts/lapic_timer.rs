//! The timer (SDM 3A 11.5.4).

use core::num::NonZeroU64;

use devices::lapic::{Clock, IA32_TSC_DEADLINE, LocalApic, NextEvent};
use devices::time::Time;
use proptest::prelude::*;

use crate::lapic::*;

const ONE_SHOT: u32 = 0;
const PERIODIC: u32 = 1 << 17;
const TSC_DEADLINE: u32 = 2 << 17;
const BY_1: u32 = 0b1011;
const VECTOR: u32 = 0x40;

/// A timer that divides its 1 GHz by one.
fn timer(mode: u32) -> LocalApic {
    let mut apic = xapic(0);
    put(&mut apic, LVT_TIMER, mode | VECTOR);
    put(&mut apic, DIVIDE, BY_1);
    apic
}

fn put_at(apic: &mut LocalApic, register: u16, value: u32, ns: u64) {
    assert_eq!(apic.write(register, value, at(ns)), NOTHING);
}

fn count(apic: &mut LocalApic, ns: u64) -> u32 {
    apic.read(CURRENT_COUNT, at(ns))
}

fn time(ns: u64) -> NextEvent {
    NextEvent { time: Some(Time(ns)), tsc: None }
}

/// Whether the timer has interrupted, and ends that interrupt.
fn fired(apic: &mut LocalApic) -> bool {
    let fired = apic.pending() == Some(VECTOR as u8);
    if fired {
        apic.accept();
        put(apic, EOI, 0);
    }
    fired
}

#[test]
fn one_shot() {
    let mut apic = timer(ONE_SHOT);
    assert_eq!(apic.next_event(), NextEvent::default());
    put_at(&mut apic, INITIAL_COUNT, 1000, 50);
    assert_eq!(apic.next_event(), time(1050));
    assert_eq!(count(&mut apic, 50), 1000);
    assert_eq!(count(&mut apic, 1049), 1);
    assert!(!fired(&mut apic));
    apic.advance(at(1050));
    assert!(fired(&mut apic));
    assert_eq!(count(&mut apic, 1050), 0);
    apic.advance(at(5000));
    assert!(!fired(&mut apic), "once");
    assert_eq!(get(&mut apic, INITIAL_COUNT), 1000);
    assert_eq!(apic.next_event(), NextEvent::default());
}

#[test]
fn periodic() {
    let mut apic = timer(PERIODIC);
    put_at(&mut apic, INITIAL_COUNT, 100, 0);
    for period in 1..=3 {
        assert_eq!(apic.next_event(), time(100 * period));
        assert_eq!(count(&mut apic, 100 * period - 1), 1);
        assert!(!fired(&mut apic));
        assert_eq!(count(&mut apic, 100 * period), 100);
        assert!(fired(&mut apic));
    }
    // Periods that nobody looked at are one interrupt, and the phase is kept.
    apic.advance(at(1_000_000_030));
    assert!(fired(&mut apic));
    assert!(!fired(&mut apic));
    assert_eq!(apic.next_event(), time(1_000_000_100));
    assert_eq!(count(&mut apic, 1_000_000_030), 70);
    put_at(&mut apic, INITIAL_COUNT, 0, 1_000_000_031);
    assert_eq!(apic.next_event(), NextEvent::default());
    apic.advance(at(2_000_000_000));
    assert!(!fired(&mut apic));
}

#[test]
fn a_write_restarts_the_count() {
    let mut apic = timer(ONE_SHOT);
    put_at(&mut apic, INITIAL_COUNT, 100, 0);
    put_at(&mut apic, INITIAL_COUNT, 100, 60);
    assert_eq!(apic.next_event(), time(160));
    // An expiry before the write is not lost by it.
    put_at(&mut apic, INITIAL_COUNT, 100, 170);
    assert!(fired(&mut apic));
}

#[test]
fn divisors() {
    for (code, divisor) in [
        (0b0000, 2),
        (0b0001, 4),
        (0b0010, 8),
        (0b0011, 16),
        (0b1000, 32),
        (0b1001, 64),
        (0b1010, 128),
        (0b1011, 1),
    ] {
        let mut apic = timer(ONE_SHOT);
        put(&mut apic, DIVIDE, code);
        put(&mut apic, INITIAL_COUNT, 10);
        assert_eq!(apic.next_event(), time(10 * divisor), "{code:#b}");
        assert_eq!(count(&mut apic, 3 * divisor), 7);
    }
}

#[test]
fn a_new_divisor_takes_over_the_count() {
    let mut apic = timer(ONE_SHOT);
    put(&mut apic, INITIAL_COUNT, 100);
    put_at(&mut apic, DIVIDE, 0, 40);
    assert_eq!(count(&mut apic, 40), 60);
    assert_eq!(apic.next_event(), time(160));
}

#[test]
fn a_masked_timer_counts_but_does_not_interrupt() {
    let mut apic = timer(PERIODIC | MASKED);
    put(&mut apic, INITIAL_COUNT, 100);
    assert_eq!(apic.next_event(), NextEvent::default());
    assert_eq!(count(&mut apic, 130), 70);
    put_at(&mut apic, LVT_TIMER, PERIODIC | VECTOR, 140);
    assert!(!fired(&mut apic), "what expired while masked is gone");
    assert_eq!(apic.next_event(), time(200));
}

/// Between the counting modes the count goes on: the mode says what happens when it ends.
#[test]
fn one_shot_and_periodic_share_the_count() {
    let mut apic = timer(ONE_SHOT);
    put(&mut apic, INITIAL_COUNT, 100);
    put_at(&mut apic, LVT_TIMER, PERIODIC | VECTOR, 60);
    assert_eq!(count(&mut apic, 60), 40);
    assert_eq!(count(&mut apic, 110), 90);
    assert!(fired(&mut apic));
    put_at(&mut apic, LVT_TIMER, ONE_SHOT | VECTOR, 150);
    assert_eq!(count(&mut apic, 150), 50);
    assert_eq!(count(&mut apic, 200), 0);
    assert!(fired(&mut apic));
    put_at(&mut apic, LVT_TIMER, PERIODIC | VECTOR, 210);
    assert_eq!(count(&mut apic, 230), 0, "a counter at rest stays at rest");
    assert_eq!(get(&mut apic, INITIAL_COUNT), 100);
}

#[test]
fn the_reserved_mode_stands_still() {
    let mut apic = timer(ONE_SHOT);
    put(&mut apic, INITIAL_COUNT, 100);
    put(&mut apic, LVT_TIMER, 3 << 17 | VECTOR);
    assert_eq!(get(&mut apic, LVT_TIMER), 3 << 17 | VECTOR);
    put(&mut apic, INITIAL_COUNT, 100);
    assert_eq!(apic.write_msr(IA32_TSC_DEADLINE, 5, at(0)), Ok(NOTHING));
    assert_eq!(apic.next_event(), NextEvent::default());
    apic.advance(at(1000));
    assert!(!fired(&mut apic));
}

fn set_deadline(apic: &mut LocalApic, tsc: u64, clock: Clock) {
    assert_eq!(apic.write_msr(IA32_TSC_DEADLINE, tsc, clock), Ok(NOTHING));
}

#[test]
fn tsc_deadline() {
    let mut apic = timer(TSC_DEADLINE);
    set_deadline(&mut apic, 5000, at(0));
    assert_eq!(apic.read_msr(IA32_TSC_DEADLINE, at(0)), Ok(5000));
    assert_eq!(apic.next_event(), NextEvent { time: None, tsc: Some(5000) });
    apic.advance(at(2499));
    assert!(!fired(&mut apic));
    assert_eq!(apic.read_msr(IA32_TSC_DEADLINE, at(2500)), Ok(0), "fired");
    assert!(fired(&mut apic));
    apic.advance(at(9999));
    assert!(!fired(&mut apic));
    // A deadline in the past fires at once.
    set_deadline(&mut apic, 1, at(9999));
    assert!(fired(&mut apic));
    assert_eq!(apic.read_msr(IA32_TSC_DEADLINE, at(9999)), Ok(0));
    // Zero disarms.
    set_deadline(&mut apic, 30_000, at(9999));
    set_deadline(&mut apic, 0, at(9999));
    apic.advance(at(20_000));
    assert!(!fired(&mut apic));
    // The counter is out of use.
    put_at(&mut apic, INITIAL_COUNT, 100, 20_000);
    assert_eq!(get(&mut apic, INITIAL_COUNT), 0);
    assert_eq!(count(&mut apic, 20_000), 0);
    assert_eq!(apic.next_event(), NextEvent::default());
}

#[test]
fn tsc_deadline_in_x2apic_mode() {
    let mut apic = x2apic(0);
    assert_eq!(apic.write_msr(msr(LVT_TIMER), (TSC_DEADLINE | VECTOR).into(), at(0)), Ok(NOTHING));
    set_deadline(&mut apic, 100, at(0));
    apic.advance(at(50));
    assert_eq!(apic.pending(), Some(VECTOR as u8));
}

#[test]
fn the_deadline_belongs_to_its_mode() {
    for mode in [ONE_SHOT, PERIODIC] {
        let mut apic = timer(mode);
        set_deadline(&mut apic, 5000, at(0));
        assert_eq!(apic.read_msr(IA32_TSC_DEADLINE, at(0)), Ok(0));
        put(&mut apic, LVT_TIMER, TSC_DEADLINE | VECTOR);
        assert_eq!(apic.next_event(), NextEvent::default(), "ignored, not kept");
        set_deadline(&mut apic, 5000, at(0));
        put(&mut apic, LVT_TIMER, mode | VECTOR);
        assert_eq!(apic.read_msr(IA32_TSC_DEADLINE, at(0)), Ok(0));
        put(&mut apic, LVT_TIMER, TSC_DEADLINE | VECTOR);
        assert_eq!(apic.next_event(), NextEvent::default(), "disarmed by the change of mode");
    }
    // Coming from a running count as well.
    let mut apic = timer(ONE_SHOT);
    put(&mut apic, INITIAL_COUNT, 100);
    put(&mut apic, LVT_TIMER, TSC_DEADLINE | VECTOR);
    assert_eq!(count(&mut apic, 10), 0);
    put(&mut apic, LVT_TIMER, ONE_SHOT | VECTOR);
    apic.advance(at(1000));
    assert!(!fired(&mut apic));
    // A write that keeps the mode does not disarm.
    let mut apic = timer(TSC_DEADLINE);
    set_deadline(&mut apic, 5000, at(0));
    put(&mut apic, LVT_TIMER, TSC_DEADLINE | MASKED | VECTOR);
    assert_eq!(apic.read_msr(IA32_TSC_DEADLINE, at(0)), Ok(5000));
}

#[test]
fn clocks_that_do_not_divide_a_second_do_not_drift() {
    let mut config = config(0);
    config.timer_hz = NonZeroU64::new(133_333_333).unwrap();
    let mut apic = LocalApic::new(config);
    put(&mut apic, SVR, ENABLE | 0xff);
    put(&mut apic, LVT_TIMER, PERIODIC | VECTOR);
    put(&mut apic, DIVIDE, BY_1);
    put(&mut apic, INITIAL_COUNT, 1000);
    let mut periods = 0;
    while let Some(next) = apic.next_event().time.filter(|next| *next <= Time(1_000_000_000)) {
        apic.advance(at(next.0));
        assert!(fired(&mut apic));
        periods += 1;
    }
    assert_eq!(periods, 133_333);
}

/// A timer that is stepped nanosecond by nanosecond.
#[derive(Default)]
struct Stepped {
    periodic: bool,
    shift: u32,
    initial: u32,
    count: u32,
    phase: u32,
    fired: bool,
}

impl Stepped {
    fn step(&mut self) {
        if self.count == 0 {
            return;
        }
        self.phase += 1;
        if self.phase == 1 << self.shift {
            self.phase = 0;
            self.count -= 1;
            if self.count == 0 {
                self.fired = true;
                self.count = if self.periodic { self.initial } else { 0 };
            }
        }
    }
}

proptest! {
    #[test]
    fn agrees_with_a_stepped_timer(
        operations in prop::collection::vec((0u8..6, 0u32..40, 1u64..300), 1..40),
    ) {
        const CODES: [u32; 8] = [0b1011, 0, 1, 2, 3, 0b1000, 0b1001, 0b1010];
        let mut apic = timer(ONE_SHOT);
        let mut model = Stepped::default();
        let mut now = 0;
        for (kind, value, wait) in operations {
            match kind {
                0 => {
                    put_at(&mut apic, INITIAL_COUNT, value, now);
                    model.initial = value;
                    model.count = value;
                    model.phase = 0;
                }
                1 => {
                    let shift = value % 8;
                    put_at(&mut apic, DIVIDE, CODES[shift as usize], now);
                    model.shift = shift;
                    model.phase = 0;
                }
                2 => {
                    model.periodic = value % 2 == 1;
                    let mode = if model.periodic { PERIODIC } else { ONE_SHOT };
                    put_at(&mut apic, LVT_TIMER, mode | VECTOR, now);
                }
                _ => {
                    let next = apic.next_event().time;
                    for ns in now..now + wait {
                        let fired_before = model.fired;
                        model.step();
                        if model.fired && !fired_before {
                            prop_assert_eq!(next, Some(Time(ns + 1)));
                        }
                    }
                    now += wait;
                    prop_assert_eq!(next.is_some_and(|next| next <= Time(now)), model.fired);
                    apic.advance(at(now));
                }
            }
            prop_assert_eq!(count(&mut apic, now), model.count);
            prop_assert_eq!(fired(&mut apic), core::mem::take(&mut model.fired));
        }
    }
}
