//! The multiple APIC description table (ACPI 6.5 5.2.12).

use super::table::Table;
use super::{IoApic, LocalApic, MachineInfo, Override, PhysRead};
use crate::list::List;

const ENABLED: u32 = 1 << 0;
const PCAT_COMPAT: u32 = 1 << 0;

/// Reads the table; entries that are cut off or do not fit are left out.
pub(super) fn read(mem: &impl PhysRead, madt: &Table) -> Option<MachineInfo> {
    let flags = u32::from_le_bytes(madt.get(mem, 40)?);
    let mut info = MachineInfo {
        local_apics: List::new(LocalApic::default()),
        io_apics: List::new(IoApic::default()),
        overrides: List::new(Override::default()),
        lapic_address: u64::from(u32::from_le_bytes(madt.get(mem, 36)?)),
        has_8259: flags & PCAT_COMPAT != 0,
        pm_timer: None,
        pm_timer_32bit: false,
    };
    let mut at = Table::HEADER.saturating_add(8);
    while let Some([kind, length]) = madt.get(mem, at) {
        let minimum = match kind {
            0 => 8,
            1 | 5 => 12,
            2 => 10,
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
    Some(info)
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
    let byte = |offset| madt.get(mem, at.saturating_add(offset)).map(|[byte]: [u8; 1]| byte);
    match kind {
        // Processor local APIC.
        0 => {
            let enabled = word(4)? & ENABLED != 0;
            info.local_apics.push(LocalApic { apic_id: u32::from(byte(3)?), enabled }).ok()
        }
        // I/O APIC.
        1 => {
            info.io_apics.push(IoApic { id: byte(2)?, address: word(4)?, gsi_base: word(8)? }).ok()
        }
        // Interrupt source override; flags 0 in a field mean what the bus has: edge, active high.
        2 => {
            let flags = u16::from_le_bytes(madt.get(mem, at.saturating_add(8))?);
            let (active_low, level) = (flags & 3 == 3, flags >> 2 & 3 == 3);
            info.overrides.push(Override { irq: byte(3)?, gsi: word(4)?, active_low, level }).ok()
        }
        // Local APIC address override.
        5 => {
            info.lapic_address = u64::from_le_bytes(madt.get(mem, at.saturating_add(4))?);
            Some(())
        }
        // Processor local x2APIC.
        9 => {
            let enabled = word(8)? & ENABLED != 0;
            info.local_apics.push(LocalApic { apic_id: word(4)?, enabled }).ok()
        }
        _ => Some(()),
    }
}
