//! The 8254 against a model that follows the datasheet pulse by pulse.

use devices::pit::{FREQUENCY, Pit};
use devices::time::Time;
use proptest::prelude::*;

/// The counting element of the 82C54, one CLK pulse at a time.
#[derive(Debug, Default)]
struct Model {
    mode: u8,
    modulus: u32,
    register: u32,
    null: bool,
    written: bool,
    element: u32,
    odd: bool,
    running: bool,
    pending: bool,
    expired: bool,
    out: bool,
    gate: bool,
}

impl Model {
    fn set_mode(&mut self, mode: u8, bcd: bool) {
        self.mode = mode;
        self.modulus = if bcd { 10_000 } else { 65_536 };
        self.null = true;
        self.written = false;
        self.running = false;
        self.pending = false;
        self.out = mode != 0;
    }

    fn write_count(&mut self, count: u32) {
        self.register = count;
        self.null = true;
        match self.mode {
            0 => {
                self.out = false;
                self.running = false;
                self.pending = true;
            }
            4 => self.pending = true,
            2 | 3 => self.pending |= !self.written,
            _ => {}
        }
        self.written = true;
    }

    fn set_gate(&mut self, gate: bool) {
        if gate && !self.gate && self.written && matches!(self.mode, 1 | 2 | 3 | 5) {
            self.pending = true;
        }
        if !gate && self.gate && matches!(self.mode, 2 | 3) {
            self.out = true;
            self.running = false;
        }
        self.gate = gate;
    }

    fn load(&mut self) {
        self.null = false;
        self.element = self.register;
        if self.mode == 3 {
            self.odd = self.element % 2 == 1;
            self.element &= !1;
        }
    }

    fn pulse(&mut self) {
        if self.pending {
            self.pending = false;
            self.running = true;
            self.expired = false;
            self.load();
            self.out = matches!(self.mode, 2..=5);
            return;
        }
        if !self.running || !self.gate && !matches!(self.mode, 1 | 5) {
            return;
        }
        match self.mode {
            2 if self.element == 1 => {
                self.load();
                self.out = true;
            }
            2 => {
                self.element -= 1;
                self.out = self.element != 1;
            }
            3 => self.pulse_square(),
            _ => {
                self.element = self.element.checked_sub(1).unwrap_or(self.modulus - 1);
                let expires = self.element == 0 && !self.expired;
                self.expired |= expires;
                self.out = if self.mode < 2 { self.expired } else { !expires };
            }
        }
    }

    fn pulse_square(&mut self) {
        let stays = self.odd && self.out;
        if self.element > 2 || self.element == 2 && stays {
            self.element -= 2;
            return;
        }
        self.load();
        self.out = !self.out;
    }

    fn status(&self, control: u8) -> u8 {
        u8::from(self.out) << 7 | u8::from(self.null) << 6 | control
    }
}

fn to_bcd(value: u32) -> u32 {
    (0..4).fold(0, |bcd, i| bcd | (value / 10u32.pow(i) % 10) << (4 * i))
}

#[derive(Clone, Debug)]
enum Op {
    Mode { mode: u8, bcd: bool },
    Count(u32),
    Gate(bool),
    Pulses(u64),
}

fn op() -> impl Strategy<Value = Op> {
    // A count of one is not allowed in the periodic modes.
    let count = prop_oneof![8 => 2u32..12, 1 => 9_990u32..=10_000];
    let pulses = prop_oneof![8 => 0u64..25, 1 => 9_900u64..11_000];
    prop_oneof![
        1 => (0u8..6, any::<bool>()).prop_map(|(mode, bcd)| Op::Mode { mode, bcd }),
        2 => count.prop_map(Op::Count),
        2 => any::<bool>().prop_map(Op::Gate),
        5 => pulses.prop_map(Op::Pulses),
    ]
}

/// A counter of the device beside the model, seen through the ports only.
struct Pair {
    pit: Pit,
    index: u8,
    model: Model,
    control: u8,
    pulse: u64,
}

impl Pair {
    fn new(index: u8) -> Self {
        let mut pair = Self {
            pit: Pit::new(),
            index,
            model: Model { gate: index != 2, ..Model::default() },
            control: 0,
            pulse: 1_000,
        };
        pair.set_mode(2, false);
        pair
    }

    fn now(&self) -> Time {
        Time::of_tick(self.pulse, FREQUENCY)
    }

    fn set_mode(&mut self, mode: u8, bcd: bool) {
        self.control = 0x30 | mode << 1 | u8::from(bcd);
        self.pit.write(3, self.index << 6 | self.control, self.now());
        self.model.set_mode(mode, bcd);
    }

