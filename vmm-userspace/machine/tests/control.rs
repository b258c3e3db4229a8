//! Control registers against the conditions of the SDM.

use abi::vcpu::{Groups, VcpuState};
use devices::lapic::Gp;
use machine::{
    control::{self, Limits},
    memory::{GuestMemory, NotRam},
    reset,
};
use proptest::prelude::*;

/// One page of RAM at 0x1000.
struct Page(Vec<u8>);

impl Page {
    fn new() -> Self {
        Self(vec![0; 0x1000])
    }
    fn put(&mut self, gpa: u64, value: u64) {
        self.write(gpa, &value.to_le_bytes()).unwrap();
    }
}

impl GuestMemory for Page {
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), NotRam> {
        let at = gpa.checked_sub(0x1000).ok_or(NotRam(gpa))? as usize;
        bytes.copy_from_slice(self.0.get(at..at + bytes.len()).ok_or(NotRam(gpa))?);
        Ok(())
    }
    fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), NotRam> {
        let at = gpa.checked_sub(0x1000).ok_or(NotRam(gpa))? as usize;
        self.0.get_mut(at..at + bytes.len()).ok_or(NotRam(gpa))?.copy_from_slice(bytes);
        Ok(())
    }
}

const LIMITS: Limits = Limits { cr4: 0x37_07ff, xcr0: 0xe7, physical_bits: 40 };
const PG_PE: u64 = 0x8000_0011;

fn state() -> VcpuState {
    let mut state = reset::power_on(0);
    state.cr0 = 0x11;
    state.cr3 = 0x1000;
    state
}

#[test]
fn long_mode_is_entered_and_left() {
    let page = Page::new();
    let mut s = state();
    s.efer = 0x100;
    // Without PAE, from 64-bit code, with a 16-bit TSS.
    assert_eq!(control::write_cr0(&mut s, PG_PE, &page, &LIMITS), Err(Gp));
    s.cr4 = 0x20;
    s.tr.attr = 0x83;
    assert_eq!(control::write_cr0(&mut s, PG_PE, &page, &LIMITS), Err(Gp));
    s.tr.attr = 0x8b;
    s.cs.attr |= 1 << 9;
    assert_eq!(control::write_cr0(&mut s, PG_PE, &page, &LIMITS), Err(Gp));
    s.cs.attr &= !(1 << 9);
    let groups = control::write_cr0(&mut s, PG_PE, &page, &LIMITS).unwrap();
    assert!(groups.contains(Groups::CR | Groups::EFER_PAT));
    assert_eq!((s.cr0, s.efer), (PG_PE, 0x500));
    // In long mode PAE stays, CR3 has reserved bits, and 64-bit code cannot leave.
    assert_eq!(control::write_cr4(&mut s, 0, &page, &LIMITS), Err(Gp));
    assert_eq!(control::write_cr3(&mut s, 1 << 40, &page, &LIMITS), Err(Gp));
    s.cs.attr |= 1 << 9;
    assert_eq!(control::write_cr0(&mut s, 0x11, &page, &LIMITS), Err(Gp));
    s.cs.attr &= !(1 << 9);
    s.cr4 |= 1 << 17;
    assert_eq!(control::write_cr0(&mut s, 0x11, &page, &LIMITS), Err(Gp), "PCIDE");
    s.cr4 &= !(1 << 17);
    control::write_cr0(&mut s, 0x11, &page, &LIMITS).unwrap();
    assert_eq!((s.cr0, s.efer), (0x11, 0x100));
}

