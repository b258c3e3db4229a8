//! The memory-mapped registers of xAPIC mode (SDM 3A 11.4.1).

use super::error::ApicError;
use super::registers::{Access, xapic_access};
use super::{Clock, Effects, LocalApic, Mode};

/// Size of the register area in bytes.
pub const MMIO_SIZE: u16 = 0x1000;

/// What memory reads as where nobody answers.
const UNCLAIMED: u32 = u32::MAX;

impl LocalApic {
    /// Reads at `offset` of the register area.
    ///
    /// Registers are 32 bits wide in the first bytes of 16-byte slots, and other accesses are
    /// undefined (SDM 3A 11.4.1). Here one that begins inside of a register sees it shifted, so
    /// that a narrow read gives the bytes addressed, and the rest of a slot reads as zero.
    ///
    /// A reserved register reads as zero and is an error (11.5.3, bit 7). In the other modes the
    /// area does not exist, and reads as ones.
    pub fn read(&mut self, offset: u16, clock: Clock) -> u32 {
        if self.mode() != Mode::XApic || offset >= MMIO_SIZE {
            return UNCLAIMED;
        }
        self.advance(clock);
        let value = match self.access(offset) {
            (register, Access::ReadOnly | Access::ReadWrite) => self.load(register, clock),
            (_, Access::WriteOnly) => 0,
            (_, Access::Reserved) => {
                self.detect(ApicError::IllegalRegisterAddress);
                0
            }
        };
        match offset & 0xf {
            byte @ 0..=3 => value >> (8 * byte),
            _ => 0,
        }
    }

    /// Writes the register at `offset` of the register area. Reserved bits, read-only registers and
    /// offsets that are not that of a register are ignored; a reserved register is an error.
    pub fn write(&mut self, offset: u16, value: u32, clock: Clock) -> Effects {
        if self.mode() != Mode::XApic || offset >= MMIO_SIZE || offset & 0xf != 0 {
            return Effects::NONE;
        }
        self.advance(clock);
        match self.access(offset) {
            (register, Access::WriteOnly | Access::ReadWrite) => self.store(register, value, clock),
            (_, Access::ReadOnly) => Effects::NONE,
            (_, Access::Reserved) => {
                self.detect(ApicError::IllegalRegisterAddress);
                Effects::NONE
            }
        }
    }

    fn access(&self, offset: u16) -> (u8, Access) {
        let register = (offset >> 4) as u8;
        (register, xapic_access(register, self.config.features))
    }
}
