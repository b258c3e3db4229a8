//! The multiple APIC description table (ACPI 6.5 5.2.12).

use super::table::Table;
use super::{IoApic, LocalApic, MachineInfo, PhysRead};
use crate::list::List;

const ENABLED: u32 = 1 << 0;

/// Reads the table; entries that are cut off or do not fit are left out.
pub(super) fn read(mem: &impl PhysRead, madt: &Table) -> MachineInfo {
    let mut info = MachineInfo {
        local_apics: List::new(LocalApic::default()),
        io_apics: List::new(IoApic::default()),
    };
    let mut at = Table::HEADER.saturating_add(8);
    while let Some([kind, length]) = madt.get(mem, at) {
        let minimum = match kind {
            0 => 8,
            1 => 12,
            9 => 16,
            _ => 2,
        };
        if length < 2 {
            break;
        }
        if length >= minimum {
            entry(mem, madt, at, kind, &mut info);
        }
        at = at.saturating_add(u64::from(length));
    }
    info
}

/// One interrupt controller structure; `None` if it is cut off. What does not fit into a list is
/// left out.
fn entry(
    mem: &impl PhysRead,
    madt: &Table,
    at: u64,
    kind: u8,
    info: &mut MachineInfo,
) -> Option<()> {
    let word = |offset| madt.get(mem, at.saturating_add(offset)).map(u32::from_le_bytes);
    match kind {
        // Processor local APIC.
        0 => {
            let [apic_id] = madt.get(mem, at.saturating_add(3))?;
            let enabled = word(4)? & ENABLED != 0;
            info.local_apics.push(LocalApic { apic_id: apic_id.into(), enabled }).ok()
        }
        // I/O APIC.
        1 => info.io_apics.push(IoApic { address: word(4)?, gsi_base: word(8)? }).ok(),
        // Processor local x2APIC.
        9 => {
            let enabled = word(8)? & ENABLED != 0;
            info.local_apics.push(LocalApic { apic_id: word(4)?, enabled }).ok()
        }
        _ => Some(()),
    }
}
