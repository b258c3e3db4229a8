//! The MC146818 as an operating system uses it, and against a model that ticks every second.

use devices::rtc::Rtc;
use devices::time::Time;
use proptest::prelude::*;

const S: u64 = 1_000_000_000;
/// 2024-02-28 23:59:58 UTC, a Wednesday.
const LEAP: u64 = 1_709_164_798;

fn get(rtc: &mut Rtc, index: u8, now: Time) -> u8 {
    rtc.write(0, index, now);
    rtc.read(1, now)
}

fn set(rtc: &mut Rtc, index: u8, value: u8, now: Time) {
    rtc.write(0, index, now);
    rtc.write(1, value, now);
}

/// Century, year, month, day, weekday, hour, minute, second.
fn clock(rtc: &mut Rtc, now: Time) -> [u8; 8] {
    [0x32, 9, 8, 7, 6, 4, 2, 0].map(|index| get(rtc, index, now))
}

#[test]
fn shows_the_time_given_and_counts() {
    let mut rtc = Rtc::new(LEAP);
    assert_eq!(clock(&mut rtc, Time(0)), [0x20, 0x24, 2, 0x28, 4, 0x23, 0x59, 0x58]);
    assert_eq!(clock(&mut rtc, Time(2 * S - 1)), [0x20, 0x24, 2, 0x28, 4, 0x23, 0x59, 0x59]);
    assert_eq!(clock(&mut rtc, Time(2 * S)), [0x20, 0x24, 2, 0x29, 5, 0, 0, 0]);
    let later = Time((2 + 86_400 * 307) * S);
    assert_eq!(clock(&mut rtc, later), [0x20, 0x25, 1, 1, 4, 0, 0, 0]);
    assert_eq!(clock(&mut Rtc::new(0), Time(0)), [0x19, 0x70, 1, 1, 5, 0, 0, 0]);
}

#[test]
fn formats() {
    let mut rtc = Rtc::new(LEAP);
    set(&mut rtc, 0x0b, 0x86, Time(0)); // SET, binary, 24 hours.
    for (index, value) in [(0x32, 19), (9, 99), (8, 12), (7, 31), (6, 6), (4, 23), (2, 59), (0, 59)]
    {
        set(&mut rtc, index, value, Time(0));
    }
    set(&mut rtc, 0x0b, 0x06, Time(0));
    assert_eq!(clock(&mut rtc, Time(S)), [20, 0, 1, 1, 7, 0, 0, 0]);
    // 12 hours, BCD: a minute before noon, and before midnight.
    for (hour, next) in [(0x11, 0x92), (0x91, 0x12), (0x12, 0x01), (0x92, 0x81)] {
        let mut rtc = Rtc::new(LEAP);
        set(&mut rtc, 0x0b, 0x80, Time(0));
        for (index, value) in [(4, hour), (2, 0x59), (0, 0x59)] {
            set(&mut rtc, index, value, Time(0));
        }
        set(&mut rtc, 0x0b, 0x00, Time(0));
        assert_eq!(get(&mut rtc, 4, Time(S)), next);
    }
}

#[test]
fn set_stops_updates_and_update_interrupts() {
    let mut rtc = Rtc::new(LEAP);
    set(&mut rtc, 0x0b, 0x12, Time(0));
    set(&mut rtc, 0x0b, 0x92, Time(0));
    assert_eq!(get(&mut rtc, 0x0b, Time(0)), 0x82, "SET clears UIE");
    assert_eq!(get(&mut rtc, 0, Time(10 * S)), 0x58);
    assert_eq!(get(&mut rtc, 0x0a, Time(11 * S - 1)), 0x26, "nothing in progress");
    assert_eq!(get(&mut rtc, 0x0c, Time(11 * S)), 0x40, "the periodic flag alone");
    set(&mut rtc, 0, 0x07, Time(11 * S + S / 2));
    set(&mut rtc, 0x0b, 0x02, Time(11 * S + S / 2));
    assert_eq!(get(&mut rtc, 0, Time(12 * S - 1)), 0x07);
    assert_eq!(get(&mut rtc, 0, Time(12 * S)), 0x08, "the divider ran on");
}

#[test]
fn a_released_divider_updates_after_half_a_second() {
    let mut rtc = Rtc::new(LEAP);
    let stop = Time(S / 3);
    set(&mut rtc, 0x0a, 0x70, stop);
    assert_eq!(get(&mut rtc, 0, Time(20 * S)), 0x58);
    assert_eq!(rtc.next_event(), None);
    let go = Time(20 * S + 123);
    set(&mut rtc, 0x0a, 0x26, go);
    assert_eq!(get(&mut rtc, 0, go + (S / 2 - 1)), 0x58);
    assert_eq!(get(&mut rtc, 0, go + S / 2), 0x59);
    assert_eq!(get(&mut rtc, 0, go + (S / 2 + S)), 0x00);
}

