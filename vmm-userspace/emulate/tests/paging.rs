//! Page walks in all modes: rights, error codes, accessed and dirty bits.

mod common;

use abi::vcpu::VcpuState;
use common::Ram;
use emulate::{
    Fault,
    paging::{Access, translate, translate_fetched},
};
use proptest::prelude::*;

const P: u64 = 1;
const W: u64 = 2;
const U: u64 = 4;
const PS: u64 = 0x80;
const NX: u64 = 1 << 63;

fn fault(address: u64, code: u32) -> Result<u64, Fault> {
    Err(Fault::Page { address, code })
}

/// 4-level tables with one 4 KiB page at linear 0x4030_2010_5000.
fn four_level(ram: &mut Ram, rights: [u64; 4]) -> (VcpuState, u64) {
    let linear: u64 = 0x4030_2010_5678;
    let mut table = 0x1_0000;
    for (level, right) in rights.into_iter().enumerate() {
        let index = linear >> (39 - 9 * level) & 511;
        let next = if level == 3 { 0xabc_d000 } else { table + 0x1000 };
        ram.put64(table + index * 8, next | right);
        table += 0x1000;
    }
    let mut state = common::long(&mut Ram::default());
    state.cr3 = 0x1_0000;
    (state, linear)
}

proptest! {
    /// Against the tables of SDM 3A 4.6.1, written out flat.
    #[test]
    fn rights(bits in any::<[u8; 4]>(), cpl in prop::sample::select(vec![0u8, 3]), wp: bool, smep: bool, smap: bool, ac: bool, nxe: bool, access in prop::sample::select(vec![Access::Read, Access::Write, Access::Fetch])) {
        let mut ram = Ram::default();
        let rights = bits.map(|b| {
            let nx = if b & 0x30 == 0x30 && nxe { NX } else { 0 };
            // Mostly writable and for users, so that all outcomes occur.
            let w = if b & 3 != 0 { W } else { 0 };
            let u = if b & 12 != 0 { U } else { 0 };
            P | w | u | nx
        });
        let (mut state, linear) = four_level(&mut ram, rights);
        let bit = |on: bool, n: u32| u64::from(on) << n;
        state.cr0 = 0x8000_0001 | bit(wp, 16);
        state.cr4 = 0x20 | bit(smep, 20) | bit(smap, 21);
        state.rflags = bit(ac, 18);
        state.efer = 0x500 | bit(nxe, 11);
        let all = |mask: u64| rights.iter().all(|r| r & mask != 0);
        let any_nx = rights.iter().any(|r| r & NX != 0);
        let (user, page_user, page_writable) = (cpl == 3, all(U), all(W));
        let ok = match (access, user) {
            (Access::Fetch, true) => page_user && !any_nx,
            (Access::Fetch, false) => !(any_nx || smep && page_user),
            (Access::Read, true) => page_user,
            (Access::Read, false) => !page_user || !smap || ac,
            (Access::Write, true) => page_user && page_writable,
            (Access::Write, false) => (!page_user || !smap || ac) && (page_writable || !wp),
        };
        let code = 1
            | if access == Access::Write { 2 } else { 0 }
            | if user { 4 } else { 0 }
            | if access == Access::Fetch && (nxe || smep) { 16 } else { 0 };
        let expect = if ok { Ok(0xabc_d678) } else { fault(linear, code) };
        prop_assert_eq!(translate(&state, &mut ram, linear, access, cpl), expect);
        prop_assert_eq!(translate_fetched(&state, &mut ram, linear), Some(0xabc_d678));
        let leaf = ram.get64(0x1_3000 + 0x105 * 8);
        prop_assert_eq!(leaf & 0x20 != 0, ok, "accessed");
        prop_assert_eq!(leaf & 0x40 != 0, ok && access == Access::Write, "dirty");
        prop_assert!(ram.get64(0x1_0000 + (linear >> 39 & 511) * 8) & 0x60 == 0x20);
    }
}

#[test]
fn large_pages_and_reserved_bits() {
    for (level, offset) in [(1, 0x2010_5678u64 & 0x3fff_ffff), (2, 0x2010_5678 & 0x1f_ffff)] {
        let mut ram = Ram::default();
        let mut rights = [P | W | U; 4];
        rights[level] |= PS;
        let (state, linear) = four_level(&mut ram, rights);
        let slot = 0x1_0000 + level as u64 * 0x1000 + (linear >> (39 - 9 * level) & 511) * 8;
        ram.put64(slot, 0x40_0000_0000 | PS | P | W);
        assert_eq!(
            translate(&state, &mut ram, linear, Access::Read, 0),
            Ok(0x40_0000_0000 | offset)
        );
        assert_eq!(translate_fetched(&state, &mut ram, linear), Some(0x40_0000_0000 | offset));
        // A low address bit of a large page, and an address bit beyond 40.
        for bad in [1u64 << 13, 1 << 40, 1 << 51] {
            ram.put64(slot, bad | PS | P | W);
            assert_eq!(translate(&state, &mut ram, linear, Access::Read, 0), fault(linear, 9));
        }
    }
    // PS in a PML4 entry; XD while it is off; not present.
    for (right, nxe, code) in [(P | PS, true, 9), (P | NX, false, 9), (0, true, 0)] {
        let mut ram = Ram::default();
        let (mut state, linear) = four_level(&mut ram, [right, P, P, P]);
        state.efer = if nxe { 0xd00 } else { 0x500 };
        assert_eq!(translate(&state, &mut ram, linear, Access::Read, 0), fault(linear, code));
        if right & P == 0 {
            assert_eq!(translate_fetched(&state, &mut ram, linear), None);
        }
    }
}

