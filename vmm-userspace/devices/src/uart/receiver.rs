//! The receiving side: FIFO with an error mark per character, trigger level, character time-out,
//! and the pace of the line.

use serde::{Deserialize, Serialize};

use super::registers::{LSR_BREAK, LSR_DATA, LSR_FIFO_ERROR, LSR_OVERRUN};
use crate::ring::Ring;
use crate::time::Time;

/// Depth of the FIFO, in characters.
pub(super) const DEPTH: usize = 16;

/// A time-out is due when nothing came and nothing was read for this many character times.
const TIMEOUT_CHARACTERS: u64 = 4;

/// A character and the line-status bits that belong to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Character {
    byte: u8,
    errors: u8,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Receiver {
    fifo: Ring<Character, DEPTH>,
    fifo_enabled: bool,
    trigger: u8,
    /// What the buffer register shows when no character waits.
    last: u8,
    /// Error bits of the line-status register, until it is read.
    errors: u8,
    /// When the character that came last was complete at the line's speed.
    line_at: Time,
    /// Last arrival or read, from which the time-out counts.
    touched: Time,
    timed_out: bool,
    character_ns: u64,
    /// Characters that the guest has read.
    taken: u64,
}

impl Receiver {
    pub(super) fn new(character_ns: u64) -> Self {
        Self {
            fifo: Ring::new(),
            fifo_enabled: false,
            trigger: 1,
            last: 0,
            errors: 0,
            line_at: Time::ZERO,
            touched: Time::ZERO,
            timed_out: false,
            character_ns,
            taken: 0,
        }
    }

    pub(super) fn set_character_time(&mut self, ns: u64) {
        self.character_ns = ns.max(1);
    }

    pub(super) fn fifo_enabled(&self) -> bool {
        self.fifo_enabled
    }

    /// Switching between FIFO and single-character mode empties the FIFO.
    pub(super) fn set_fifo(&mut self, enabled: bool) {
        if self.fifo_enabled != enabled {
            self.fifo_enabled = enabled;
            self.trigger = 1;
            self.clear();
        }
    }

    pub(super) fn set_trigger(&mut self, characters: u8) {
        self.trigger = characters;
    }

    pub(super) fn clear(&mut self) {
        self.fifo.clear();
        self.timed_out = false;
    }

    /// Characters that the guest has read, and those that wait for it. What is neither was cleared away.
    pub(super) fn fate(&self) -> (u64, usize) {
        (self.taken, self.fifo.len())
    }

    fn capacity(&self) -> usize {
        if self.fifo_enabled { DEPTH } else { 1 }
    }

    fn room(&self) -> usize {
        self.capacity().saturating_sub(self.fifo.len())
    }

    /// Characters that the line could have brought by `now` and that fit.
    pub(super) fn room_at(&self, now: Time) -> usize {
        let by_line = now.since(self.line_at) / self.character_ns.max(1);
        self.room().min(by_line.min(DEPTH as u64) as usize)
    }

    /// When [`Receiver::room_at`] is next above zero, if the guest does nothing.
    pub(super) fn next_room(&self, now: Time) -> Option<Time> {
        (self.room() > 0).then(|| now.max(self.line_at + self.character_ns))
    }

    /// A character arrives, with the line-status bits `errors`.
    pub(super) fn receive(&mut self, byte: u8, errors: u8, now: Time) {
        // The line may be late by as much as the FIFO holds: an owner that looks rarely still
        // reaches the full rate, and never more than a FIFO at once.
        let earliest = Time(now.0.saturating_sub(self.character_ns.saturating_mul(DEPTH as u64)));
        self.line_at = self.line_at.max(earliest) + self.character_ns;
        self.store(byte, errors, now);
    }

    /// As [`Receiver::receive`], but from the chip's own transmitter: at no pace.
    pub(super) fn store(&mut self, byte: u8, errors: u8, now: Time) {
        self.touched = now;
        if self.room() == 0 {
            self.errors |= LSR_OVERRUN;
            if self.fifo_enabled {
                return; // The character is lost in the shift register, the FIFO stays as it is.
            }
            self.fifo.clear(); // Without FIFO the new character replaces the old one.
        }
        self.fifo.push(Character { byte, errors });
        self.reveal_errors();
    }

    /// The errors of a character show in the line status when it is the next to be read.
    fn reveal_errors(&mut self) {
        if let Some(first) = self.fifo.first() {
            self.errors |= first.errors;
        }
    }

    /// Guest reads the receiver buffer.
    pub(super) fn read(&mut self, now: Time) -> u8 {
        self.touched = now;
        self.timed_out = false;
        if let Some(character) = self.fifo.pop() {
            self.last = character.byte;
            self.taken = self.taken.wrapping_add(1);
            self.reveal_errors();
        }
        self.last
    }

    /// The receiver's bits of the line status register.
    pub(super) fn status(&self) -> u8 {
        let mut status = self.errors;
        if !self.fifo.is_empty() {
            status |= LSR_DATA;
        }
        if self.fifo_enabled && self.fifo.iter().any(|c| c.errors != 0) {
            status |= LSR_FIFO_ERROR;
        }
        status
    }

    /// Guest reads the line status register, which clears the errors it shows.
    pub(super) fn read_status(&mut self) -> u8 {
        let status = self.status();
        self.errors = 0;
        if let Some(first) = self.fifo.first_mut() {
            first.errors = 0;
        }
        status
    }

    pub(super) fn receive_break(&mut self, now: Time) {
        self.receive(0, LSR_BREAK, now);
    }

    pub(super) fn has_errors(&self) -> bool {
        self.errors != 0
    }

    /// Enough characters for the received-data interrupt.
    pub(super) fn triggered(&self) -> bool {
        self.fifo.len() >= usize::from(self.trigger)
    }

    pub(super) fn timed_out(&self) -> bool {
        self.timed_out
    }

    pub(super) fn advance(&mut self, now: Time) {
        if self.timeout_at().is_some_and(|at| at <= now) {
            self.timed_out = true;
        }
    }

    /// When the character time-out is due.
    pub(super) fn timeout_at(&self) -> Option<Time> {
        let waits = self.fifo_enabled && !self.fifo.is_empty() && !self.timed_out;
        waits.then(|| self.touched + self.character_ns.saturating_mul(TIMEOUT_CHARACTERS))
    }
}
