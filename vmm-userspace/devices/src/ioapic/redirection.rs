//! An entry of the I/O redirection table (82093AA data sheet, IOREDTBL).

use serde::{Deserialize, Serialize};

use crate::lapic::{DeliveryMode, DestinationMode, Message, TriggerMode, widen_destination};

const DELIVERY_STATUS: u32 = 1 << 12;
const ACTIVE_LOW: u32 = 1 << 13;
const REMOTE_IRR: u32 = 1 << 14;
const LEVEL: u32 = 1 << 15;
const MASK: u32 = 1 << 16;
/// Vector, delivery mode, destination mode, polarity, trigger mode and mask; the status bits 12 and
/// 14 are read-only, the rest is reserved.
const LOW_WRITABLE: u32 = 0xfff | ACTIVE_LOW | LEVEL | MASK;
/// The destination; the rest is reserved.
const HIGH_WRITABLE: u32 = 0xff00_0000;

/// A redirection entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Redirection {
    /// Bits 31:0 without the delivery status.
    low: u32,
    /// Bits 63:32.
    high: u32,
}

impl Redirection {
    /// The state at reset.
    pub(super) const MASKED: Self = Self { low: MASK, high: 0 };

    /// Bits 31:0, with the delivery status of a pin with these inputs (see [`Self::is_due`]).
    pub(super) fn low(self, high: bool, edge: bool) -> u32 {
        if self.is_due(high, edge) { self.low | DELIVERY_STATUS } else { self.low }
    }

    pub(super) const fn high(self) -> u32 {
        self.high
    }

    pub(super) fn write_low(&mut self, value: u32) {
        self.low = self.low & !LOW_WRITABLE | value & LOW_WRITABLE;
        // Remote IRR has a meaning for level mode only. Systems that drive I/O APICs without an EOI
        // register rely on a detour through edge mode to clear it.
        if self.low & LEVEL == 0 {
            self.low &= !REMOTE_IRR;
        }
    }

    pub(super) fn write_high(&mut self, value: u32) {
        self.high = value & HIGH_WRITABLE;
    }

    pub(super) const fn is_masked(self) -> bool {
        self.low & MASK != 0
    }

    /// Whether a line at electrical level `high` asks for an interrupt.
    pub(super) const fn is_active(self, high: bool) -> bool {
        high != (self.low & ACTIVE_LOW != 0)
    }

    /// Whether the pin is handled by level. SMI, NMI, INIT and ExtINT are always edges (82093AA,
    /// "Delivery Mode").
    pub(super) fn is_level(self) -> bool {
        self.low & LEVEL != 0
            && DeliveryMode::from_entry(self.low).is_some_and(DeliveryMode::has_vector)
    }

    /// Whether the pin has a message to send, given its line's level and whether an edge waits.
    pub(super) fn is_due(self, high: bool, edge: bool) -> bool {
        if self.is_level() {
            self.is_active(high) && self.low & (MASK | REMOTE_IRR) == 0
        } else {
            edge
        }
    }

    /// Notes that a local APIC has accepted the level-triggered message.
    pub(super) fn set_remote_irr(&mut self) {
        self.low |= REMOTE_IRR;
    }

    pub(super) fn end_of_interrupt(&mut self, vector: u8) {
        if self.low & LEVEL != 0 && self.low as u8 == vector {
            self.low &= !REMOTE_IRR;
        }
    }

    /// The message that the entry sends; `None` if its delivery mode is reserved.
    pub(super) fn message(self) -> Option<Message> {
        Some(Message {
            destination: widen_destination((self.high >> 24) as u8),
            destination_mode: DestinationMode::from_bits(self.low),
            delivery_mode: DeliveryMode::from_entry(self.low)?,
            vector: self.low as u8,
            trigger: if self.is_level() { TriggerMode::Level } else { TriggerMode::Edge },
        })
    }
}
