//! 8042 keyboard controller with an auxiliary port (IBM PS/2 Hardware Interface Technical
//! Reference, "Keyboard and Auxiliary Device Controller"), and nothing plugged into either port.
//!
//! It passes its self-test, both interfaces test well, and a byte sent to an absent device comes
//! back as a resend request with the time-out bit, at once. Line 20 of the address bus and the
//! processor's reset hang on its output port; the reset is told as one of the whole system, because
//! that is what systems that reboot this way rely on.

use serde::{Deserialize, Serialize};

use crate::reset_control::ResetRequest;
use crate::time::Time;

/// First I/O port: data (offset 0) and, at offset 4, status and command.
pub const PORT: u16 = 0x60;
/// Offset of the data port.
pub const DATA: u16 = 0;
/// Offset of the status (read) and command (write) port.
pub const COMMAND: u16 = 4;

mod status {
    pub const OUTPUT_FULL: u8 = 1 << 0;
    pub const SYSTEM: u8 = 1 << 2;
    pub const COMMAND_LAST: u8 = 1 << 3;
    pub const NOT_LOCKED: u8 = 1 << 4;
    pub const AUX: u8 = 1 << 5;
    pub const TIMEOUT: u8 = 1 << 6;
}

/// Bits of the command byte, which is byte 0 of the controller's memory.
mod mode {
    pub const KEYBOARD_IRQ: u8 = 1 << 0;
    pub const AUX_IRQ: u8 = 1 << 1;
    pub const SYSTEM: u8 = 1 << 2;
    pub const KEYBOARD_OFF: u8 = 1 << 4;
    pub const AUX_OFF: u8 = 1 << 5;
}

/// Bits of the output port.
mod output {
    pub const NO_RESET: u8 = 1 << 0;
    pub const A20: u8 = 1 << 1;
    pub const KEYBOARD_IRQ: u8 = 1 << 4;
    pub const AUX_IRQ: u8 = 1 << 5;
    /// Clock and data lines of the interfaces, pulled up.
    pub const LINES: u8 = 0b1100_1100;
}

/// What a device answers that did not understand; with a time-out, one that is not there.
const RESEND: u8 = 0xfe;

/// The controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct I8042 {
    #[serde(with = "crate::array")]
    memory: [u8; 32],
    output_port: u8,
    /// Status bits that come with the byte in the output buffer; zero if there is none.
    full: u8,
    buffer: u8,
    /// The last write went to the command port.
    command_last: bool,
    /// Command whose parameter is awaited at the data port.
    awaiting: Option<u8>,
}

impl Default for I8042 {
    fn default() -> Self {
        Self::new()
    }
}

impl I8042 {
    /// After power-on: both interfaces off, no interrupts, line 20 of the address bus open.
    #[must_use]
    pub fn new() -> Self {
        let mut memory = [0; 32];
        memory[0] = mode::KEYBOARD_OFF | mode::AUX_OFF;
        Self {
            memory,
            output_port: output::NO_RESET | output::A20 | output::LINES,
            full: 0,
            buffer: 0,
            command_last: false,
            awaiting: None,
        }
    }

    /// Back to the state of power-on.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// Reads the data (offset 0) or the status port (offset 4). Other offsets are not its own.
    pub fn read(&mut self, offset: u16, _now: Time) -> u8 {
        match offset {
            DATA => {
                self.full = 0;
                self.buffer
            }
            COMMAND => self.status(),
            _ => 0xff,
        }
    }

    /// Writes the data (offset 0) or the command port (offset 4). Other offsets are not its own.
    #[must_use]
    pub fn write(&mut self, offset: u16, value: u8, _now: Time) -> Option<ResetRequest> {
        match offset {
            DATA => {
                self.command_last = false;
                self.write_data(value)
            }
            COMMAND => {
                self.command_last = true;
                self.awaiting = None;
                self.command(value)
            }
            _ => None,
        }
    }

    /// Level of IRQ 1: a byte from the controller or the keyboard port waits.
    #[must_use]
    pub fn irq_keyboard(&self) -> bool {
        self.full & (status::OUTPUT_FULL | status::AUX) == status::OUTPUT_FULL
            && self.memory[0] & mode::KEYBOARD_IRQ != 0
    }

