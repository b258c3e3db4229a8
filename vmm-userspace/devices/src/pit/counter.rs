//! One of the three counters: the counting element with its six modes, and the registers through
//! which it is loaded and read (82C54 datasheet, "Mode Definitions").
//!
//! Time is the number of the CLK pulse. A written count reaches the counting element with the next
//! pulse, as does a trigger; from then on the state follows from the number of pulses counted.

use serde::{Deserialize, Serialize};

/// How many CLK pulses a write or trigger takes to reach the counting element.
const LOAD_DELAY: u64 = 1;

/// The bytes of a count that an access moves: bits 5:4 of the control word.
const LOW_BYTE: u8 = 1;
const HIGH_BYTE: u8 = 2;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counter {
    /// Bits 5:0 of the control word, as written.
    control: u8,
    /// Count register, as written.
    count: u16,
    /// A whole count was written since the control word.
    count_written: bool,
    /// The count register holds a count that the counting element has not taken.
    null_count: bool,
    /// First byte of a two-byte write.
    low_written: Option<u8>,
    /// The next read of a two-byte count gives the high byte.
    high_next: bool,
    count_latch: Option<u16>,
    status_latch: Option<u8>,
    gate: bool,
    /// Pulses from one load to the end of the count, 1 to 65536.
    period: u32,
    /// Pulses counted since the load; in the periodic modes, within the period.
    elapsed: u64,
    /// The counting element was loaded since the control word or, in mode 0, the last count.
    loaded: bool,
    /// Modes 2 and 3: the gate went low; the output stays high until the next load.
    halted: bool,
    /// The pulse with which the counting element is loaded.
    load_at: Option<u64>,
    /// The pulse up to which all this is computed.
    at: u64,
    /// Rising edges of the output not yet taken.
    rises: u64,
}

impl Counter {
    /// After power-on, which the datasheet leaves undefined: mode 3 without a count, output high.
    pub(super) fn new(gate: bool) -> Self {
        Self {
            control: 0x36,
            count: 0,
            count_written: false,
            null_count: true,
            low_written: None,
            high_next: false,
            count_latch: None,
            status_latch: None,
            gate,
            period: 65_536,
            elapsed: 0,
            loaded: false,
            halted: false,
            load_at: None,
            at: 0,
            rises: 0,
        }
    }

    /// Mode 0 to 5; the codes 6 and 7 are other names of 2 and 3.
    fn mode(&self) -> u8 {
        match self.control >> 1 & 7 {
            mode @ 6.. => mode - 4,
            mode => mode,
        }
    }

    fn periodic(&self) -> bool {
        matches!(self.mode(), 2 | 3)
    }

    /// Modes that start with the rising edge of the gate, and do not care for its level.
    fn triggered(&self) -> bool {
        matches!(self.mode(), 1 | 5)
    }

    fn access(&self) -> u8 {
        self.control >> 4 & 3
    }

    fn bcd(&self) -> bool {
        self.control & 1 != 0
    }

    /// What the count register stands for in pulses: zero is the largest count.
    fn programmed_period(&self) -> u32 {
        let count = u32::from(self.count);
        if !self.bcd() {
            return if count == 0 { 65_536 } else { count };
        }
        let digits = [12, 8, 4, 0].map(|shift| count >> shift & 0xf);
        match digits.iter().fold(0, |sum, digit| sum * 10 + digit) {
            0 => 10_000,
            count => count,
        }
    }

    /// Level of the output.
    pub(super) fn out(&self) -> bool {
        let expired = self.loaded && self.elapsed >= u64::from(self.period);
        match self.mode() {
            0 => expired,
            1 => !self.loaded || expired,
            2 => !self.loaded || self.halted || self.elapsed + 1 != u64::from(self.period),
            3 => !self.loaded || self.halted || self.elapsed < self.high_half(),
            _ => !self.loaded || self.elapsed != u64::from(self.period),
        }
    }

    /// Mode 3: pulses for which the output is high; one more than low if the count is odd.
    fn high_half(&self) -> u64 {
        u64::from(self.period.div_ceil(2))
    }

    pub(super) fn take_rises(&mut self) -> u64 {
        core::mem::take(&mut self.rises)
    }

    /// Computes the state after the pulse `to`.
    pub(super) fn advance(&mut self, to: u64) {
        if let Some(load) = self.load_at.filter(|&load| load <= to) {
            // Nothing is counted before: the load is due with the pulse after the one it came in.
            self.at = load;
            let was = self.out();
            self.load();
            self.note_rise(was);
        }
        self.count_pulses(to.saturating_sub(self.at));
        self.at = self.at.max(to);
    }

    fn load(&mut self) {
        self.load_at = None;
        self.period = self.programmed_period();
        self.elapsed = 0;
        self.loaded = true;
        self.halted = false;
        self.null_count = false;
    }

    fn counting(&self) -> bool {
        self.loaded && !self.halted && (self.gate || self.triggered())
    }

    /// Lets `pulses` pass, between which nothing changes from outside.
    fn count_pulses(&mut self, pulses: u64) {
        if pulses == 0 || !self.counting() {
            return;
        }
        let (before, after) = (self.elapsed, self.elapsed.saturating_add(pulses));
        if self.periodic() {
            self.count_periodic(after);
            return;
        }
        self.elapsed = after;
        // Modes 0 and 1 rise when the count is over, the strobes of 4 and 5 one pulse later.
        let rise = u64::from(self.period) + u64::from(self.mode() >= 4);
        self.rises += u64::from(before < rise && after >= rise);
    }

