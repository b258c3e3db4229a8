//! One 8259A. Section titles in comments are those of the 8259A data sheet (231468).

use serde::{Deserialize, Serialize};

// ICW1
const ICW1: u8 = 1 << 4;
const ICW1_NEEDS_ICW4: u8 = 1 << 0;
const ICW1_SINGLE: u8 = 1 << 1;
const ICW1_INTERVAL_4: u8 = 1 << 2;
// ICW4
const ICW4_8086: u8 = 1 << 0;
const ICW4_AUTO_EOI: u8 = 1 << 1;
const ICW4_SPECIAL_FULLY_NESTED: u8 = 1 << 4;
// OCW3
const OCW3: u8 = 1 << 3;
const OCW3_SELECT_ISR: u8 = 1 << 0;
const OCW3_SELECT: u8 = 1 << 1;
const OCW3_POLL: u8 = 1 << 2;
const OCW3_SPECIAL_MASK: u8 = 1 << 5;
const OCW3_SET_SPECIAL_MASK: u8 = 1 << 6;

/// Bit 7 of the poll answer: there is a request.
const POLL_REQUEST: u8 = 1 << 7;

/// What the SP/EN pin is strapped to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Role {
    Master,
    Slave,
}

/// What the next write with A0 = 1 means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Expect {
    /// OCW1, but ICW1 has never been written.
    PowerOn,
    Icw2,
    Icw3,
    Icw4,
    Ocw1,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Chip {
    role: Role,
    /// Levels of the IR inputs.
    lines: u8,
    /// Edges seen on inputs in edge mode and not yet acknowledged.
    edges: u8,
    level_triggered: u8,
    imr: u8,
    isr: u8,
    /// The level with the lowest priority; the one above it (modulo 8) has the highest.
    lowest: u8,
    expect: Expect,
    icw1: u8,
    icw2: u8,
    icw3: u8,
    icw4: u8,
    rotate_in_auto_eoi: bool,
    special_mask: bool,
    poll: bool,
    read_isr: bool,
}

const fn bit(level: u8) -> u8 {
    1 << (level & 7)
}

impl Chip {
    pub(super) const fn new(role: Role) -> Self {
        Self {
            role,
            lines: 0,
            edges: 0,
            level_triggered: 0,
            imr: 0,
            isr: 0,
            lowest: 7,
            expect: Expect::PowerOn,
            icw1: 0,
            icw2: 0,
            icw3: 0,
            icw4: 0,
            rotate_in_auto_eoi: false,
            special_mask: false,
            poll: false,
            read_isr: false,
        }
    }

    pub(super) fn reset(&mut self) {
        *self = Self { lines: self.lines, ..Self::new(self.role) };
    }

    pub(super) fn set_line(&mut self, level: u8, high: bool) {
        let bit = bit(level);
        if high {
            self.edges |= bit & !self.lines & !self.level_triggered;
            self.lines |= bit;
        } else {
            // An input must stay high until the acknowledge in both trigger modes, else the request
            // is withdrawn.
            self.edges &= !bit;
            self.lines &= !bit;
        }
    }

    pub(super) const fn level_triggered(&self) -> u8 {
        self.level_triggered
    }

    pub(super) fn set_level_triggered(&mut self, inputs: u8) {
        self.level_triggered = inputs;
        self.edges &= !inputs;
    }

    /// Contents of the interrupt request register.
    const fn irr(&self) -> u8 {
        self.edges | (self.lines & self.level_triggered)
    }

    const fn is_single(&self) -> bool {
        self.icw1 & ICW1_SINGLE != 0
    }

    /// Whether ICW3 says that a slave hangs on input `level`.
    pub(super) fn is_cascade_input(&self, level: u8) -> bool {
        self.role == Role::Master && !self.is_single() && self.icw3 & bit(level) != 0
    }

    /// The identification that ICW3 gave to a slave.
    pub(super) const fn slave_id(&self) -> u8 {
        self.icw3 & 7
    }

    /// Levels from the highest to the lowest priority.
    fn by_priority(&self) -> impl Iterator<Item = u8> + use<> {
        let lowest = self.lowest;
        (1..=8).map(move |n| (lowest + n) & 7)
    }

    /// In-service levels that count. In special mask mode a masked level in service neither holds
    /// back others nor is ended by a non-specific EOI ("Special Mask Mode", "End of Interrupt").
    const fn counted_isr(&self) -> u8 {
        if self.special_mask { self.isr & !self.imr } else { self.isr }
    }

