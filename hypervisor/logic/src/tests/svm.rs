//! The VMCB: places and names of fields, segments and events in it.

use crate::svm::exits::code;
use crate::svm::field;
use crate::svm::fields::{Clean, SegmentFields, TableFields};
use crate::svm::intercepts::{ControlRegisters, Misc1, Misc2, Misc3, VirtualInterrupt};
use crate::svm::state::{
    attributes_from_vmcb, attributes_to_vmcb, event_from_vmcb, event_to_vmcb, privilege_level,
    stack_from_vmcb, task_from_vmcb,
};
use abi::vcpu::{Event, EventKind, Segment};
use proptest::prelude::*;
use std::collections::BTreeMap;

const SEGMENTS: [(&str, SegmentFields); 8] = [
    ("ES", field::GUEST_ES),
    ("CS", field::GUEST_CS),
    ("SS", field::GUEST_SS),
    ("DS", field::GUEST_DS),
    ("FS", field::GUEST_FS),
    ("GS", field::GUEST_GS),
    ("LDTR", field::GUEST_LDTR),
    ("TR", field::GUEST_TR),
];
const TABLES: [(&str, TableFields); 2] = [("GDTR", field::GUEST_GDTR), ("IDTR", field::GUEST_IDTR)];

#[test]
fn fields_are_aligned_and_do_not_overlap() {
    let mut places = BTreeMap::new();
    let mut place = |name: &'static str, offset: usize, size: usize| {
        assert_eq!(offset % size, 0, "{name}");
        assert!(offset + size <= 0x1000, "{name}");
        for byte in offset..offset + size {
            assert_eq!(places.insert(byte, name), None, "{name} at {byte:#x}");
        }
    };
    for (name, offset, size, _) in field::ALL {
        assert_eq!(name.starts_with("GUEST_"), *offset >= 0x400, "{name}");
        place(name, *offset, *size);
    }
    for (name, segment) in SEGMENTS {
        place(name, segment.selector.offset(), 2);
        place(name, segment.attributes.offset(), 2);
        place(name, segment.limit.offset(), 4);
        place(name, segment.base.offset(), 8);
    }
    for (name, table) in TABLES {
        place(name, table.limit.offset(), 4);
        place(name, table.base.offset(), 8);
    }
}

#[test]
fn places_are_those_of_the_manual() {
    // APM 2 appendix B: one of each group, and those behind gaps.
    assert_eq!(field::INTERCEPT_MISC3.offset(), 0x14);
    assert_eq!(field::IOPM_BASE.offset(), 0x40);
    assert_eq!(field::MSRPM_BASE.offset(), 0x48);
    assert_eq!(field::ASID.offset(), 0x58);
    assert_eq!(field::TLB_CONTROL.offset(), 0x5c);
    assert_eq!(field::V_INTR.offset(), 0x60);
    assert_eq!(field::EXITCODE.offset(), 0x70);
    assert_eq!(field::EXITINTINFO.offset(), 0x88);
    assert_eq!(field::EVENTINJ.offset(), 0xa8);
    assert_eq!(field::N_CR3.offset(), 0xb0);
    assert_eq!(field::CLEAN.offset(), 0xc0);
    assert_eq!(field::NRIP.offset(), 0xc8);
    assert_eq!(field::GUEST_TR.base.offset(), 0x498);
    assert_eq!(field::GUEST_IDTR.limit.offset(), 0x484);
    assert_eq!(field::GUEST_CPL.offset(), 0x400 + 0xcb);
    assert_eq!(field::GUEST_EFER.offset(), 0x400 + 0xd0);
    assert_eq!(field::GUEST_CR4.offset(), 0x400 + 0x148);
    assert_eq!(field::GUEST_RIP.offset(), 0x400 + 0x178);
    assert_eq!(field::GUEST_RSP.offset(), 0x400 + 0x1d8);
    assert_eq!(field::GUEST_RAX.offset(), 0x400 + 0x1f8);
    assert_eq!(field::GUEST_SYSENTER_EIP.offset(), 0x400 + 0x238);
    assert_eq!(field::GUEST_CR2.offset(), 0x400 + 0x240);
    assert_eq!(field::GUEST_PAT.offset(), 0x400 + 0x268);
}

