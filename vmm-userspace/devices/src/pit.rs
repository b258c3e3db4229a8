//! 8254 programmable interval timer (82C54 datasheet): three counters at 1.193182 MHz.
//!
//! Counter 0 drives IRQ 0, counter 1 the memory refresh of old machines, counter 2 the speaker;
//! its gate is set through [`crate::port61`].

mod counter;

use counter::Counter;
use serde::{Deserialize, Serialize};

use crate::time::Time;

/// Frequency of the CLK inputs in hertz: a third of the colour burst frequency, rounded.
pub const FREQUENCY: u64 = 1_193_182;

/// First I/O port; the device has four.
pub const PORT: u16 = 0x40;

/// The three counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pit {
    counters: [Counter; 3],
}

impl Default for Pit {
    fn default() -> Self {
        Self::new()
    }
}

impl Pit {
    /// After power-on: nothing counts, all outputs are high, the gate of counter 2 is low. On a PC
    /// the firmware programs counter 0 (control word 0x36, count 0) before an operating system
    /// sees it.
    #[must_use]
    pub fn new() -> Self {
        Self { counters: [Counter::new(true), Counter::new(true), Counter::new(false)] }
    }

    /// Back to the state of power-on.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// Reads a counter (offset 0 to 2); the control word (3) cannot be read.
    pub fn read(&mut self, offset: u16, now: Time) -> u8 {
        self.advance(now);
        match self.counters.get_mut(usize::from(offset & 3)) {
            Some(counter) => counter.read(),
            None => 0xff,
        }
    }

    /// Writes a byte of a count (offset 0 to 2) or the control word (3).
    pub fn write(&mut self, offset: u16, value: u8, now: Time) {
        self.advance(now);
        match self.counters.get_mut(usize::from(offset & 3)) {
            Some(counter) => counter.write(value),
            None => self.write_control(value),
        }
    }

    /// Level of the output of `counter` (0 to 2) as of the last call with a time.
    #[must_use]
    pub fn out(&self, counter: usize) -> bool {
        self.counters.get(counter).is_some_and(Counter::out)
    }

    /// Level of the gate input of counter 2.
    #[must_use]
    pub fn gate2(&self) -> bool {
        self.counters[2].gate()
    }

    /// Sets the gate input of counter 2. The other gates are tied high on a PC.
    pub fn set_gate2(&mut self, gate: bool, now: Time) {
        self.advance(now);
        self.counters[2].set_gate(gate);
    }

    /// How many times IRQ 0 (the output of counter 0) has gone from low to high since the last
    /// call. The level alone is not enough: in mode 2 it is low for one pulse only.
    pub fn take_irq_edges(&mut self) -> u64 {
        self.counters[0].take_rises()
    }

    /// Brings all counters up to `now`.
    pub fn advance(&mut self, now: Time) {
        let pulse = now.ticks(FREQUENCY);
        for counter in &mut self.counters {
            counter.advance(pulse);
        }
    }

    /// When IRQ 0 next rises. (Falling edges are not announced; the level is right after any call
    /// with a time.)
    #[must_use]
    pub fn next_event(&self) -> Option<Time> {
        self.counters[0].next_rise().map(|pulse| Time::of_tick(pulse, FREQUENCY))
    }

    fn write_control(&mut self, value: u8) {
        let selected = value >> 6;
        if selected == 3 {
            self.read_back(value);
            return;
        }
        let counter = &mut self.counters[usize::from(selected)];
        if value & 0x30 == 0 {
            counter.latch_count();
        } else {
            counter.set_mode(value);
        }
    }

    /// Read-back command: latches count (bit 5 clear) and status (bit 4 clear) of the counters
    /// whose bits 3:1 are set.
    fn read_back(&mut self, value: u8) {
        for (i, counter) in self.counters.iter_mut().enumerate() {
            if value & 2 << i == 0 {
                continue;
            }
            if value & 0x20 == 0 {
                counter.latch_count();
            }
            if value & 0x10 == 0 {
                counter.latch_status();
            }
        }
    }
}
