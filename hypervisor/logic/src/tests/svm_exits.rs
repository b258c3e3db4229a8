//! Exits and what they tell.

use crate::svm::exits::{code, neutral};
use crate::svm::qualification::{
    control_access, debug_access, exception, memory_access, port_access, port_length, task_switch,
};
use abi::vcpu::{ControlAccess, Event, Exit, MemoryAccess, PortAccess};
use proptest::prelude::*;
use std::collections::BTreeSet;

#[test]
fn exit_codes_are_those_of_the_manual() {
    for (code, exit) in [
        (0x00, Exit::Control),
        (0x08, Exit::Control),
        (0x1f, Exit::Control),
        (0x20, Exit::Debug),
        (0x3f, Exit::Debug),
        (0x40, Exit::Exception),
        (0x5f, Exit::Exception),
        (0x60, Exit::Other),
        (0x61, Exit::Other),
        (0x62, Exit::Other),
        (0x63, Exit::Init),
        (0x64, Exit::InterruptWindow),
        (0x65, Exit::Control),
        (0x66, Exit::DescriptorTable),
        (0x6d, Exit::DescriptorTable),
        (0x6e, Exit::Rdtsc),
        (0x6f, Exit::Rdpmc),
        (0x70, Exit::Other),
        (0x72, Exit::Cpuid),
        (0x73, Exit::Other),
        (0x74, Exit::Other),
        (0x76, Exit::CacheInvalidate),
        (0x77, Exit::Pause),
        (0x78, Exit::Hlt),
        (0x79, Exit::Invlpg),
        (0x7a, Exit::Virtualization),
        (0x7b, Exit::Port),
        (0x7c, Exit::MsrRead),
        (0x7d, Exit::TaskSwitch),
        (0x7e, Exit::Other),
        (0x7f, Exit::TripleFault),
        (0x80, Exit::Virtualization),
        (0x81, Exit::Hypercall),
        (0x82, Exit::Virtualization),
        (0x86, Exit::Virtualization),
        (0x87, Exit::Rdtsc),
        (0x88, Exit::Other),
        (0x89, Exit::CacheInvalidate),
        (0x8a, Exit::Mwait),
        (0x8c, Exit::Mwait),
        (0x8d, Exit::Xsetbv),
        (0x8e, Exit::Virtualization),
        (0xa0, Exit::Virtualization),
        (0xa2, Exit::Invlpg),
        (0xa4, Exit::Virtualization),
        (0xa5, Exit::Other),
        (0xa2, Exit::Invlpg),
        (0x3ff, Exit::Other),
        (0x400, Exit::Memory),
        (0x401, Exit::Other),
        (u64::MAX, Exit::BadState),
        (u64::MAX - 1, Exit::BadState),
        (u64::MAX - 3, Exit::BadState),
        (u64::MAX - 4, Exit::Other),
    ] {
        assert_eq!(neutral(code, 0), exit as u8, "{code:#x}");
    }
    assert_eq!(neutral(code::MSR, 1), Exit::MsrWrite as u8);
    assert_eq!(neutral(0x72, 1), Exit::Cpuid as u8);
}

#[test]
fn codes_count_at_full_width() {
    // A code that is only right in its low half is none of them.
    for low in (0..0x500).chain([0xffff_ffff, 0xffff_fffe]) {
        for high in [1_u64 << 32, 1 << 63, 0xffff_fffe << 32] {
            let exit = neutral(high | low, 1);
            assert_eq!(exit, Exit::Other as u8, "{:#x}", high | low);
        }
    }
    // As QEMU 7.2 writes VMEXIT_INVALID.
    assert_eq!(neutral(0xffff_ffff, 0), Exit::BadState as u8);
    assert_eq!(neutral(0xffff_fffb, 0), Exit::Other as u8);
}

#[test]
fn both_vendors_have_the_same_exits() {
    let rare = [neutral(code::MSR, 1), neutral(code::NPF, 0), neutral(u64::MAX, 0)];
    let mut ours: BTreeSet<u8> = (0..0x100).map(|code| neutral(code, 0)).chain(rare).collect();
    let theirs: BTreeSet<u8> = (0..0x100).map(crate::vmx::exits::neutral).collect();
    // The window for NMIs is no exit of its own here: the kernel makes it.
    ours.insert(Exit::NmiWindow as u8);
    assert_eq!(ours, theirs);
}

