//! The ACPI tables, read back from where a guest finds them.

use machine::{
    acpi::{self, RSDP},
    memory::MIB,
};

struct Area(Vec<u8>);

impl Area {
    fn new(cpus: u32) -> Self {
        let mut area = vec![0; (MIB - RSDP) as usize];
        let mut tables = acpi::tables(cpus);
        tables.sort_by_key(|table| table.gpa);
        for pair in tables.windows(2) {
            assert!(pair[0].gpa + pair[0].bytes.len() as u64 <= pair[1].gpa, "tables overlap");
        }
        for table in tables {
            let at = (table.gpa - RSDP) as usize;
            area[at..at + table.bytes.len()].copy_from_slice(&table.bytes);
        }
        Self(area)
    }
    fn at(&self, gpa: u64, len: usize) -> &[u8] {
        &self.0[(gpa - RSDP) as usize..][..len]
    }
    fn u32(&self, gpa: u64) -> u32 {
        u32::from_le_bytes(self.at(gpa, 4).try_into().unwrap())
    }
    fn u64(&self, gpa: u64) -> u64 {
        u64::from_le_bytes(self.at(gpa, 8).try_into().unwrap())
    }
    fn sum(&self, gpa: u64, len: usize) -> u8 {
        self.at(gpa, len).iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
    }
    /// The table with that signature, with its length and checksum checked.
    fn table(&self, gpa: u64, signature: &[u8]) -> &[u8] {
        assert_eq!(self.at(gpa, 4), signature);
        let len = self.u32(gpa + 4) as usize;
        assert_eq!(self.sum(gpa, len), 0, "checksum of {signature:?}");
        self.at(gpa, len)
    }
}

#[test]
fn everything_is_reachable_from_the_root() {
    let area = Area::new(2);
    assert_eq!(area.at(RSDP, 8), b"RSD PTR ");
    assert_eq!((area.sum(RSDP, 20), area.sum(RSDP, 36)), (0, 0));
    let xsdt = area.u64(RSDP + 24);
    assert_eq!(area.table(xsdt, b"XSDT").len(), 36 + 2 * 8);
    let (fadt, madt) = (area.u64(xsdt + 36), area.u64(xsdt + 44));
    let table = area.table(fadt, b"FACP");
    assert_eq!(table.len(), 276);
    let (facs, dsdt) = (u64::from(area.u32(fadt + 36)), u64::from(area.u32(fadt + 40)));
    assert_eq!(area.u64(fadt + 140), dsdt);
    assert_eq!((area.at(facs, 4), area.u32(facs + 4), facs % 64), (&b"FACS"[..], 64, 0));
    // SCI, SMI command, PM1a event and control, timer, reset register and value.
    assert_eq!((table[46], table[48], table[56], table[60]), (9, 0xb2, 0, 0));
    assert_eq!((area.u32(fadt + 56), area.u32(fadt + 64)), (0x600, 0x604));
    assert_eq!((area.u32(fadt + 76), table[91]), (0x608, 4));
    assert_eq!((table[116], area.u64(fadt + 120), table[128]), (1, 0xcf9, 6));
    assert_eq!(table[108], 0x32);
    for (legacy, extended) in [(56, 148), (64, 172), (76, 208), (80, 220)] {
        assert_eq!(u64::from(area.u32(fadt + legacy)), area.u64(fadt + extended + 4));
        assert_eq!(table[extended as usize], 1, "a port");
    }
    let table = area.table(dsdt, b"DSDT");
    for name in [&b"\x08_S5_\x12"[..], b"PCI0", b"_PRT", b"COM1", b"C001"] {
        assert!(table.windows(name.len()).any(|w| w == name), "{name:?}");
    }
    area.table(madt, b"APIC");
}

#[test]
fn interrupt_controllers_match_the_wiring() {
    let area = Area::new(3);
    let madt = area.table(area.u64(area.u64(RSDP + 24) + 44), b"APIC");
    assert_eq!(&madt[36..44], [0, 0, 0xe0, 0xfe, 1, 0, 0, 0]);
    let (mut at, mut entries) = (44, vec![]);
    while at < madt.len() {
        let len = usize::from(madt[at + 1]);
        entries.push(&madt[at..at + len]);
        at += len;
    }
    assert_eq!(at, madt.len());
    let of = |kind: u8| entries.iter().filter(|e| e[0] == kind).copied().collect::<Vec<_>>();
    assert_eq!(of(0).len(), 3);
    assert_eq!(of(1), [[1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]]);
    let overrides = [[2, 10, 0, 0, 2, 0, 0, 0, 0, 0], [2, 10, 0, 9, 9, 0, 0, 0, 13, 0]];
    assert_eq!(of(2), overrides);
    assert_eq!(of(4), [[4, 6, 255, 0, 0, 1]]);
}
