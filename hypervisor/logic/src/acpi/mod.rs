//! What the kernel needs from the firmware's tables: processors and interrupt controllers.
//!
//! The tables are in memory that anything may have written: all lengths are checked, all loops are
//! bounded.

mod madt;
mod table;

use crate::list::List;
use table::Table;

/// Reads physical memory.
pub trait PhysRead {
    /// Fills `buf` from physical address `pa`; `false` if that memory cannot be read.
    fn read(&self, pa: u64, buf: &mut [u8]) -> bool;
}

/// A local APIC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalApic {
    /// Its identifier; from 255 on only reachable in x2APIC mode.
    pub apic_id: u32,
    /// Whether its processor can be used.
    pub enabled: bool,
}

/// An I/O APIC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoApic {
    /// Physical address of its registers.
    pub address: u32,
    /// The global system interrupt of its first pin.
    pub gsi_base: u32,
}

/// What the tables say about the machine.
#[derive(Clone, Copy, Debug)]
pub struct MachineInfo {
    /// Local APICs, in the order of the table, which begins with the boot processor's by
    /// convention. More than fit are left out.
    pub local_apics: List<LocalApic, 64>,
    /// I/O APICs.
    pub io_apics: List<IoApic, 8>,
}

/// Why the tables cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcpiError {
    /// There is no valid root pointer at that address.
    BadRoot,
    /// Neither the XSDT nor the RSDT is valid.
    NoRootTable,
    /// There is no valid MADT.
    NoMadt,
}

/// Tables that a root table may list before the rest is ignored.
const MAX_TABLES: u64 = 256;

impl MachineInfo {
    /// Reads the tables whose root pointer is at physical address `rsdp`.
    ///
    /// # Errors
    /// See [`AcpiError`].
    pub fn read(mem: &impl PhysRead, rsdp: u64) -> Result<Self, AcpiError> {
        let (root, entry) = root_table(mem, rsdp)?;
        let madt = find(mem, &root, entry, *b"APIC").ok_or(AcpiError::NoMadt)?;
        Ok(Self::of(mem, &madt))
    }
}

/// The XSDT or RSDT and the size of its entries (ACPI 6.5 5.2.5.3).
fn root_table(mem: &impl PhysRead, rsdp: u64) -> Result<(Table, u64), AcpiError> {
    let first: [u8; 20] = table::bytes(mem, rsdp).ok_or(AcpiError::BadRoot)?;
    if !first.starts_with(b"RSD PTR ") || table::sum(&first) != 0 {
        return Err(AcpiError::BadRoot);
    }
    let [.., revision, r0, r1, r2, r3] = first;
    if revision >= 2 {
        let whole: [u8; 36] = table::bytes(mem, rsdp).ok_or(AcpiError::BadRoot)?;
        if table::sum(&whole) != 0 {
            return Err(AcpiError::BadRoot);
        }
        let xsdt = table::bytes(mem, rsdp.saturating_add(24)).map_or(0, u64::from_le_bytes);
        if let Some(xsdt) = Table::open(mem, xsdt, *b"XSDT") {
            return Ok((xsdt, 8));
        }
    }
    let rsdt = u64::from(u32::from_le_bytes([r0, r1, r2, r3]));
    Table::open(mem, rsdt, *b"RSDT").map(|rsdt| (rsdt, 4)).ok_or(AcpiError::NoRootTable)
}

/// The first valid table with that signature.
fn find(mem: &impl PhysRead, root: &Table, entry: u64, signature: [u8; 4]) -> Option<Table> {
    let count = root.body_len().checked_div(entry)?.min(MAX_TABLES);
    (0..count).find_map(|i| {
        let at = Table::HEADER.saturating_add(i.saturating_mul(entry));
        let address = if entry == 8 {
            root.get(mem, at).map(u64::from_le_bytes)
        } else {
            root.get(mem, at).map(u32::from_le_bytes).map(u64::from)
        };
        Table::open(mem, address?, signature)
    })
}
