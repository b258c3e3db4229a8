//! The local vector table (SDM 3A 11.5.1).

use serde::{Deserialize, Serialize};

use super::message::DeliveryMode;
use super::registers;
use super::timer::TimerMode;

const ACTIVE_LOW: u32 = 1 << 13;
const REMOTE_IRR: u32 = 1 << 14;
const LEVEL: u32 = 1 << 15;
const MASK: u32 = 1 << 16;

/// A local interrupt pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lint {
    /// LINT0: on a PC, the 8259's INTR.
    Lint0,
    /// LINT1: on a PC, NMI.
    Lint1,
}

/// An event inside the processor that has an entry in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessorEvent {
    /// The thermal sensor tripped.
    Thermal,
    /// A performance counter overflowed.
    Performance,
    /// The count of corrected machine checks reached its threshold.
    CorrectedMachineCheck,
}

/// An entry of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry(u32);

impl Entry {
    const RESET: Self = Self(MASK);

    pub(super) const fn bits(self) -> u32 {
        self.0
    }

    pub(super) const fn vector(self) -> u8 {
        self.0 as u8
    }

    pub(super) const fn is_masked(self) -> bool {
        self.0 & MASK != 0
    }

    pub(super) fn mask(&mut self) {
        self.0 |= MASK;
    }

    pub(super) const fn delivery_mode(self) -> Option<DeliveryMode> {
        DeliveryMode::from_entry(self.0)
    }

    pub(super) const fn timer_mode(self) -> TimerMode {
        TimerMode::from_entry(self.0)
    }

    /// Whether the pin is sampled by level: only in fixed mode, as the other modes fix the trigger
    /// mode themselves.
    pub(super) fn is_level(self) -> bool {
        self.0 & LEVEL != 0 && self.delivery_mode() == Some(DeliveryMode::Fixed)
    }

    /// Whether a pin at electrical level `high` is active.
    pub(super) const fn is_active(self, high: bool) -> bool {
        high != (self.0 & ACTIVE_LOW != 0)
    }

    pub(super) const fn remote_irr(self) -> bool {
        self.0 & REMOTE_IRR != 0
    }

    pub(super) fn set_remote_irr(&mut self, value: bool) {
        if value {
            self.0 |= REMOTE_IRR;
        } else {
            self.0 &= !REMOTE_IRR;
        }
    }

    /// Replaces all but the Remote IRR flag, which has a meaning in level mode only.
    pub(super) fn write(&mut self, writable: u32) {
        let remote_irr = self.0 & REMOTE_IRR;
        self.0 = writable;
        if self.is_level() {
            self.0 |= remote_irr;
        }
    }
}

/// The table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lvt {
    pub(super) cmci: Entry,
    pub(super) timer: Entry,
    pub(super) thermal: Entry,
    pub(super) performance: Entry,
    pub(super) lint0: Entry,
    pub(super) lint1: Entry,
    pub(super) error: Entry,
}

impl Lvt {
    /// All masked (SDM 3A 11.4.7.1).
    pub(super) const RESET: Self = Self {
        cmci: Entry::RESET,
        timer: Entry::RESET,
        thermal: Entry::RESET,
        performance: Entry::RESET,
        lint0: Entry::RESET,
        lint1: Entry::RESET,
        error: Entry::RESET,
    };

    pub(super) const fn lint(&self, pin: Lint) -> Entry {
        match pin {
            Lint::Lint0 => self.lint0,
            Lint::Lint1 => self.lint1,
        }
    }

    /// The entry behind a register number.
    pub(super) fn entry(&mut self, register: u8) -> Option<&mut Entry> {
        match register {
            registers::LVT_CMCI => Some(&mut self.cmci),
            registers::LVT_TIMER => Some(&mut self.timer),
            registers::LVT_THERMAL => Some(&mut self.thermal),
            registers::LVT_PERFORMANCE => Some(&mut self.performance),
            registers::LVT_LINT0 => Some(&mut self.lint0),
            registers::LVT_LINT1 => Some(&mut self.lint1),
            registers::LVT_ERROR => Some(&mut self.error),
            _ => None,
        }
    }

    /// Sets every mask, as disabling by software does (SDM 3A 11.4.7.2).
    pub(super) fn mask_all(&mut self) {
        let Self { cmci, timer, thermal, performance, lint0, lint1, error } = self;
        for entry in [cmci, timer, thermal, performance, lint0, lint1, error] {
            entry.mask();
        }
    }
}
