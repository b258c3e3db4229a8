//! ACPI fixed hardware (ACPI 6.5 section 4.8.3): power-management event and control registers,
//! the power-management timer, one general-purpose event block, and the command port through
//! which an operating system takes it over.
//!
//! The registers lie in one block of [`SIZE`] bytes; the constants give what the FADT has to say.
//! The reset register is [`crate::reset_control`].

use serde::{Deserialize, Serialize};

use crate::time::Time;

/// Frequency of the timer in hertz (ACPI 6.5 4.8.2.1).
pub const TIMER_FREQUENCY: u64 = 3_579_545;
/// Width of the timer. The FADT flag `TMR_VAL_EXT` says whether it is 32, so it must be clear.
pub const TIMER_BITS: u32 = 24;

/// Offset of the PM1a event block (status and enable register).
pub const EVENT_BLOCK: u16 = 0x00;
/// Size of the PM1a event block in bytes.
pub const EVENT_BLOCK_SIZE: u8 = 4;
/// Offset of the PM1a control block.
pub const CONTROL_BLOCK: u16 = 0x04;
/// Size of the PM1a control block in bytes.
pub const CONTROL_BLOCK_SIZE: u8 = 2;
/// Offset of the timer.
pub const TIMER_BLOCK: u16 = 0x08;
/// Size of the timer block in bytes.
pub const TIMER_BLOCK_SIZE: u8 = 4;
/// Offset of the general-purpose event block 0 (status and enable).
pub const GPE0_BLOCK: u16 = 0x0c;
/// Size of the general-purpose event block 0 in bytes.
pub const GPE0_BLOCK_SIZE: u8 = 4;
/// Size of the whole block of ports in bytes.
pub const SIZE: u16 = 0x10;

/// I/O port of the command register; the next one is its data register.
pub const COMMAND_PORT: u16 = 0xb2;
/// Command that gives the hardware to the operating system (FADT `ACPI_ENABLE`).
pub const ACPI_ENABLE: u8 = 0xf1;
/// Command that takes it back (FADT `ACPI_DISABLE`).
pub const ACPI_DISABLE: u8 = 0xf0;

/// Sleep type that means S5, soft off. For the `\_S5` object; the device itself knows no types.
pub const SLEEP_TYPE_S5: u8 = 5;

/// PM1 status and enable bits (ACPI 6.5 tables 4.12 and 4.13).
mod event {
    pub const TIMER: u16 = 1 << 0;
    pub const POWER_BUTTON: u16 = 1 << 8;
    pub const RTC: u16 = 1 << 10;
    pub const WAKE: u16 = 1 << 15;
    /// Enable bits: those above but WAKE, and the global lock's.
    pub const ENABLES: u16 = TIMER | 1 << 5 | POWER_BUTTON | RTC;
}

/// PM1 control bits (ACPI 6.5 table 4.14).
mod control {
    pub const SCI_EN: u16 = 1 << 0;
    pub const BM_RLD: u16 = 1 << 1;
    pub const SLP_TYP: u16 = 7 << 10;
    pub const SLP_EN: u16 = 1 << 13;
}

/// The guest asks for a sleeping state, by the type that its `\_Sx` object names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SleepRequest(pub u8);

/// The fixed hardware of one machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcpiPm {
    status: u16,
    enable: u16,
    control: u16,
    gpe_status: u16,
    gpe_enable: u16,
    command: u8,
    command_data: u8,
    /// How many times the timer's top bit had changed when last looked at.
    carries: u64,
}

impl AcpiPm {
    /// The hardware after power-on: in legacy mode, no events.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Back to the state of power-on. The timer counts guest time and runs on.
    pub fn reset(&mut self) {
        *self = Self { carries: self.carries, ..Self::new() };
    }