#[test]
fn port_accesses_are_translated() {
    // OUT dx, al; IN eax, dx; REP INSW, addressed with 64 bits, into ES; OUTSB from FS.
    let access = |info1| {
        let access: PortAccess = port_access(info1);
        let kinds = (access.is_in(), access.is_string(), access.is_rep());
        (access.port(), access.size(), kinds)
    };
    assert_eq!(access(0x03f8_0010), (0x3f8, 1, (false, false, false)));
    assert_eq!(access(0x0cfc_0041), (0xcfc, 4, (true, false, false)));
    assert_eq!(access(0x01f0_022d), (0x1f0, 2, (true, true, true)));
    assert_eq!(access(0xffff_1094), (0xffff, 1, (false, true, false)));
    // The linear address of a string access is not told.
    assert_eq!(port_access(u64::MAX).0 & PortAccess::ADDRESS_VALID, 0);
    assert_eq!(port_access(u64::MAX).0 >> 32, 0);
}

#[test]
fn port_instructions_have_their_length_wherever_they_are() {
    assert_eq!(port_length(0x1000, 0x1001), 1);
    assert_eq!(port_length(0x1000, 0x100f), 15);
    assert_eq!(port_length(0xffff, 0x0), 1);
    assert_eq!(port_length(0xfffe, 0x1_0000), 2);
    assert_eq!(port_length(0xffff_ffff, 0), 1);
    assert_eq!(port_length(u64::MAX, 1), 2);
}

#[test]
fn memory_accesses_are_translated() {
    const FINAL: u64 = 1 << 32;
    for (info1, expected) in [
        (FINAL | 0x4, MemoryAccess::READ | MemoryAccess::FINAL),
        (FINAL | 0x5, MemoryAccess::READ | MemoryAccess::FINAL),
        (FINAL | 0x6, MemoryAccess::WRITE | MemoryAccess::FINAL),
        (FINAL | 0x14, MemoryAccess::FETCH | MemoryAccess::FINAL),
        // A page table, whatever is accessed through it.
        (1 << 33 | 0x6, MemoryAccess::WRITE),
        (1 << 33 | 0x16, MemoryAccess::WRITE),
    ] {
        assert_eq!(memory_access(info1).0, expected, "{info1:#x}");
    }
}

#[test]
fn control_accesses_are_translated() {
    const MOV: u64 = 1 << 63;
    let fields = |access: ControlAccess| {
        (access.register(), access.kind(), access.gpr(), access.is_decoded())
    };
    // MOV r9 from CR8; MOV CR0 from rbx, by both codes.
    assert_eq!(fields(control_access(0x08, MOV | 9, true)), (8, 1, 9, true));
    assert_eq!(fields(control_access(code::WRITE_CR0, MOV | 3, true)), (0, 0, 3, true));
    assert_eq!(fields(control_access(code::CR0_SEL_WRITE, MOV | 3, true)), (0, 0, 3, true));
    assert_eq!(fields(control_access(code::WRITE_CR0 + 4, MOV, true)), (4, 0, 0, true));
    // SMSW, LMSW or CLTS; and a processor that tells nothing, whatever it has left there.
    assert_eq!(fields(control_access(0x00, 0, true)), (0, 1, 0, false));
    assert_eq!(fields(control_access(code::WRITE_CR0, 0, true)), (0, 0, 0, false));
    assert_eq!(fields(control_access(0x03, u64::MAX, false)), (3, 1, 0, false));
    assert_eq!(control_access(0x14, u64::MAX, true).0 >> 16, 0);
    assert_eq!(debug_access(0x20 + 6, 2, true), 6 | 1 << 4 | 1 << 7 | 2 << 8);
    assert_eq!(debug_access(code::WRITE_DR0 + 7, 2, false), 7);
}

#[test]
fn task_switches_are_translated() {
    let by = |info2, int_info| task_switch(0xdead_0028, info2, int_info);
    assert_eq!(by(0, 0), 0x28);
    assert_eq!(by(1 << 36, 0), 0x28 | 1 << 30);
    assert_eq!(by(1 << 38, 0), 0x28 | 2 << 30);
    assert_eq!(by(1 << 44, 0x8000_0b08), 0x28 | 3 << 30);
    // Not valid.
    assert_eq!(by(0, 0x0b08), 0x28);
}

proptest! {
    #[test]
    fn exceptions_have_an_error_code_where_there_is_one(
        vector in 0..32_u8,
        info1 in any::<u32>(),
    ) {
        let code = code::EXCEPTION_0 + u64::from(vector);
        let error = match vector {
            8 => Some(0),
            10..=14 | 17 | 21 | 29 | 30 => Some(info1),
            _ => None,
        };
        let undefined = 0x1234 << 32 | u64::from(info1);
        prop_assert_eq!(exception(code, undefined, true), Event::exception(vector, error));
        prop_assert_eq!(exception(code, undefined, false), Event::exception(vector, None));
    }
}