    fn write_count(&mut self, count: u32) {
        let [low, high, ..] = if self.model.modulus == 10_000 {
            to_bcd(count % 10_000).to_le_bytes()
        } else {
            count.to_le_bytes()
        };
        self.pit.write(self.index.into(), low, self.now());
        self.pit.write(self.index.into(), high, self.now());
        self.model.write_count(count);
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        let (index, now) = (u16::from(self.index), self.now());
        self.pit.write(3, 0xc0 | 2 << index, now);
        let status = self.pit.read(index, now);
        prop_assert_eq!(status, self.model.status(self.control), "status");
        prop_assert_eq!(self.pit.out(index.into()), self.model.out);
        let count = u16::from_le_bytes([self.pit.read(index, now), self.pit.read(index, now)]);
        if self.model.running {
            let element = self.model.element % self.model.modulus;
            let expected = if self.model.modulus == 10_000 { to_bcd(element) } else { element };
            prop_assert_eq!(u32::from(count), expected, "count");
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn every_mode_counts_like_the_datasheet(ops in prop::collection::vec(op(), 1..30)) {
        let mut pair = Pair::new(2);
        for op in ops {
            match op {
                Op::Mode { mode, bcd } => pair.set_mode(mode, bcd),
                Op::Count(count) => pair.write_count(count),
                Op::Gate(gate) => {
                    pair.pit.set_gate2(gate, pair.now());
                    pair.model.set_gate(gate);
                }
                Op::Pulses(pulses) => {
                    (0..pulses).for_each(|_| pair.model.pulse());
                    pair.pulse += pulses;
                }
            }
            pair.check()?;
        }
    }

    #[test]
    fn edges_of_irq_0_are_counted_and_announced(ops in prop::collection::vec(op(), 1..30)) {
        let mut pair = Pair::new(0);
        pair.pit.take_irq_edges();
        for op in ops {
            let before = pair.model.out;
            match op {
                Op::Mode { mode, bcd } => pair.set_mode(mode, bcd),
                Op::Count(count) => pair.write_count(count),
                Op::Gate(_) => {}
                Op::Pulses(pulses) => {
                    let (mut expected, mut first) = (0, None);
                    for i in 1..=pulses {
                        let was = pair.model.out;
                        pair.model.pulse();
                        if !was && pair.model.out {
                            expected += 1;
                            first = first.or(Some(Time::of_tick(pair.pulse + i, FREQUENCY)));
                        }
                    }
                    let announced = pair.pit.next_event();
                    pair.pulse += pulses;
                    prop_assert_eq!(announced.filter(|&at| at <= pair.now()), first);
                    pair.pit.advance(pair.now());
                    prop_assert_eq!(pair.pit.take_irq_edges(), expected);
                    continue;
                }
            }
            let risen = u64::from(!before && pair.model.out);
            prop_assert_eq!(pair.pit.take_irq_edges(), risen);
        }
    }

    #[test]
    fn survives_anything_and_a_snapshot(
        ops in prop::collection::vec((any::<u8>(), any::<u8>(), any::<u64>()), 0..200),
    ) {
        let mut pit = Pit::new();
        let mut now = Time::ZERO;
        for (what, value, wait) in ops {
            now = now + (wait >> (8 + wait % 56));
            match what % 10 {
                0..4 => pit.write(what.into(), value, now),
                4..8 => _ = pit.read(what.into(), now),
                8 => pit.set_gate2(value & 1 != 0, now),
                _ => now = pit.next_event().unwrap_or(now).max(now),
            }
            let mut twice = pit.clone();
            twice.advance(now);
            twice.advance(now);
            pit.advance(now);
            prop_assert_eq!(&twice, &pit);
            prop_assert!(pit.next_event().is_none_or(|at| at >= now));
        }
        pit.advance(Time::MAX);
        let bytes = postcard::to_allocvec(&pit).unwrap();
        prop_assert_eq!(postcard::from_bytes::<Pit>(&bytes).unwrap(), pit);
    }
}

#[test]
fn a_day_of_ticks_does_not_drift() {
    let mut pit = Pit::new();
    pit.write(3, 0x34, Time::ZERO);
    pit.write(0, 0x9c, Time::ZERO); // 11932: the divisor of HZ=100.
    pit.write(0, 0x2e, Time::ZERO);
    pit.advance(Time::ZERO);
    pit.take_irq_edges();
    let mut edges = 0;
    let day = Time(86_400 * 1_000_000_000);
    while let Some(at) = pit.next_event().filter(|&at| at <= day) {
        pit.advance(at);
        edges += pit.take_irq_edges();
    }
    assert_eq!(edges, (86_400 * FREQUENCY - 1) / 11_932);
    // In one step as well.
    let mut pit = Pit::new();
    pit.write(3, 0x34, Time::ZERO);
    pit.write(0, 0x9c, Time::ZERO);
    pit.write(0, 0x2e, Time::ZERO);
    pit.advance(day);
    assert_eq!(pit.take_irq_edges(), edges);
}

#[test]
fn bytes_of_a_count() {
    let now = Time(1_000_000);
    let later = Time::of_tick(now.ticks(FREQUENCY) + 1, FREQUENCY);
    for (access, written, count) in [(0x10, 0x80, 0x0080), (0x20, 0x80, 0x8000)] {
        let mut pit = Pit::new();
        pit.write(3, access | 0x04, now);
        pit.write(0, written, now);
        pit.advance(later);
        pit.write(3, 0x00, later); // Counter latch command; the bytes follow the access mode.
        assert_eq!(pit.read(0, later), written, "{count:#x}");
        assert_eq!(pit.read(0, later), written, "{count:#x}");
    }
}

#[test]
fn a_latched_count_waits_and_is_not_replaced() {
    let mut pit = Pit::new();
    let at = |pulse| Time::of_tick(pulse, FREQUENCY);
    pit.write(3, 0x34, at(0));
    pit.write(0, 0x34, at(0));
    pit.write(0, 0x12, at(0));
    pit.write(3, 0x00, at(1));
    pit.write(3, 0x00, at(5));
    pit.write(3, 0xc2, at(6)); // Read-back of both: the count stays the first, status is new.
    assert_eq!(pit.read(0, at(7)), 0xb4);
    assert_eq!([pit.read(0, at(8)), pit.read(0, at(9))], [0x34, 0x12]);
    assert_eq!([pit.read(0, at(10)), pit.read(0, at(10))], [0x2b, 0x12], "counts on");
}

#[test]
fn modes_six_and_seven_are_two_and_three() {
    for (control, out_after_two) in [(0x3c, true), (0x3e, false)] {
        let mut pit = Pit::new();
        let at = |pulse| Time::of_tick(pulse, FREQUENCY);
        pit.write(3, control, at(0));
        pit.write(0, 4, at(0));
        pit.write(0, 0, at(0));
        pit.advance(at(3));
        assert_eq!(pit.out(0), out_after_two);
        pit.write(3, 0xe2, at(3));
        assert_eq!(pit.read(0, at(3)) & 0x3f, control, "status shows the bits as written");
    }
}

#[test]
fn zero_is_the_largest_count() {
    for (control, count, after_one) in [(0x34, 65_536, [0xff, 0xff]), (0x35, 10_000, [0x99, 0x99])]
    {
        let mut pit = Pit::new();
        let at = |pulse| Time::of_tick(pulse, FREQUENCY);
        pit.write(3, control, at(0));
        pit.write(0, 0, at(0));
        pit.write(0, 0, at(0));
        pit.advance(at(1));
        assert_eq!(pit.next_event(), Some(at(1 + count)));
        assert_eq!([pit.read(0, at(2)), pit.read(0, at(2))], after_one);
        assert!(pit.out(0));
        pit.advance(at(count));
        assert!(!pit.out(0));
    }
}

#[test]
fn a_count_of_one_gives_no_edges() {
    for control in [0x14, 0x16] {
        let mut pit = Pit::new();
        pit.write(3, control, Time(0));
        pit.write(0, 1, Time(0));
        pit.advance(Time(1_000_000));
        assert_eq!(pit.next_event(), None);
        assert_eq!(pit.take_irq_edges(), 0);
    }
}

#[test]
fn a_control_word_forgets_half_accesses_and_latches() {
    let mut pit = Pit::new();
    let at = |pulse| Time::of_tick(pulse, FREQUENCY);
    pit.write(3, 0x34, at(0));
    pit.write(0, 0x11, at(0));
    pit.write(0, 0x11, at(0));
    pit.write(3, 0xc2, at(2)); // Latch both,
    pit.read(0, at(2)); // read one,
    pit.write(0, 0x99, at(2)); // write one.
    pit.write(3, 0xe2, at(2));
    pit.write(3, 0x30, at(2));
    pit.write(0, 0x34, at(2));
    pit.write(0, 0x12, at(2));
    assert_eq!([pit.read(0, at(3)), pit.read(0, at(3))], [0x34, 0x12]);
    pit.read(0, at(3)); // Half of a count.
    pit.write(3, 0x30, at(3));
    pit.write(0, 0x78, at(3));
    pit.write(0, 0x56, at(3));
    assert_eq!([pit.read(0, at(4)), pit.read(0, at(4))], [0x78, 0x56]);
}

#[test]
fn control_word_reads_as_nothing() {
    assert_eq!(Pit::new().read(3, Time::ZERO), 0xff);
}