#[test]
fn selecting_a_rate_does_not_disturb_the_divider() {
    let mut rtc = Rtc::new(LEAP);
    set(&mut rtc, 0x0a, 0x2f, Time(S / 3));
    set(&mut rtc, 0x0b, 0x12, Time(S / 3));
    assert_eq!(rtc.next_event(), Some(Time(S)));
}

#[test]
fn update_in_progress_is_announced_244_microseconds_before() {
    let mut rtc = Rtc::new(LEAP);
    for (ns, uip) in [(0, 0), (S - 250_000, 0), (S - 244_000, 0x80), (S - 1, 0x80), (S, 0)] {
        assert_eq!(get(&mut rtc, 0x0a, Time(ns)) & 0x80, uip, "{ns}");
    }
}

#[test]
fn update_ended_interrupt() {
    let mut rtc = Rtc::new(LEAP);
    assert_eq!(rtc.next_event(), None);
    set(&mut rtc, 0x0b, 0x12, Time(5));
    assert_eq!(rtc.next_event(), Some(Time(S)));
    rtc.advance(Time(S - 1));
    assert!(!rtc.irq());
    rtc.advance(Time(S));
    assert!(rtc.irq());
    assert_eq!(rtc.next_event(), None);
    assert_eq!(get(&mut rtc, 0x0c, Time(S)) & 0x90, 0x90);
    assert!(!rtc.irq(), "reading C clears it");
    assert_eq!(get(&mut rtc, 0x0c, Time(S)), 0);
    assert_eq!(rtc.next_event(), Some(Time(2 * S)));
}

#[test]
fn flags_are_set_without_being_enabled_and_enabling_raises() {
    let mut rtc = Rtc::new(LEAP);
    rtc.advance(Time(S));
    assert!(!rtc.irq());
    set(&mut rtc, 0x0b, 0x12, Time(S));
    assert!(rtc.irq());
    assert_eq!(get(&mut rtc, 0x0c, Time(S)), 0xd0);
}

#[test]
fn periodic_rates() {
    for rate in 1..=15u8 {
        let hz = match rate {
            1 => 256,
            2 => 128,
            rate => 65_536 >> rate,
        };
        let mut rtc = Rtc::new(LEAP);
        set(&mut rtc, 0x0a, 0x20 | rate, Time(0));
        set(&mut rtc, 0x0b, 0x42, Time(0));
        let mut interrupts = 0;
        while let Some(at) = rtc.next_event().filter(|&at| at <= Time(3 * S)) {
            rtc.advance(Time(at.0 - 1));
            assert!(!rtc.irq());
            rtc.advance(at);
            assert!(rtc.irq());
            assert_eq!(get(&mut rtc, 0x0c, at) & 0xc0, 0xc0);
            interrupts += 1;
        }
        assert_eq!(interrupts, 3 * hz, "rate {rate}");
    }
    let mut rtc = Rtc::new(LEAP);
    set(&mut rtc, 0x0a, 0x20, Time(0));
    set(&mut rtc, 0x0b, 0x42, Time(0));
    assert_eq!(rtc.next_event(), None);
}

#[test]
fn alarms() {
    // Hour, minute, second; seconds to wait from 23:59:58.
    let cases = [
        ([0x23, 0x59, 0x59], Some(1)),
        ([0x00, 0x00, 0x00], Some(2)),
        ([0xff, 0xff, 0xff], Some(1)),
        ([0xff, 0xc0, 0x58], Some(60)),
        ([0x23, 0x59, 0x58], Some(86_400)),
        ([0x07, 0xff, 0x30], Some(7 * 3600 + 32)),
        ([0x24, 0xff, 0xff], None),
        ([0xff, 0x60, 0xff], None),
    ];
    for (alarm, wait) in cases {
        let mut rtc = Rtc::new(LEAP);
        for (index, value) in [5, 3, 1].into_iter().zip(alarm) {
            set(&mut rtc, index, value, Time(0));
        }
        set(&mut rtc, 0x0b, 0x22, Time(0));
        let expected = wait.map(|s| Time(s * S));
        assert_eq!(rtc.next_event(), expected, "{alarm:x?}");
        let Some(at) = expected else { continue };
        rtc.advance(Time(at.0 - 1));
        assert!(!rtc.irq());
        rtc.advance(at);
        assert!(rtc.irq());
        assert_eq!(get(&mut rtc, 0x0c, at) & 0xa0, 0xa0);
    }
}