#[test]
fn pae_entries_are_loaded_and_checked() {
    let mut page = Page::new();
    for i in 0..4 {
        page.put(0x1000 + i * 8, (0x5000 * (i + 1)) | 1);
    }
    let mut s = state();
    s.cr4 = 0x20;
    control::write_cr0(&mut s, PG_PE, &page, &LIMITS).unwrap();
    assert_eq!(s.pdpte, [0x5001, 0xa001, 0xf001, 0x1_4001]);
    // A reserved bit in a present entry; an absent one may hold anything.
    page.put(0x1020, 0x5003);
    assert_eq!(control::write_cr3(&mut s, 0x1020, &page, &LIMITS), Err(Gp));
    assert_eq!((s.cr3, s.pdpte[0]), (0x1000, 0x5001));
    page.put(0x1020, 0x5002);
    control::write_cr3(&mut s, 0x1020, &page, &LIMITS).unwrap();
    assert_eq!(s.pdpte[0], 0x5002);
    // Toggling PGE reloads, toggling TSD does not.
    page.put(0x1020, 0x6001);
    control::write_cr4(&mut s, 0x24, &page, &LIMITS).unwrap();
    assert_eq!(s.pdpte[0], 0x5002);
    control::write_cr4(&mut s, 0xa4, &page, &LIMITS).unwrap();
    assert_eq!(s.pdpte[0], 0x6001);
    assert_eq!(control::write_cr3(&mut s, 0x9_0000, &page, &LIMITS), Err(Gp), "not RAM");
}

#[test]
fn cr4_takes_only_what_is_offered() {
    let page = Page::new();
    let mut s = state();
    for bit in [13, 14, 12, 22, 23, 24, 40, 63] {
        assert_eq!(control::write_cr4(&mut s, 1 << bit, &page, &LIMITS), Err(Gp), "{bit}");
    }
    // PCIDE only in long mode with an aligned CR3.
    assert_eq!(control::write_cr4(&mut s, 1 << 17 | 0x20, &page, &LIMITS), Err(Gp));
    (s.efer, s.cr0, s.cr4, s.cr3) = (0x500, PG_PE, 0x20, 0x1008);
    assert_eq!(control::write_cr4(&mut s, 1 << 17 | 0x20, &page, &LIMITS), Err(Gp));
    s.cr3 = 0x1000;
    control::write_cr4(&mut s, 1 << 17 | 0x20, &page, &LIMITS).unwrap();
    // Then CR3 takes a PCID, and bit 63 is not kept.
    control::write_cr3(&mut s, 1 << 63 | 0x2007, &page, &LIMITS).unwrap();
    assert_eq!(s.cr3, 0x2007);
}

#[test]
fn lmsw_sets_but_never_clears_pe() {
    let page = Page::new();
    let mut s = state();
    control::lmsw(&mut s, 0xfff0, &page, &LIMITS).unwrap();
    assert_eq!(s.cr0, 0x11);
    control::lmsw(&mut s, 0xa, &page, &LIMITS).unwrap();
    assert_eq!(s.cr0, 0x1b);
    assert_eq!((control::clts(&mut s), s.cr0), (Groups::CR, 0x13));
}

proptest! {
    #[test]
    fn cr0_refuses_what_the_manual_forbids(value: u64, high: bool) {
        let mut s = state();
        let value = if high { value } else { value & 0xffff_ffff };
        let bit = |n: u32| value >> n & 1 != 0;
        let bad = value >> 32 != 0 || bit(31) && !bit(0) || bit(29) && !bit(30);
        let result = control::write_cr0(&mut s, value, &Page::new(), &LIMITS);
        prop_assert_eq!(result.is_err(), bad);
        if !bad {
            prop_assert_eq!(s.cr0, value & 0xe005_003f | 0x10);
        }
    }

    #[test]
    fn xcr0_is_consistent(value in 0..0x400u64, high in prop::sample::select(vec![0u64, 1 << 9]), index in 0..2u64) {
        let mut s = state();
        (s.gpr.rax, s.gpr.rdx, s.gpr.rcx) = (value | 0xdead << 32, high, index);
        let value = value | high << 32;
        let ok = index == 0 && [1, 3, 7, 0xe7].contains(&value);
        prop_assert_eq!(control::xsetbv(&mut s, &LIMITS).is_ok(), ok);
        prop_assert_eq!(s.xcr0, if ok { value } else { 1 });
    }
}
