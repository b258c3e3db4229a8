//! Whether a message is for this local APIC (SDM 3A 11.6.2, 11.12.10).

use super::message::{BROADCAST, DestinationMode};
use super::{LocalApic, Mode, registers};

/// Logical x2APIC ID: cluster in bits 31:16, one bit for the place in it (SDM 3A 11.12.10.2).
pub(super) const fn logical_x2apic_id(id: u32) -> u32 {
    (id >> 4 & 0xffff) << 16 | 1 << (id & 0xf)
}

impl LocalApic {
    /// Whether this local APIC is among the destinations of a message. One that is disabled
    /// globally never is; one that is disabled by software may be (see [`LocalApic::deliver`]).
    #[must_use]
    pub fn accepts(&self, destination: u32, mode: DestinationMode) -> bool {
        match (self.mode(), mode) {
            (Mode::Disabled, _) => false,
            _ if destination == BROADCAST => true,
            (Mode::X2Apic, DestinationMode::Physical) => destination == self.id(),
            (Mode::X2Apic, DestinationMode::Logical) => {
                let own = logical_x2apic_id(self.id());
                destination >> 16 == own >> 16 && destination & own & 0xffff != 0
            }
            (Mode::XApic, _) => match u8::try_from(destination) {
                // All ones is the broadcast in both modes.
                Ok(u8::MAX) => true,
                Ok(id) if mode == DestinationMode::Physical => id == self.xapic_id(),
                Ok(address) => self.accepts_logical(address),
                Err(_) => false,
            },
        }
    }

    /// Compares a message destination address with the LDR by the model that the DFR selects
    /// (SDM 3A 11.6.2.2).
    fn accepts_logical(&self, address: u8) -> bool {
        let own = (self.ldr >> 24) as u8;
        match (self.dfr & !registers::DFR_ONES) >> 28 {
            // Flat model.
            0xf => address & own != 0,
            // Cluster model.
            0 => address >> 4 == own >> 4 && address & own & 0xf != 0,
            // Reserved.
            _ => false,
        }
    }
}
