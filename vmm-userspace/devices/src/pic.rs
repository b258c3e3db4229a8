//! The pair of 8259A interrupt controllers of a PC, as one device.
//!
//! The second chip's interrupt output feeds input 2 of the first. Trigger modes come from the
//! edge/level control registers of the chipset (ports 0x4d0 and 0x4d1), which replace the trigger
//! bit of ICW1 (82371AB data sheet, "ELCR1", "ELCR2", "ICW1" bit 3).

mod chip;

use serde::{Deserialize, Serialize};

use chip::{Chip, Role};

/// Command port of the first chip.
pub const MASTER_COMMAND: u16 = 0x20;
/// Data port of the first chip.
pub const MASTER_DATA: u16 = 0x21;
/// Command port of the second chip.
pub const SLAVE_COMMAND: u16 = 0xa0;
/// Data port of the second chip.
pub const SLAVE_DATA: u16 = 0xa1;
/// Edge/level control register of lines 0 to 7.
pub const ELCR_MASTER: u16 = 0x4d0;
/// Edge/level control register of lines 8 to 15.
pub const ELCR_SLAVE: u16 = 0x4d1;

/// The master's input that the slave's interrupt output drives, and the slave's identification.
const CASCADE: u8 = 2;
/// Lines 0, 1 and 2 are always edge-triggered (82371AB, ELCR1).
const ELCR_MASTER_WRITABLE: u8 = 0b1111_1000;
/// Lines 8 and 13 are always edge-triggered (82371AB, ELCR2).
const ELCR_SLAVE_WRITABLE: u8 = 0b1101_1110;
/// What the CPU reads from a data bus that nobody drives.
const FLOATING_BUS: u8 = 0xff;

/// The pair of interrupt controllers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pic {
    master: Chip,
    slave: Chip,
    /// The slave's INT output. Once high it stays so until an acknowledge cycle reaches the slave:
    /// that is how a request which has gone away by then becomes a spurious IRQ 15 (8259A data
    /// sheet, "Edge and level triggered modes").
    slave_int: bool,
}

impl Default for Pic {
    fn default() -> Self {
        Self::new()
    }
}

impl Pic {
    /// The state at power-on: no interrupt is given before software has written the ICWs.
    #[must_use]
    pub const fn new() -> Self {
        Self { master: Chip::new(Role::Master), slave: Chip::new(Role::Slave), slave_int: false }
    }

    /// Returns to the power-on state. The input lines keep the levels that their drivers give them.
    pub fn reset(&mut self) {
        self.master.reset();
        self.slave.reset();
        self.slave_int = false;
        self.propagate();
    }

    /// Drives interrupt line `line` (0 to 15). Line 2 is the cascade and has no pin; it and numbers
    /// above 15 are ignored.
    pub fn set_irq(&mut self, line: u8, level: bool) {
        match line {
            CASCADE => return,
            0..=7 => self.master.set_line(line, level),
            8..=15 => self.slave.set_line(line - 8, level),
            _ => return,
        }
        self.propagate();
    }

    /// Level of the INTR output towards the CPU.
    #[must_use]
    pub fn intr(&self) -> bool {
        self.master.highest_request().is_some()
    }

    /// The CPU's interrupt-acknowledge cycle: gives the vector and puts its level in service.
    ///
    /// If the request has gone away since [`Pic::intr`] was sampled, the vector is that of level 7
    /// of the chip concerned and nothing is put in service there (8259A data sheet, "default IR7").
    pub fn ack(&mut self) -> u8 {
        let vector = match self.master.highest_request() {
            None => self.master.vector(7),
            Some(CASCADE) if self.master.is_cascade_input(CASCADE) => {
                self.master.acknowledge(CASCADE);
                // The master puts its input number on the cascade lines; only the slave that has
                // been given that number by ICW3 answers.
                if self.slave.slave_id() == CASCADE { self.ack_slave() } else { FLOATING_BUS }
            }
            Some(level) => {
                self.master.acknowledge(level);
                self.master.vector(level)
            }
        };
        self.propagate();
        vector
    }

    /// Reads a port; ports that are not the device's give 0xff. A read may be an acknowledge (poll).
    pub fn read(&mut self, port: u16) -> u8 {
        let value = match port {
            MASTER_COMMAND | MASTER_DATA => match self.master.take_poll() {
                Some(answer) => answer,
                None => self.master.read(port == MASTER_DATA),
            },
            SLAVE_COMMAND | SLAVE_DATA => match self.slave.take_poll() {
                Some(answer) => {
                    self.lower_slave_int();
                    answer
                }
                None => self.slave.read(port == SLAVE_DATA),
            },
            ELCR_MASTER => self.master.level_triggered(),
            ELCR_SLAVE => self.slave.level_triggered(),
            _ => FLOATING_BUS,
        };
        self.propagate();
        value
    }

    /// Writes a port; ports that are not the device's are ignored.
    pub fn write(&mut self, port: u16, value: u8) {
        match port {
            MASTER_COMMAND => {
                self.master.write_command(value);
            }
            MASTER_DATA => self.master.write_data(value),
            SLAVE_COMMAND => {
                if self.slave.write_command(value) {
                    self.lower_slave_int();
                }
            }
            SLAVE_DATA => self.slave.write_data(value),
            ELCR_MASTER => self.master.set_level_triggered(value & ELCR_MASTER_WRITABLE),
            ELCR_SLAVE => self.slave.set_level_triggered(value & ELCR_SLAVE_WRITABLE),
            _ => return,
        }
        self.propagate();
    }

    fn ack_slave(&mut self) -> u8 {
        self.lower_slave_int();
        match self.slave.highest_request() {
            Some(level) => {
                self.slave.acknowledge(level);
                self.slave.vector(level)
            }
            None => self.slave.vector(7),
        }
    }

    /// Lets the slave's output go low, so that its next request is an edge at the master.
    fn lower_slave_int(&mut self) {
        self.slave_int = false;
        self.master.set_line(CASCADE, false);
    }

    /// Carries the slave's output to the master.
    fn propagate(&mut self) {
        self.slave_int |= self.slave.highest_request().is_some();
        self.master.set_line(CASCADE, self.slave_int);
    }
}
