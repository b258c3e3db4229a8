//! Stand-ins for the machine.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::memory::PhysicalMemory;
use crate::paging::{ADDRESS_MASK, TableMemory};
use crate::span::PAGE;

/// Physical memory with bytes at some addresses and nothing elsewhere.
pub struct Memory {
    pieces: Vec<(u64, Vec<u8>)>,
}

impl Memory {
    /// Memory with the given pieces.
    pub fn new(pieces: &[(u64, &[u8])]) -> Self {
        Self { pieces: pieces.iter().map(|(at, bytes)| (*at, bytes.to_vec())).collect() }
    }
}

impl PhysicalMemory for Memory {
    fn bytes(&self, address: u64, length: u64) -> Option<&[u8]> {
        self.pieces.iter().find_map(|(at, bytes)| {
            let start = usize::try_from(address.checked_sub(*at)?).ok()?;
            bytes.get(start..start.checked_add(usize::try_from(length).ok()?)?)
        })
    }
}

/// A bundle of the given files.
pub fn make_bundle(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = abi::bundle::MAGIC.to_vec();
    bytes.extend((files.len() as u32).to_le_bytes());
    bytes.extend([0; 4]);
    let mut offset = PAGE;
    for (name, file) in files {
        let mut field = [0; 40];
        field[..name.len()].copy_from_slice(name.as_bytes());
        bytes.extend(field);
        bytes.extend(offset.to_le_bytes());
        bytes.extend((file.len() as u64).to_le_bytes());
        bytes.extend([0; 8]);
        offset += (file.len() as u64).next_multiple_of(PAGE);
    }
    for (_, file) in files {
        bytes.resize(bytes.len().next_multiple_of(PAGE as usize), 0);
        bytes.extend(*file);
    }
    bytes
}

/// Page tables in a map, and a walker over them.
pub struct Tables {
    pub tables: BTreeMap<u64, [u64; 512]>,
    next: u64,
    limit: u64,
}

/// What a walk found.
#[derive(Debug, PartialEq, Eq)]
pub struct Leaf {
    pub physical: u64,
    pub writable: bool,
    pub executable: bool,
    pub page: u64,
}

impl Tables {
    /// Room for `count` tables.
    pub fn new(count: u64) -> Self {
        Self { tables: BTreeMap::new(), next: 0x10_0000, limit: 0x10_0000 + count * PAGE }
    }

    /// Translates as the processor does (SDM 3A 4.5), rights being those of all levels together.
    pub fn walk(&self, root: u64, address: u64) -> Option<Leaf> {
        let (mut table, mut writable, mut executable) = (root, true, true);
        for shift in [39, 30, 21, 12] {
            let entry = self.tables[&table][(address >> shift) as usize & 0x1ff];
            if entry & 1 == 0 {
                return None;
            }
            writable &= entry & 2 != 0;
            executable &= entry >> 63 == 0;
            if shift == 12 || entry & 0x80 != 0 {
                let page = 1 << shift;
                let base = entry & ADDRESS_MASK;
                assert_eq!(base % page, 0, "reserved bits in the entry for {address:#x}");
                let physical = base + address % page;
                return Some(Leaf { physical, writable, executable, page });
            }
            table = entry & ADDRESS_MASK;
        }
        None
    }
}

impl TableMemory for Tables {
    fn allocate(&mut self) -> Result<u64, Error> {
        if self.next == self.limit {
            return Err(Error::OutOfMemory { bytes: PAGE });
        }
        self.tables.insert(self.next, [0; 512]);
        self.next += PAGE;
        Ok(self.next - PAGE)
    }

    fn entry(&self, table: u64, index: usize) -> u64 {
        self.tables[&table][index]
    }

    fn set_entry(&mut self, table: u64, index: usize, value: u64) {
        self.tables.get_mut(&table).expect("a table")[index] = value;
    }
}