#[test]
fn what_is_never_cached_has_no_clean_bit() {
    // APM 2 15.15.4, and what VMLOAD and VMSAVE move.
    let uncached = |name: &str| {
        name.starts_with("EXIT")
            || name.starts_with("GUEST_SYSENTER")
            || matches!(
                name,
                "TLB_CONTROL"
                    | "INTERRUPT_SHADOW"
                    | "EVENTINJ"
                    | "CLEAN"
                    | "NRIP"
                    | "GUEST_RFLAGS"
                    | "GUEST_RIP"
                    | "GUEST_RSP"
                    | "GUEST_RAX"
                    | "GUEST_STAR"
                    | "GUEST_LSTAR"
                    | "GUEST_CSTAR"
                    | "GUEST_SFMASK"
                    | "GUEST_KERNEL_GS_BASE"
            )
    };
    for (name, _, _, clean) in field::ALL {
        assert_eq!(clean.is_empty(), uncached(name), "{name}");
        assert!(clean.bits().count_ones() <= 1, "{name}");
    }
    for (name, segment) in SEGMENTS {
        let cached = matches!(name, "ES" | "CS" | "SS" | "DS");
        let clean = if cached { Clean::SEGMENTS } else { Clean::empty() };
        assert_eq!(segment.selector.clean(), clean, "{name}");
        assert_eq!(segment.base.clean(), clean, "{name}");
    }
    assert_eq!(field::GUEST_GDTR.limit.clean().bits(), 1 << 7);
    assert_eq!(field::TSC_OFFSET.clean().bits(), 1 << 0);
    assert_eq!(field::IOPM_BASE.clean().bits(), 1 << 1);
    assert_eq!(field::ASID.clean().bits(), 1 << 2);
    assert_eq!(field::V_INTR.clean().bits(), 1 << 3);
    assert_eq!(field::GUEST_PAT.clean().bits(), 1 << 4);
    assert_eq!(field::GUEST_EFER.clean().bits(), 1 << 5);
    assert_eq!(field::GUEST_DR7.clean().bits(), 1 << 6);
    assert_eq!(field::GUEST_CPL.clean().bits(), 1 << 8);
    assert_eq!(field::GUEST_CR2.clean().bits(), 1 << 9);
    assert_eq!(field::GUEST_DBGCTL.clean().bits(), 1 << 10);
}

#[test]
fn an_intercept_has_the_place_of_its_exit_code() {
    // The words at 0, 0Ch, 10h and 14h follow the codes from 0, 60h, 80h and A0h on.
    let place = |bits: u32| u64::from(bits.trailing_zeros());
    assert_eq!(place(ControlRegisters::WRITE_CR0.bits()), code::WRITE_CR0);
    assert_eq!(place(ControlRegisters::WRITE_CR8.bits()), code::WRITE_CR0 + 8);
    for (flag, code) in [
        (Misc1::INTR, code::INTR),
        (Misc1::NMI, code::NMI),
        (Misc1::INIT, 0x63),
        (Misc1::VINTR, 0x64),
        (Misc1::CR0_SEL_WRITE, code::CR0_SEL_WRITE),
        (Misc1::RDTSC, 0x6e),
        (Misc1::CPUID, 0x72),
        (Misc1::IRET, code::IRET),
        (Misc1::HLT, 0x78),
        (Misc1::IOIO_PROT, code::IOIO),
        (Misc1::MSR_PROT, code::MSR),
        (Misc1::TASK_SWITCH, code::TASK_SWITCH),
        (Misc1::SHUTDOWN, 0x7f),
    ] {
        assert_eq!(0x60 + place(flag.bits()), code, "{flag:?}");
    }
    for (flag, code) in
        [(Misc2::VMRUN, 0x80), (Misc2::VMMCALL, 0x81), (Misc2::RDTSCP, 0x87), (Misc2::XSETBV, 0x8d)]
    {
        assert_eq!(0x80 + place(flag.bits()), code, "{flag:?}");
    }
    assert_eq!(0xa0 + place(Misc3::TLBSYNC.bits()), 0xa4);
    assert_eq!(VirtualInterrupt::all().bits(), 0x0110_0100);
}