    /// Level of IRQ 12: a byte from the auxiliary port waits.
    #[must_use]
    pub fn irq_aux(&self) -> bool {
        self.full & status::AUX != 0 && self.memory[0] & mode::AUX_IRQ != 0
    }

    /// True while this controller lets address line 20 pass; see also [`crate::port92`].
    #[must_use]
    pub fn a20(&self) -> bool {
        self.output_port & output::A20 != 0
    }

    fn status(&self) -> u8 {
        let system = if self.memory[0] & mode::SYSTEM != 0 { status::SYSTEM } else { 0 };
        let last = if self.command_last { status::COMMAND_LAST } else { 0 };
        self.full | system | last | status::NOT_LOCKED
    }

    /// Puts a byte into the output buffer, from the keyboard port or the controller itself.
    fn reply(&mut self, byte: u8) {
        self.reply_with(byte, 0);
    }

    fn reply_with(&mut self, byte: u8, bits: u8) {
        self.buffer = byte;
        self.full = status::OUTPUT_FULL | bits;
    }

    fn command(&mut self, command: u8) -> Option<ResetRequest> {
        match command {
            0x20..=0x3f => self.reply(self.memory[usize::from(command & 0x1f)]),
            // Parameter follows: memory, output port, output buffers, auxiliary device.
            0x60..=0x7f | 0xd1..=0xd4 => self.awaiting = Some(command),
            // Is a password installed: no.
            0xa4 => self.reply(0xf1),
            0xa7 => self.memory[0] |= mode::AUX_OFF,
            0xa8 => self.memory[0] &= !mode::AUX_OFF,
            0xa9 | 0xab => self.reply(0x00),
            0xaa => {
                self.memory[0] |= mode::SYSTEM;
                self.reply(0x55);
            }
            0xad => self.memory[0] |= mode::KEYBOARD_OFF,
            0xae => self.memory[0] &= !mode::KEYBOARD_OFF,
            // Input port: the keyboard lock is open.
            0xc0 => self.reply(0x80),
            0xd0 => self.reply(self.output_port()),
            // Address line 20 off and on, as HP's controllers have it and some systems try first.
            0xdd => self.output_port &= !output::A20,
            0xdf => self.output_port |= output::A20,
            0xe0 => self.reply(self.test_inputs()),
            // Pulses those of the output port's bits 3:0 low that are clear in the command.
            0xf0..=0xff if command & output::NO_RESET == 0 => return Some(ResetRequest::System),
            _ => {}
        }
        None
    }

    fn write_data(&mut self, value: u8) -> Option<ResetRequest> {
        match self.awaiting.take() {
            Some(command @ 0x60..=0x7f) => self.memory[usize::from(command & 0x1f)] = value,
            Some(0xd1) => {
                self.output_port = value & !(output::KEYBOARD_IRQ | output::AUX_IRQ);
                if value & output::NO_RESET == 0 {
                    self.output_port |= output::NO_RESET;
                    return Some(ResetRequest::System);
                }
            }
            Some(0xd2) => self.reply(value),
            Some(0xd3) => self.reply_with(value, status::AUX),
            Some(0xd4) => self.reply_with(RESEND, status::AUX | status::TIMEOUT),
            // No command: for the keyboard, which switches its interface on.
            _ => {
                self.memory[0] &= !mode::KEYBOARD_OFF;
                self.reply_with(RESEND, status::TIMEOUT);
            }
        }
        None
    }

    fn output_port(&self) -> u8 {
        let keyboard = if self.irq_keyboard() { output::KEYBOARD_IRQ } else { 0 };
        let aux = if self.irq_aux() { output::AUX_IRQ } else { 0 };
        self.output_port | keyboard | aux
    }

    /// Clock lines of keyboard (bit 0) and auxiliary device (bit 1): up unless switched off.
    fn test_inputs(&self) -> u8 {
        let off = self.memory[0];
        u8::from(off & mode::KEYBOARD_OFF == 0) | u8::from(off & mode::AUX_OFF == 0) << 1
    }
}
