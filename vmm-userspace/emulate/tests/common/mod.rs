//! A flat guest for tests: identity-mapped RAM in a sparse map of bytes.
#![allow(dead_code)]

use std::collections::BTreeMap;

use abi::vcpu::{Segment, VcpuState};
use emulate::Bus;

/// RAM by page, and logs of what was accessed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ram {
    pub pages: BTreeMap<u64, Vec<u8>>,
    pub ports: Vec<(u16, u8, u32)>,
    pub accesses: Vec<(u64, u8, bool)>,
}

impl Ram {
    pub fn put(&mut self, gpa: u64, bytes: &[u8]) {
        for (i, &byte) in bytes.iter().enumerate() {
            let at = gpa + i as u64;
            let page = self.pages.entry(at >> 12).or_insert_with(|| vec![0; 4096]);
            page[(at & 0xfff) as usize] = byte;
        }
    }

    pub fn put64(&mut self, gpa: u64, value: u64) {
        self.put(gpa, &value.to_le_bytes());
    }

    pub fn get(&self, gpa: u64, len: usize) -> Vec<u8> {
        let byte = |at: u64| self.pages.get(&(at >> 12)).map_or(0, |p| p[(at & 0xfff) as usize]);
        (0..len as u64).map(|i| byte(gpa + i)).collect()
    }

    pub fn get64(&self, gpa: u64) -> u64 {
        u64::from_le_bytes(self.get(gpa, 8).try_into().unwrap())
    }
}

impl Bus for Ram {
    fn read(&mut self, gpa: u64, size: u8) -> u64 {
        assert!((gpa & 0xfff) + u64::from(size) <= 0x1000, "access crosses a page");
        self.accesses.push((gpa, size, false));
        let mut value = [0; 8];
        value[..size.into()].copy_from_slice(&self.get(gpa, size.into()));
        u64::from_le_bytes(value)
    }
    fn write(&mut self, gpa: u64, size: u8, value: u64) {
        assert!((gpa & 0xfff) + u64::from(size) <= 0x1000, "access crosses a page");
        self.accesses.push((gpa, size, true));
        self.put(gpa, &value.to_le_bytes()[..size.into()]);
    }
    fn port_read(&mut self, port: u16, size: u8) -> u32 {
        self.ports.push((port, size, u32::MAX));
        self.ports.len() as u32 * 0x0101_0101
    }
    fn port_write(&mut self, port: u16, size: u8, value: u32) {
        self.ports.push((port, size, value));
    }
    fn physical_bits(&self) -> u32 {
        40
    }
}

const PML4: u64 = 0x1_7000_0000;

/// 64-bit mode at privilege 0 with the low 8 GiB identity-mapped by 1 GiB pages.
pub fn long(ram: &mut Ram) -> VcpuState {
    ram.put64(PML4, (PML4 + 0x1000) | 0x27);
    for i in 0..8 {
        ram.put64(PML4 + 0x1000 + i * 8, i << 30 | 0xe7);
    }
    let data = Segment { selector: 0x18, attr: 0xc93, limit: u32::MAX, base: 0 };
    VcpuState {
        rflags: 2,
        cr0: 0x8001_0031,
        cr3: PML4,
        cr4: 0x20,
        efer: 0xd01,
        cs: Segment { selector: 0x10, attr: 0xa9b, limit: u32::MAX, base: 0 },
        ss: data,
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ..VcpuState::default()
    }
}

/// Real mode.
pub fn real() -> VcpuState {
    let data = Segment { selector: 0, attr: 0x93, limit: 0xffff, base: 0 };
    VcpuState {
        rflags: 2,
        cr0: 0x10,
        cs: Segment { attr: 0x9b, ..data },
        ss: data,
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ..VcpuState::default()
    }
}

/// Flat 32-bit protected mode without paging.
pub fn protected() -> VcpuState {
    let data = Segment { selector: 0x18, attr: 0xc93, limit: u32::MAX, base: 0 };
    VcpuState {
        cr0: 0x11,
        cs: Segment { attr: 0xc9b, ..data },
        ss: data,
        ds: data,
        es: data,
        ..real()
    }
}
