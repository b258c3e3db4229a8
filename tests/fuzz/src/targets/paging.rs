//! A walk through page tables that a guest wrote.

use std::collections::BTreeMap;

use abi::vcpu::VcpuState;
use emulate::Bus;
use emulate::paging::{Access, code, translate, translate_fetched};

use super::Target;
use crate::input::{Bytes, Input};

/// Control registers, an address, and entries of tables.
pub const TARGET: Target = Target { name: "paging", longest: 512, dictionary: &[], seeds, run };

/// Guest-physical bits, as the monitor tells its guests.
const PHYSICAL_BITS: u32 = 46;

/// Memory in which every word is zero that was not written.
struct Tables {
    words: BTreeMap<u64, u64>,
    /// Where the words lie that were read.
    reads: Vec<u64>,
    writes: usize,
}

impl Tables {
    /// Whether a word was read for two levels: marking one then changes the other.
    fn overlap(&self) -> bool {
        let mut reads = self.reads.clone();
        reads.sort_unstable();
        reads.windows(2).any(|pair| pair[0] == pair[1])
    }
}

impl Bus for Tables {
    fn read(&mut self, gpa: u64, size: u8) -> u64 {
        assert!(size == 4 || size == 8, "an entry of {size} bytes");
        assert_eq!(gpa % u64::from(size), 0, "an entry across words");
        self.reads.push(gpa & !7);
        let word = self.words.get(&(gpa & !7)).copied().unwrap_or(0);
        if size == 8 { word } else { word >> (gpa % 8 * 8) & 0xffff_ffff }
    }

    fn write(&mut self, gpa: u64, size: u8, value: u64) {
        let old = self.read(gpa, size);
        self.reads.pop();
        // Accessed is bit 5, dirty bit 6 (SDM 3A 4.8).
        assert_eq!((old ^ value) & !0x60, 0, "more than accessed and dirty bits");
        self.writes += 1;
        let (mask, shift) = if size == 8 { (u64::MAX, 0) } else { (0xffff_ffff, gpa % 8 * 8) };
        let word = self.words.entry(gpa & !7).or_default();
        *word = *word & !(mask << shift) | value << shift;
    }

    fn port_read(&mut self, port: u16, _: u8) -> u32 {
        panic!("a walk reads port {port:#x}");
    }

    fn port_write(&mut self, port: u16, _: u8, _: u32) {
        panic!("a walk writes port {port:#x}");
    }

    fn physical_bits(&self) -> u32 {
        PHYSICAL_BITS
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let head = |cr0: u32, cr4: u32, efer: u32, linear: u64| {
        Bytes::default().u32(cr0).u32(cr4).u32(efer).u32(2).u64(0x1000).u64(linear)
    };
    let entry = |bytes: Bytes, at: u64, value: u64| bytes.u64(at).u64(value);
    let long = head(0x8001_0031, 0x20, 0xd01, 0x40_3123).put(&[0]);
    let long = entry(entry(long, 0x1000, 0x2007), 0x2000, 0x3007);
    let small = entry(entry(long.clone(), 0x3010, 0x4007), 0x4018, 0x5007);
    let old = head(0x8001_0031, 0x10, 0, 0x40_3123).put(&[0]);
    let pae = head(0x8001_0031, 0x20, 0x800, 0x40_3123).put(&[1]).u64(0x3001);
    vec![
        small.0,
        entry(long, 0x3010, 0x4000_00e7).0,
        entry(old.clone(), 0x1000, 0x2007_0000_0000).0,
        entry(old, 0x1000, 0xe7_0000_0000).0,
        entry(entry(pae, 0x3010, 0x4007), 0x4018, 0x5007).0,
    ]
}

fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut state = VcpuState {
        cr0: input.u32().into(),
        cr4: input.u32().into(),
        efer: input.u32().into(),
        rflags: input.u32().into(),
        cr3: input.u64(),
        ..VcpuState::default()
    };
    let linear = input.u64();
    if input.byte() & 1 != 0 {
        state.pdpte = [input.u64(); 4];
    }
    let mut tables = Tables { words: BTreeMap::new(), reads: Vec::new(), writes: 0 };
    while !input.is_empty() {
        let (at, value) = (input.u64() & !7, input.u64());
        tables.words.insert(at, value);
    }
    for access in [Access::Read, Access::Write, Access::Fetch] {
        for cpl in [0, 3] {
            walk(&state, &mut tables, linear, access, cpl);
        }
    }
}

fn walk(state: &VcpuState, tables: &mut Tables, linear: u64, access: Access, cpl: u8) {
    tables.reads.clear();
    let found = translate(state, tables, linear, access, cpl);
    let writes = tables.writes;
    if !tables.overlap() {
        let again = translate(state, tables, linear, access, cpl);
        assert_eq!(again, found, "the second walk ends elsewhere");
        assert_eq!(tables.writes, writes, "the second walk marks again");
    }
    match found {
        Ok(gpa) => {
            assert_eq!(gpa & 0xfff, linear & 0xfff);
            assert_eq!(gpa >> PHYSICAL_BITS, 0, "an address that no guest has");
            if access == Access::Fetch
                && !tables.overlap()
                && let Some(fetched) = translate_fetched(state, tables, linear)
            {
                assert_eq!(fetched, gpa, "the short walk ends elsewhere");
            }
        }
        Err(emulate::Fault::Page { address, code: bits }) => {
            assert_eq!(address, linear);
            assert_eq!(bits & code::WRITE != 0, access == Access::Write);
            assert_eq!(bits & code::USER != 0, cpl == 3);
            assert!(bits & code::FETCH == 0 || access == Access::Fetch);
            assert!(bits & code::RESERVED == 0 || bits & code::PRESENT != 0);
        }
        Err(fault) => panic!("a walk raises {fault:?}"),
    }
}