#[test]
fn segments_are_translated() {
    // Flat 64-bit code; data of 4 GiB; what a processor leaves of a null selector.
    assert_eq!(attributes_to_vmcb(0xa9b), 0xa9b);
    assert_eq!(attributes_from_vmcb(0xa9b, u32::MAX), 0xa9b);
    assert_eq!(attributes_from_vmcb(0xc93, u32::MAX), 0xc93);
    assert_eq!(attributes_from_vmcb(0, 0), Segment::UNUSABLE);
    assert_eq!(attributes_to_vmcb(Segment::UNUSABLE | 0xc93), 0);
    // What is not kept: accessed, G, busy.
    assert_eq!(attributes_from_vmcb(0x492, u32::MAX), 0xc93);
    assert_eq!(attributes_from_vmcb(0x92, 0xf_ffff), 0x93);
    assert_eq!(attributes_from_vmcb(0x92, 0x10_0fff), 0x893);
    assert_eq!(attributes_from_vmcb(0x82, 0xffff), 0x82);
    assert_eq!(task_from_vmcb(0x89, 0x67), 0x8b);
    assert_eq!(task_from_vmcb(0x8b, 0x67), 0x8b);
    assert_eq!(task_from_vmcb(0, 0), Segment::UNUSABLE);
    // SS tells the privilege level even if it is null.
    assert_eq!(stack_from_vmcb(0xc93, u32::MAX, 3), 0xcf3);
    assert_eq!(stack_from_vmcb(0xcf3, u32::MAX, 0), 0xc93);
    assert_eq!(stack_from_vmcb(0, 0, 3), Segment::UNUSABLE | 0x60);
    assert_eq!(privilege_level(stack_from_vmcb(0, 0, 3)), 3);
}

#[test]
fn events_are_translated() {
    assert_eq!(event_to_vmcb(Event::interrupt(0x30)), 0x8000_0030);
    assert_eq!(event_to_vmcb(Event::nmi()), 0x8000_0202);
    assert_eq!(event_to_vmcb(Event::exception(6, None)), 0x8000_0306);
    assert_eq!(event_to_vmcb(Event::exception(14, Some(0x15))), 0x15_8000_0b0e);
    assert_eq!(event_to_vmcb(Event { info: 0x8000_0421, error: 0 }), 0x8000_0421);
    // INT1 and INT3, as other processors name them.
    assert_eq!(event_to_vmcb(Event { info: 0x8000_0501, error: 0 }), 0x8000_0301);
    assert_eq!(event_to_vmcb(Event { info: 0x8000_0603, error: 0 }), 0x8000_0303);
    // Not valid, no error code, reserved bits: nothing of it gets through.
    assert_eq!(event_to_vmcb(Event { info: 0x7fff_ffff, error: 7 }), 0);
    assert_eq!(event_to_vmcb(Event { info: 0xffff_f306, error: 7 }), 0x8000_0306);
    assert_eq!(event_from_vmcb(0x7_7fff_ffff), Event::NONE);
    assert_eq!(event_from_vmcb(0x7_ffff_f306), Event::exception(6, None));
}

proptest! {
    #[test]
    fn attributes_survive_a_round_trip(attr in 0..0x1000_u16, limit in any::<u32>()) {
        // What any processor could have loaded: present, accessed if it is code or data, G as the limit needs it.
        let mut attr = attr | 0x80;
        if attr & 1 << 4 != 0 {
            attr |= 1;
        }
        if limit > 0xf_ffff {
            attr |= 1 << 11;
        }
        prop_assert_eq!(attributes_from_vmcb(attributes_to_vmcb(attr), limit), attr);
        let unusable = attributes_to_vmcb(attr | Segment::UNUSABLE);
        prop_assert_eq!(attributes_from_vmcb(unusable, limit), Segment::UNUSABLE);
    }

    #[test]
    fn events_survive_a_round_trip(
        vector in any::<u8>(),
        kind in prop_oneof![
            Just(EventKind::Interrupt),
            Just(EventKind::Nmi),
            Just(EventKind::Exception),
            Just(EventKind::SoftwareInterrupt),
        ],
        error in proptest::option::of(any::<u32>()),
    ) {
        let mut event = Event::exception(vector, error);
        event.info = event.info & !(7 << 8) | (kind as u32) << 8;
        prop_assert_eq!(event_from_vmcb(event_to_vmcb(event)), event);
    }
}
