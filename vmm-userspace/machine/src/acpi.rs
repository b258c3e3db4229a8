//! ACPI tables that describe the machine (ACPI 6.5 chapters 5 and 19).
//!
//! ```text
//! RSDP ── XSDT ─┬─ FADT ─┬─ FACS
//!               │        └─ DSDT
//!               └─ MADT
//! ```
//! They lie in the firmware's area below 1 MiB, where a guest without a boot protocol finds the RSDP too.

mod dsdt;
mod fadt;
mod madt;

use acpi_tables::{Aml, facs::FACS, rsdp::Rsdp, xsdt::XSDT};
use alloc::vec::Vec;

/// Guest-physical address of the root pointer: the start of the area that is searched (ACPI 6.5 5.2.5.1).
pub const RSDP: u64 = 0xe_0000;

const OEM: [u8; 6] = *b"FERRIT";
const TABLE: [u8; 8] = *b"FERRITEV";
const REVISION: u32 = 1;

/// A table and where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Guest-physical address.
    pub gpa: u64,
    /// The table.
    pub bytes: Vec<u8>,
}

/// All tables for a machine with `cpus` processors, whose APIC ids are 0 to `cpus` - 1. At most 255 are listed.
#[must_use]
pub fn tables(cpus: u32) -> Vec<Placed> {
    let mut placed = Vec::new();
    let mut next = RSDP + 64;
    let mut place = |bytes: Vec<u8>| {
        let gpa = next;
        // The FACS wants 64 bytes of alignment (ACPI 6.5 5.2.10).
        next = (gpa + bytes.len() as u64).next_multiple_of(64);
        placed.push(Placed { gpa, bytes });
        gpa
    };
    let facs = place(bytes(&FACS::new()));
    let dsdt = place(dsdt::build(cpus));
    let fadt = place(bytes(&fadt::build(facs, dsdt)));
    let madt = place(madt::build(cpus));
    let mut xsdt = XSDT::new(OEM, TABLE, REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = place(bytes(&xsdt));
    placed.push(Placed { gpa: RSDP, bytes: bytes(&Rsdp::new(OEM, xsdt)) });
    placed
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}
