//! I/O APIC: an 82093AA with the EOI register of its successors, hence version 0x20.
//!
//! Sources: 82093AA data sheet (290566), I/O Controller Hub 10 data sheet (319973)
//! section 13.5 for version 0x20 and the EOI register.
//!
//! The index register may be written with any access size, as firmware writes it as a byte. The
//! window is defined for 32-bit accesses only: narrower reads give its low bits, narrower writes
//! are ignored.

mod redirection;

use serde::{Deserialize, Serialize};

use crate::lapic::Message;
use redirection::Redirection;

/// Number of interrupt inputs.
pub const PINS: u8 = 24;
/// Size of the register area in bytes.
pub const MMIO_SIZE: u16 = 0x1000;

/// MMIO offset of the index register, IOREGSEL.
const INDEX: u16 = 0x00;
/// MMIO offset of the data window, IOWIN.
const WINDOW: u16 = 0x10;
/// MMIO offset of the EOI register.
const EOI: u16 = 0x40;

const ID: u8 = 0x00;
const VERSION: u8 = 0x01;
const ARBITRATION: u8 = 0x02;
const REDIRECTION_FIRST: u8 = 0x10;
const REDIRECTION_LAST: u8 = REDIRECTION_FIRST + 2 * PINS - 1;

/// Writable bits of the ID register.
const ID_MASK: u32 = 0x0f00_0000;
/// Number of the last redirection entry, and the version of an I/O APIC with an EOI register.
const VERSION_VALUE: u32 = (PINS as u32 - 1) << 16 | 0x20;

/// The I/O APIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoApic {
    id: u32,
    arbitration: u32,
    index: u8,
    /// Electrical levels of the pins.
    lines: u32,
    /// Edges that have been seen and not yet sent: the delivery-status bits of edge pins.
    edges: u32,
    entries: [Redirection; PINS as usize],
}

impl IoApic {
    /// The state at power-on. `lines` has a bit set for each pin whose line rests at the high
    /// level (pulled up, as active-low lines are).
    #[must_use]
    pub const fn new(lines: u32) -> Self {
        Self {
            id: 0,
            arbitration: 0,
            index: 0,
            lines,
            edges: 0,
            entries: [Redirection::MASKED; PINS as usize],
        }
    }

    /// Returns to the power-on state. The lines keep the levels that their drivers give them.
    pub fn reset(&mut self) {
        *self = Self::new(self.lines);
    }

    /// Drives pin `pin` to an electrical level; which level is the active one is for the guest to
    /// program (polarity bit). Pins that do not exist are ignored.
    pub fn set_line(&mut self, pin: u8, high: bool) {
        let Some(entry) = self.entries.get(usize::from(pin)) else { return };
        let bit = 1u32 << pin;
        let was_active = entry.is_active(self.lines & bit != 0);
        let is_active = entry.is_active(high);
        // An edge on a masked pin is lost (82093AA, "Interrupt Mask").
        if is_active && !was_active && !entry.is_masked() && !entry.is_level() {
            self.edges |= bit;
        }
        if high {
            self.lines |= bit;
        } else {
            self.lines &= !bit;
        }
    }

    /// The next message that is due, from the lowest pin that has one. To be called until it gives
    /// `None` after everything that changes the state: a line, a write, an EOI.
    ///
    /// A level-triggered message is taken as accepted: its Remote IRR bit is set.
    pub fn take_message(&mut self) -> Option<Message> {
        for (pin, entry) in self.entries.iter_mut().enumerate() {
            let bit = 1u32 << pin;
            if !entry.is_due(self.lines & bit != 0, self.edges & bit != 0) {
                continue;
            }
            self.edges &= !bit;
            if entry.is_level() {
                entry.set_remote_irr();
            }
            // A reserved delivery mode sends nothing.
            if let Some(message) = entry.message() {
                return Some(message);
            }
        }
        None
    }

    /// End of the interrupt `vector`, broadcast by a local APIC or directed by the EOI register:
    /// every level-triggered entry with that vector may send again, and does if its line is still
    /// active.
    pub fn eoi(&mut self, vector: u8) {
        for entry in &mut self.entries {
            entry.end_of_interrupt(vector);
        }
    }

    /// Reads `size` bytes at `offset` of the register area; unassigned offsets read as zero.
    #[must_use]
    pub fn read(&self, offset: u16, size: u8) -> u32 {
        let value = match offset {
            INDEX => u32::from(self.index),
            WINDOW => self.read_window(),
            _ => 0,
        };
        match size {
            1 => value & 0xff,
            2 => value & 0xffff,
            _ => value,
        }
    }

    /// Writes `size` bytes at `offset` of the register area.
    pub fn write(&mut self, offset: u16, size: u8, value: u32) {
        match offset {
            INDEX => self.index = value as u8,
            WINDOW if size == 4 => self.write_window(value),
            EOI => self.eoi(value as u8),
            _ => {}
        }
    }

    /// Number of the redirection entry that the index selects, and whether its high half.
    fn selected_entry(&self) -> Option<(usize, bool)> {
        (REDIRECTION_FIRST..=REDIRECTION_LAST).contains(&self.index).then(|| {
            let register = self.index - REDIRECTION_FIRST;
            (usize::from(register / 2), register % 2 == 1)
        })
    }

    fn read_window(&self) -> u32 {
        match self.index {
            ID => return self.id,
            VERSION => return VERSION_VALUE,
            ARBITRATION => return self.arbitration,
            _ => {}
        }
        let Some((pin, high)) = self.selected_entry() else { return 0 };
        let Some(entry) = self.entries.get(pin) else { return 0 };
        if high {
            entry.high()
        } else {
            entry.low(self.lines & 1 << pin != 0, self.edges & 1 << pin != 0)
        }
    }

    fn write_window(&mut self, value: u32) {
        if self.index == ID {
            self.id = value & ID_MASK;
            // The arbitration ID is loaded together with the ID (82093AA, IOAPICARB).
            self.arbitration = self.id;
        }
        let Some((n, high)) = self.selected_entry() else { return };
        let Some(entry) = self.entries.get_mut(n) else { return };
        if high {
            entry.write_high(value);
            return;
        }
        entry.write_low(value);
        if entry.is_masked() || entry.is_level() {
            self.edges &= !(1 << n);
        }
    }
}
