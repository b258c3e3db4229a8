use crate::acpi::{AcpiError, IoApic, LocalApic, MachineInfo, PhysRead};
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

/// Memory from 0xe0000 on.
const BASE: u64 = 0xe_0000;

struct Memory(Vec<u8>);

impl PhysRead for Memory {
    fn read(&self, pa: u64, buf: &mut [u8]) -> bool {
        let start = pa.checked_sub(BASE).and_then(|at| usize::try_from(at).ok());
        let found = start.and_then(|at| self.0.get(at..at.checked_add(buf.len())?));
        found.is_some_and(|bytes| {
            buf.copy_from_slice(bytes);
            true
        })
    }
}

fn fix(bytes: &mut [u8], at: usize) {
    bytes[at] = 0;
    bytes[at] = bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_sub(*byte));
}

fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 36];
    bytes[..4].copy_from_slice(signature);
    bytes[4..8].copy_from_slice(&(36 + body.len() as u32).to_le_bytes());
    bytes.extend(body);
    fix(&mut bytes, 9);
    bytes
}

fn madt_body() -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(0xfee0_0000_u32.to_le_bytes());
    body.extend(1_u32.to_le_bytes());
    body.extend([0, 8, 0, 0, 1, 0, 0, 0]);
    body.extend([0, 8, 1, 2, 0, 0, 0, 0]);
    body.extend([9, 16, 0, 0, 0x34, 0x12, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    body.extend([1, 12, 5, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
    body.extend([2, 10, 0, 0, 2, 0, 0, 0, 0, 0]);
    body.extend([2, 10, 0, 9, 9, 0, 0, 0, 0x0f, 0]);
    body.extend([4, 6, 0xff, 0, 0, 1]);
    body
}

struct Image {
    revision: u8,
    entry: usize,
}

/// Root pointer at 0, a FADT at 0x100, MADT at 0x300, root table at 0x800.
fn build(image: &Image) -> Memory {
    let mut list = Vec::new();
    for address in [BASE + 0x100, BASE + 0xfff, BASE + 0x300] {
        list.extend(&address.to_le_bytes()[..image.entry]);
    }
    let mut bytes = vec![0; 0x1000];
    let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
    put(0x100, &table(b"FACP", &[0; 208]));
    put(0x300, &table(b"APIC", &madt_body()));
    put(0x800, &table(if image.entry == 8 { b"XSDT" } else { b"RSDT" }, &list));
    let mut root = [0; 36];
    root[..8].copy_from_slice(b"RSD PTR ");
    root[15] = image.revision;
    let address = BASE + 0x800;
    if image.entry == 8 {
        root[24..32].copy_from_slice(&address.to_le_bytes());
    } else {
        root[16..20].copy_from_slice(&(address as u32).to_le_bytes());
    }
    fix(&mut root[..20], 8);
    fix(&mut root, 32);
    put(0, &root);
    Memory(bytes)
}

#[test]
fn both_root_tables_lead_to_the_machine() {
    for (revision, entry) in [(0, 4), (2, 8), (2, 4)] {
        let memory = build(&Image { revision, entry });
        let info = MachineInfo::read(&memory, BASE).unwrap();
        let apic = |apic_id, enabled| LocalApic { apic_id, enabled };
        assert_eq!(*info.local_apics, [apic(0, true), apic(2, false), apic(0x1234, true)]);
        assert_eq!(*info.io_apics, [IoApic { address: 0xfec0_0000, gsi_base: 0 }]);
    }
}

#[test]
fn each_broken_checksum_is_noticed() {
    let read = |at: usize| {
        let mut memory = build(&Image { revision: 2, entry: 8 });
        memory.0[at] ^= 0x40;
        MachineInfo::read(&memory, BASE)
    };
    assert_eq!(read(9).err(), Some(AcpiError::BadRoot));
    assert_eq!(read(33).err(), Some(AcpiError::BadRoot));
    assert_eq!(read(0x820).err(), Some(AcpiError::NoRootTable));
    assert_eq!(read(0x320).err(), Some(AcpiError::NoMadt));
    // That of a table which is not needed does not matter.
    assert!(read(0x120).is_ok());
    let memory = build(&Image { revision: 2, entry: 8 });
    for rsdp in [0, BASE + 1, BASE + 0xff0, u64::MAX - 3] {
        assert_eq!(MachineInfo::read(&memory, rsdp).err(), Some(AcpiError::BadRoot));
    }
}

#[test]
fn more_processors_than_fit_are_left_out() {
    let mut body = madt_body();
    for id in 0..100 {
        body.extend([0, 8, id, id, 1, 0, 0, 0]);
    }
    body.extend([1, 12, 6, 0, 0, 0, 0xc1, 0xfe, 24, 0, 0, 0]);
    let mut memory = build(&Image { revision: 2, entry: 8 });
    let madt = table(b"APIC", &body);
    memory.0.resize(0x2000, 0);
    memory.0[0x1000..0x1000 + madt.len()].copy_from_slice(&madt);
    let xsdt = table(b"XSDT", &(BASE + 0x1000).to_le_bytes());
    memory.0[0x800..0x800 + xsdt.len()].copy_from_slice(&xsdt);
    let info = MachineInfo::read(&memory, BASE).unwrap();
    assert_eq!((info.local_apics.len(), info.io_apics.len()), (64, 2));
}

proptest! {
    /// Damaged tables whose checksums are right: no panic, no endless loop.
    #[test]
    fn garbage_ends(
        flips in prop::collection::vec(
            (prop_oneof![0..36_usize, 0x100..0x1f4_usize, 0x300..0x380_usize, 0x800..0x83c_usize],
             any::<u8>()), 0..12),
        revision in 0..3_u8,
    ) {
        let mut memory = build(&Image { revision, entry: 8 });
        for (at, byte) in flips {
            memory.0[at] = byte;
        }
        for start in [0x100, 0x300, 0x800] {
            let length = u32::from_le_bytes(memory.0[start + 4..start + 8].try_into().unwrap());
            let end = (start + length as usize).min(memory.0.len());
            if end > start + 10 {
                fix(&mut memory.0[start..end], 9);
            }
        }
        fix(&mut memory.0[..20], 8);
        fix(&mut memory.0[..36], 32);
        let _ = MachineInfo::read(&memory, BASE);
    }
}