    /// The request that the priority resolver lets through to INT.
    pub(super) fn highest_request(&self) -> Option<u8> {
        // "Initialization sequence": no request is served before the last ICW.
        if self.expect != Expect::Ocw1 {
            return None;
        }
        let requests = self.irr() & !self.imr;
        if requests == 0 {
            return None;
        }
        let in_service = self.counted_isr();
        for level in self.by_priority() {
            let requested = requests & bit(level) != 0;
            if in_service & bit(level) != 0 {
                // "Special Fully Nested Mode": a slave in service is not locked out itself, as its
                // next request can only be of higher priority within the slave.
                let again = requested
                    && self.icw4 & ICW4_SPECIAL_FULLY_NESTED != 0
                    && self.is_cascade_input(level);
                return again.then_some(level);
            }
            if requested {
                return Some(level);
            }
        }
        None
    }

    /// The acknowledge cycle for a level that [`Chip::highest_request`] gave.
    pub(super) fn acknowledge(&mut self, level: u8) {
        self.edges &= !bit(level);
        if self.icw4 & ICW4_AUTO_EOI == 0 {
            self.isr |= bit(level);
        } else if self.rotate_in_auto_eoi {
            self.lowest = level & 7;
        }
    }

    /// The byte put on the data bus in the CPU's second acknowledge pulse.
    pub(super) const fn vector(&self, level: u8) -> u8 {
        let level = level & 7;
        if self.icw4 & ICW4_8086 != 0 {
            self.icw2 & 0xf8 | level
        } else if self.icw1 & ICW1_INTERVAL_4 != 0 {
            // MCS-80/85 mode: the second pulse fetches the low byte of a CALL's address, with
            // A7..A5 (or A7, A6) from ICW1.
            self.icw1 & 0xe0 | level << 2
        } else {
            self.icw1 & 0xc0 | level << 3
        }
    }

    /// If OCW3 asked for a poll, this read is it: an acknowledge that gives the level.
    pub(super) fn take_poll(&mut self) -> Option<u8> {
        if !self.poll {
            return None;
        }
        self.poll = false;
        Some(match self.highest_request() {
            Some(level) => {
                self.acknowledge(level);
                POLL_REQUEST | level
            }
            None => 0,
        })
    }

    pub(super) const fn read(&self, a0: bool) -> u8 {
        match (a0, self.read_isr) {
            (true, _) => self.imr,
            (false, true) => self.isr,
            (false, false) => self.irr(),
        }
    }

    /// Write with A0 = 0. Tells whether it was ICW1, which restarts the chip.
    pub(super) fn write_command(&mut self, value: u8) -> bool {
        if value & ICW1 != 0 {
            self.write_icw1(value);
            return true;
        }
        if value & OCW3 != 0 {
            self.write_ocw3(value);
        } else {
            self.write_ocw2(value);
        }
        false
    }

    /// Write with A0 = 1.
    pub(super) fn write_data(&mut self, value: u8) {
        let after_icw3 = if self.icw1 & ICW1_NEEDS_ICW4 != 0 { Expect::Icw4 } else { Expect::Ocw1 };
        match self.expect {
            Expect::PowerOn | Expect::Ocw1 => self.imr = value,
            Expect::Icw2 => {
                self.icw2 = value;
                self.expect = if self.is_single() { after_icw3 } else { Expect::Icw3 };
            }
            Expect::Icw3 => {
                self.icw3 = value;
                self.expect = after_icw3;
            }
            Expect::Icw4 => {
                self.icw4 = value;
                self.expect = Expect::Ocw1;
            }
        }
    }

    /// "Initialization Command Words": what ICW1 does by itself.
    fn write_icw1(&mut self, value: u8) {
        *self = Self {
            lines: self.lines,
            level_triggered: self.level_triggered,
            icw1: value,
            expect: Expect::Icw2,
            ..Self::new(self.role)
        };
    }

    fn write_ocw2(&mut self, value: u8) {
        let rotate = value & 1 << 7 != 0;
        let specific = value & 1 << 6 != 0;
        let end_of_interrupt = value & 1 << 5 != 0;
        let level = value & 7;
        match (end_of_interrupt, specific) {
            (true, false) => {
                let isr = self.counted_isr();
                if let Some(level) = self.by_priority().find(|&level| isr & bit(level) != 0) {
                    self.end(level, rotate);
                }
            }
            (true, true) => self.end(level, rotate),
            (false, false) => self.rotate_in_auto_eoi = rotate,
            // "Set priority"; without the rotate bit it is no operation.
            (false, true) if rotate => self.lowest = level,
            (false, true) => {}
        }
    }

    fn end(&mut self, level: u8, rotate: bool) {
        self.isr &= !bit(level);
        if rotate {
            self.lowest = level;
        }
    }

    fn write_ocw3(&mut self, value: u8) {
        if value & OCW3_SET_SPECIAL_MASK != 0 {
            self.special_mask = value & OCW3_SPECIAL_MASK != 0;
        }
        if value & OCW3_POLL != 0 {
            self.poll = true;
        } else if value & OCW3_SELECT != 0 {
            self.read_isr = value & OCW3_SELECT_ISR != 0;
        }
    }
}