#[test]
fn read_only_registers_and_index_port() {
    let mut rtc = Rtc::new(LEAP);
    set(&mut rtc, 0x0c, 0xff, Time(0));
    set(&mut rtc, 0x0d, 0x00, Time(0));
    set(&mut rtc, 0x0a, 0xa6, Time(0));
    assert_eq!(get(&mut rtc, 0x0c, Time(0)), 0);
    assert_eq!(get(&mut rtc, 0x0d, Time(0)), 0x80);
    assert_eq!(get(&mut rtc, 0x0a, Time(0)), 0x26);
    rtc.write(0, 0x8f, Time(0));
    assert!(rtc.nmi_masked());
    rtc.write(1, 0x42, Time(0));
    assert_eq!(rtc.read(0, Time(0)), 0xff);
    assert_eq!(rtc.cell(0x0f), 0x42);
    rtc.write(0, 0x0f, Time(0));
    assert!(!rtc.nmi_masked());
}

#[test]
fn reset_keeps_time_and_memory_but_no_interrupts() {
    let mut rtc = Rtc::new(LEAP);
    set(&mut rtc, 0x40, 0x99, Time(0));
    set(&mut rtc, 0x0b, 0x7a, Time(0));
    rtc.advance(Time(S));
    assert!(rtc.irq());
    rtc.reset();
    assert!(!rtc.irq());
    assert_eq!(get(&mut rtc, 0x0b, Time(S)), 0x02);
    assert_eq!(get(&mut rtc, 0x40, Time(S)), 0x99);
    assert_eq!(get(&mut rtc, 0, Time(S)), 0x59);
}

#[test]
fn memory_size() {
    let size = |below: u64, above: u64| {
        let rtc = Rtc::new(0).with_memory_size(below, above);
        let word = |i| u16::from_le_bytes([rtc.cell(i), rtc.cell(i + 1)]);
        let sum: u16 = (0x10..0x2e).map(|i| u16::from(rtc.cell(i))).sum();
        assert_eq!(sum.to_be_bytes(), [rtc.cell(0x2e), rtc.cell(0x2f)]);
        assert_eq!(word(0x17), word(0x30));
        (word(0x15), word(0x17), word(0x34), word(0x5b), rtc.cell(0x5d))
    };
    assert_eq!(size(256 << 20, 0), (640, 64_512, 240 * 16, 0, 0));
    assert_eq!(size(8 << 20, 0), (640, 7 * 1024, 0, 0, 0));
    assert_eq!(size(512 << 10, 0), (512, 0, 0, 0, 0));
    assert_eq!(size(3 << 30, 5 << 30), (640, 64_512, 3056 * 16, 0x4000, 1));
}

proptest! {
    /// Whatever the guest wrote into the time bytes, many seconds at once equal one after another.
    #[test]
    fn a_long_step_equals_many_short_ones(
        bytes in prop::array::uniform8(any::<u8>()),
        alarm in prop::array::uniform3(any::<u8>()),
        format in 0u8..4,
        seconds in 1u64..4_000,
    ) {
        let mut long = Rtc::new(LEAP);
        for (index, value) in [0x32, 9, 8, 7, 6, 4, 2, 0].into_iter().zip(bytes) {
            set(&mut long, index, value, Time(0));
        }
        for (index, value) in [5, 3, 1].into_iter().zip(alarm) {
            set(&mut long, index, value, Time(0));
        }
        set(&mut long, 0x0b, format << 1, Time(0));
        long.advance(Time(S)); // Makes a time that exists of what was written.
        let mut short = long.clone();
        (2..=seconds).for_each(|s| short.advance(Time(s * S)));
        long.advance(Time(seconds * S));
        prop_assert_eq!(long, short);
    }

    #[test]
    fn survives_anything_and_a_snapshot(
        ops in prop::collection::vec((any::<u16>(), any::<u8>(), any::<u64>()), 0..200),
    ) {
        let mut rtc = Rtc::new(LEAP);
        let mut now = Time::ZERO;
        for (offset, value, wait) in ops {
            now = now + (wait >> (wait % 64));
            if offset & 2 == 0 {
                rtc.write(offset, value & if offset & 1 == 0 { 0x0f } else { 0xff }, now);
            } else {
                rtc.read(offset, now);
            }
            rtc.advance(now);
            if let Some(at) = rtc.next_event() {
                prop_assert!(at > now || at == Time::MAX);
                rtc.advance(Time(at.0 - 1));
                prop_assert!(!rtc.irq() || at == Time::MAX);
                rtc.advance(at);
                prop_assert!(rtc.irq() || at == Time::MAX);
                now = at;
            }
        }
        let bytes = postcard::to_allocvec(&rtc).unwrap();
        prop_assert_eq!(postcard::from_bytes::<Rtc>(&bytes).unwrap(), rtc);
    }

    #[test]
    fn any_start_is_shown(unix in any::<u64>()) {
        let mut rtc = Rtc::new(unix);
        let [_, _, month, day, weekday, hour, minute, second] = clock(&mut rtc, Time(0));
        prop_assert!((1..=0x12).contains(&month) && (1..=0x31).contains(&day));
        prop_assert!((1..=7).contains(&weekday));
        prop_assert!(hour <= 0x23 && minute <= 0x59 && second <= 0x59);
    }
}
