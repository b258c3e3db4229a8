//! The multiple APIC description table (ACPI 6.5 5.2.12).

use super::table::Table;
use super::{IoApic, LocalApic, MachineInfo, PhysRead};
use crate::list::List;

const ENABLED: u32 = 1 << 0;

impl MachineInfo {
    /// What the table says; entries that are cut off or do not fit are left out.
    pub(super) fn of(mem: &impl PhysRead, madt: &Table) -> Self {
        let mut info = Self {
            local_apics: List::new(LocalApic::default()),
            io_apics: List::new(IoApic::default()),
        };
        let mut at = Table::HEADER.saturating_add(8);
        while let Some([kind, length @ (2..)]) = madt.get(mem, at) {
            info.add(mem, madt, at, (kind, length));
            at = at.saturating_add(u64::from(length));
        }
        info
    }

    /// One interrupt controller structure, of that kind and length; `None` if it is cut off, or does not fit into a list.
    fn add(&mut self, mem: &impl PhysRead, madt: &Table, at: u64, head: (u8, u8)) -> Option<()> {
        let word = |offset| madt.get(mem, at.saturating_add(offset)).map(u32::from_le_bytes);
        match head {
            // Processor local APIC.
            (0, 8..) => {
                let [apic_id] = madt.get(mem, at.saturating_add(3))?;
                let enabled = word(4)? & ENABLED != 0;
                self.local_apics.push(LocalApic { apic_id: apic_id.into(), enabled }).ok()
            }
            // I/O APIC.
            (1, 12..) => self.io_apics.push(IoApic { address: word(4)?, gsi_base: word(8)? }).ok(),
            // Processor local x2APIC.
            (9, 16..) => {
                let enabled = word(8)? & ENABLED != 0;
                self.local_apics.push(LocalApic { apic_id: word(4)?, enabled }).ok()
            }
            _ => Some(()),
        }
    }
}
