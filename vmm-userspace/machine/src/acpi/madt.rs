//! The interrupt controllers (ACPI 6.5 5.2.12).

use acpi_tables::sdt::Sdt;
use alloc::vec::Vec;

use super::{OEM, REVISION, TABLE};
use crate::layout::{GSI_TIMER, IOAPIC, IRQ_SCI, IRQ_TIMER, LAPIC};

/// There is also a pair of 8259s.
const PCAT_COMPAT: u32 = 1;
/// MPS INTI flags: as the bus has it; active high and level-triggered (ACPI 6.5 table 5.26).
const CONFORMS: u16 = 0;
const HIGH_LEVEL: u16 = 0b1101;

pub fn build(cpus: u32) -> Vec<u8> {
    let mut madt = Sdt::new(*b"APIC", 44, 5, OEM, TABLE, REVISION);
    madt.write_u32(36, LAPIC as u32);
    madt.write_u32(40, PCAT_COMPAT);
    for id in 0..cpus.min(255) as u8 {
        // Processor local APIC, enabled.
        madt.append_slice(&[0, 8, id, id, 1, 0, 0, 0]);
    }
    let [a, b, c, d] = (IOAPIC as u32).to_le_bytes();
    madt.append_slice(&[1, 12, 0, 0, a, b, c, d, 0, 0, 0, 0]);
    madt.append_slice(&source_override(IRQ_TIMER, GSI_TIMER, CONFORMS));
    madt.append_slice(&source_override(IRQ_SCI, IRQ_SCI, HIGH_LEVEL));
    // NMI on LINT1 of every processor.
    madt.append_slice(&[4, 6, 0xff, 0, 0, 1]);
    madt.as_slice().to_vec()
}

const fn source_override(irq: u8, gsi: u8, flags: u16) -> [u8; 10] {
    let [low, high] = flags.to_le_bytes();
    [2, 10, 0, irq, gsi, 0, 0, 0, low, high]
}