    /// Reads a byte of the block. Wider registers are read as bytes with the same `now`.
    pub fn read(&mut self, offset: u16, now: Time) -> u8 {
        self.advance(now);
        let timer = now.ticks(TIMER_FREQUENCY) as u32 & (u32::MAX >> (32 - TIMER_BITS));
        let word = match offset & (SIZE - 2) {
            0x0 => self.status,
            0x2 => self.enable,
            0x4 => self.control,
            0x8 => timer as u16,
            0xa => (timer >> 16) as u16,
            0xc => self.gpe_status,
            0xe => self.gpe_enable,
            _ => 0,
        };
        word.to_le_bytes()[usize::from(offset & 1)]
    }

    /// Writes a byte of the block. Wider registers are written as bytes, lowest first.
    #[must_use]
    pub fn write(&mut self, offset: u16, value: u8, now: Time) -> Option<SleepRequest> {
        self.advance(now);
        let shift = 8 * (offset & 1);
        let (bits, kept) = (u16::from(value) << shift, !(0xff << shift));
        let replace = |word: u16, writable: u16| word & kept | bits & writable;
        match offset & (SIZE - 2) {
            0x0 => self.status &= !bits,
            0x2 => self.enable = replace(self.enable, event::ENABLES),
            0x4 => {
                let writable = control::SCI_EN | control::BM_RLD | control::SLP_TYP;
                self.control = replace(self.control, writable);
                if bits & control::SLP_EN != 0 {
                    return Some(SleepRequest((self.control >> 10 & 7) as u8));
                }
            }
            0xc => self.gpe_status &= !bits,
            0xe => self.gpe_enable = replace(self.gpe_enable, u16::MAX),
            _ => {} // The timer cannot be written.
        }
        None
    }

    /// Reads the command port (offset 0) or its data port (1).
    #[must_use]
    pub fn read_command(&self, offset: u16) -> u8 {
        if offset & 1 == 0 { self.command } else { self.command_data }
    }

    /// Writes the command port (offset 0) or its data port (1).
    pub fn write_command(&mut self, offset: u16, value: u8) {
        if offset & 1 == 1 {
            self.command_data = value;
            return;
        }
        self.command = value;
        match value {
            ACPI_ENABLE => self.control |= control::SCI_EN,
            ACPI_DISABLE => self.control &= !control::SCI_EN,
            _ => {}
        }
    }

    /// Level of the system control interrupt: some event is enabled and has happened, and the
    /// operating system has taken the hardware over.
    #[must_use]
    pub fn sci(&self) -> bool {
        self.control & control::SCI_EN != 0
            && (self.status & self.enable != 0 || self.gpe_status & self.gpe_enable != 0)
    }

    /// Somebody presses the power button.
    pub fn press_power_button(&mut self) {
        self.status |= event::POWER_BUTTON;
    }

    /// The real-time clock raises its interrupt.
    pub fn rtc_alarm(&mut self) {
        self.status |= event::RTC;
    }

    /// The machine is back from a sleeping state.
    pub fn wake(&mut self) {
        self.status |= event::WAKE;
    }

    /// General-purpose event `number` (0 to 15) happens; larger numbers are none of this block's.
    pub fn raise_gpe(&mut self, number: u8) {
        self.gpe_status |= 1u16.checked_shl(number.into()).unwrap_or(0);
    }

    /// Brings the timer's status bit up to `now`: it is set when the timer's top bit changes.
    pub fn advance(&mut self, now: Time) {
        let carries = now.ticks(TIMER_FREQUENCY) >> (TIMER_BITS - 1);
        if carries > self.carries {
            self.carries = carries;
            self.status |= event::TIMER;
        }
    }

    /// When the timer next raises the system control interrupt.
    #[must_use]
    pub fn next_event(&self) -> Option<Time> {
        let waits = self.control & control::SCI_EN != 0
            && self.enable & event::TIMER != 0
            && self.status & event::TIMER == 0;
        let carry = self.carries.saturating_add(1).saturating_mul(1 << (TIMER_BITS - 1));
        waits.then(|| Time::of_tick(carry, TIMER_FREQUENCY))
    }
}