    /// Modes 2 and 3 up to `end` pulses after the last load. A count written in the meantime is
    /// taken at the end of the period (mode 2) or of the half-period (mode 3).
    fn count_periodic(&mut self, mut end: u64) {
        let half = self.high_half();
        let first_half = self.mode() == 3 && self.elapsed < half;
        let boundary = if first_half { half } else { u64::from(self.period) };
        if self.null_count && end >= boundary {
            self.rises += u64::from(!first_half && self.period > 1);
            self.period = self.programmed_period();
            self.null_count = false;
            end = end - boundary + if first_half { self.high_half() } else { 0 };
        }
        // A count of one is not allowed; it gives a constant output.
        if self.period > 1 {
            self.rises = self.rises.saturating_add(end / u64::from(self.period));
        }
        self.elapsed = end % u64::from(self.period.max(1));
    }

    /// The pulse with which the output rises, if nothing changes from outside.
    pub(super) fn next_rise(&self) -> Option<u64> {
        if let Some(load) = self.load_at {
            // The load itself may raise the output; what follows is told after it.
            let mut loaded = self.clone();
            loaded.advance(load);
            return if loaded.rises > self.rises { Some(load) } else { loaded.next_rise() };
        }
        if !self.counting() {
            return None;
        }
        let rise = u64::from(self.period) + u64::from(self.mode() >= 4);
        let rise = match self.mode() {
            2 | 3 if self.period == 1 && !self.null_count => return None,
            // The new count, which may shift the rise, is taken in the middle of the period.
            3 if self.null_count && self.elapsed < self.high_half() => {
                self.high_half() + u64::from(self.programmed_period() / 2)
            }
            2 | 3 => u64::from(self.period),
            _ => rise,
        };
        (rise > self.elapsed).then(|| self.at.saturating_add(rise - self.elapsed))
    }

    fn note_rise(&mut self, was: bool) {
        self.rises += u64::from(!was && self.out());
    }

    /// Control word for this counter: a new mode, without a count.
    pub(super) fn set_mode(&mut self, control: u8) {
        let was = self.out();
        self.control = control & 0x3f;
        self.count = 0;
        self.count_written = false;
        self.null_count = true;
        self.low_written = None;
        self.high_next = false;
        self.count_latch = None;
        self.status_latch = None;
        self.loaded = false;
        self.halted = false;
        self.load_at = None;
        self.note_rise(was);
    }

    /// Guest writes a byte of the count.
    pub(super) fn write(&mut self, value: u8) {
        let count = match (self.access(), self.low_written.take()) {
            (LOW_BYTE, _) => u16::from(value),
            (HIGH_BYTE, _) => u16::from(value) << 8,
            (_, Some(low)) => u16::from_le_bytes([low, value]),
            (_, None) => {
                self.low_written = Some(value);
                if self.mode() == 0 {
                    self.stop_mode_0();
                }
                return;
            }
        };
        self.count = count;
        self.null_count = true;
        let first = !self.count_written;
        self.count_written = true;
        match self.mode() {
            0 => {
                self.stop_mode_0();
                self.load_at = Some(self.at + LOAD_DELAY);
            }
            4 => self.load_at = Some(self.at + LOAD_DELAY),
            2 | 3 if first => self.load_at = Some(self.at + LOAD_DELAY),
            _ => {} // Waits for the end of the period, or for a trigger.
        }
    }

    /// Mode 0: a write of the count, or of its first half, stops counting and clears the output.
    fn stop_mode_0(&mut self) {
        self.loaded = false;
        self.load_at = None;
    }

    pub(super) fn gate(&self) -> bool {
        self.gate
    }

    pub(super) fn set_gate(&mut self, gate: bool) {
        if self.gate == gate {
            return;
        }
        let was = self.out();
        self.gate = gate;
        let edge_matters = self.triggered() || self.periodic();
        if gate && edge_matters && self.count_written {
            self.load_at = Some(self.at + LOAD_DELAY);
        } else if !gate && self.periodic() {
            self.halted = true;
        }
        self.note_rise(was);
    }

    /// Content of the counting element, as the guest sees it.
    fn value(&self) -> u16 {
        let modulus = if self.bcd() { 10_000 } else { 65_536 };
        let period = u64::from(self.period);
        let left = if self.mode() == 3 && self.loaded {
            // Counts by two, once through each half; an odd count starts at the even below.
            let half = self.high_half();
            let in_half = self.elapsed.checked_sub(half).unwrap_or(self.elapsed);
            (period & !1).saturating_sub(2 * in_half)
        } else {
            period + modulus - self.elapsed % modulus
        };
        let left = (left % modulus) as u16;
        if !self.bcd() {
            return left;
        }
        [1000, 100, 10, 1].iter().fold(0, |bcd, unit| (bcd << 4) | (left / unit % 10))
    }

    /// Counter latch command: holds the count until it has been read.
    pub(super) fn latch_count(&mut self) {
        if self.count_latch.is_none() {
            self.count_latch = Some(self.value());
        }
    }

    /// Read-back command: holds the status until it has been read.
    pub(super) fn latch_status(&mut self) {
        if self.status_latch.is_none() {
            let out = u8::from(self.out()) << 7;
            self.status_latch = Some(out | u8::from(self.null_count) << 6 | self.control);
        }
    }

    /// Guest reads: the latched status, then the latched count, else the count as it is.
    pub(super) fn read(&mut self) -> u8 {
        if let Some(status) = self.status_latch.take() {
            return status;
        }
        let [low, high] = self.count_latch.unwrap_or_else(|| self.value()).to_le_bytes();
        let (byte, last) = match self.access() {
            LOW_BYTE => (low, true),
            HIGH_BYTE => (high, true),
            _ => {
                self.high_next = !self.high_next;
                if self.high_next { (low, false) } else { (high, true) }
            }
        };
        if last {
            self.count_latch = None;
        }
        byte
    }
}