#[test]
fn pae_uses_the_loaded_pointers() {
    let mut ram = Ram::default();
    let mut state = common::protected();
    (state.cr0, state.cr4, state.cr3) = (0x8000_0011, 0x20, 0xdead_0000);
    state.pdpte = [0, 0, 0x5000 | P, 0];
    ram.put64(0x5000 + 8, 0x6000 | P | W | U);
    ram.put64(0x6000 + 3 * 8, 0x12_3456_7000 | P | W);
    let linear = 0x8020_3abc;
    assert_eq!(translate(&state, &mut ram, linear, Access::Write, 0), Ok(0x12_3456_7abc));
    assert_eq!(translate(&state, &mut ram, linear, Access::Read, 3), fault(linear, 5));
    assert_eq!(translate(&state, &mut ram, 0, Access::Write, 3), fault(0, 6));
    // 2 MiB pages need no CR4.PSE here; bits 52 to 62 are reserved.
    ram.put64(0x5000 + 16, 0x1_0040_0000 | PS | P);
    assert_eq!(translate(&state, &mut ram, 0x8041_2345, Access::Read, 0), Ok(0x1_0041_2345));
    ram.put64(0x5000 + 16, 1 << 52 | P);
    assert_eq!(translate(&state, &mut ram, 0x8041_2345, Access::Read, 0), fault(0x8041_2345, 9));
}

#[test]
fn two_level_paging_with_and_without_large_pages() {
    let mut ram = Ram::default();
    let mut state = common::protected();
    (state.cr0, state.cr3) = (0x8000_0011, 0x7018);
    let put32 = |ram: &mut Ram, at: u64, value: u32| ram.put(at, &value.to_le_bytes());
    put32(&mut ram, 0x7000 + 4, 0x8003);
    put32(&mut ram, 0x8000 + 5 * 4, 0xcafe_b003);
    assert_eq!(translate(&state, &mut ram, 0x0040_5123, Access::Write, 0), Ok(0xcafe_b123));
    // A 4 MiB page with address bits 32 to 39 in bits 13 to 20, only with CR4.PSE.
    put32(&mut ram, 0x7000 + 8, 0x1240_0083 | 0x5a << 13);
    assert_ne!(translate(&state, &mut ram, 0x0081_2345, Access::Read, 0), Ok(0x5a_1241_2345));
    state.cr4 = 0x10;
    assert_eq!(translate(&state, &mut ram, 0x0081_2345, Access::Read, 0), Ok(0x5a_1241_2345));
    put32(&mut ram, 0x7000 + 8, 0x1240_0083 | 1 << 21);
    assert_eq!(translate(&state, &mut ram, 0x0081_2345, Access::Read, 0), fault(0x0081_2345, 9));
}

#[test]
fn without_paging_addresses_are_physical() {
    let state = common::protected();
    let mut ram = Ram::default();
    assert_eq!(translate(&state, &mut ram, 0xfee0_0080, Access::Write, 3), Ok(0xfee0_0080));
    assert!(ram.accesses.is_empty());
}

#[test]
fn pae_entries_come_from_memory_where_no_register_has_them() {
    let mut ram = Ram::default();
    let mut state = common::protected();
    (state.cr0, state.cr4, state.cr3) = (0x8000_0001, 0x20, 0x2_0020);
    // The second GiB, by 2 MiB pages: one is there.
    ram.put64(0x2_0028, 0x3_0001);
    ram.put64(0x3_0000 + 8, 0x60_0000 | PS | W | P);
    let at = 0x4020_1234;
    let read = |state: &VcpuState, ram: &mut Ram| translate(state, ram, at, Access::Read, 0);
    assert_eq!(read(&state, &mut ram), Ok(0x60_1234));
    assert_eq!(translate(&state, &mut ram, 0x1234, Access::Read, 0), fault(0x1234, 0));
    // A reserved bit is found when the entry is used.
    ram.put64(0x2_0028, 0x3_0003);
    assert_eq!(read(&state, &mut ram), fault(at, 9));
    // Registers come before memory.
    state.pdpte = [0, 0x3_0001, 0, 0];
    assert_eq!(read(&state, &mut ram), Ok(0x60_1234));
}

#[test]
fn tables_outside_of_ram_fault() {
    /// Reads ones everywhere.
    struct Nothing;
    impl emulate::Bus for Nothing {
        fn read(&mut self, _: u64, _: u8) -> u64 {
            u64::MAX
        }
        fn write(&mut self, gpa: u64, _: u8, _: u64) {
            panic!("a write to {gpa:#x}");
        }
        fn port_read(&mut self, _: u16, _: u8) -> u32 {
            0
        }
        fn port_write(&mut self, _: u16, _: u8, _: u32) {}
        fn physical_bits(&self) -> u32 {
            40
        }
    }
    let mut state = common::long(&mut Ram::default());
    state.rip = 0x1234;
    let report = emulate::emulate(&mut state, &mut Nothing, None);
    let fault = Fault::Page { address: 0x1234, code: 0x19 };
    assert_eq!(report.end, emulate::End::Fault(fault));
    assert_eq!(emulate::length(&mut state, &mut Nothing, &[0xf4]), emulate::End::Fault(fault));
}
