use super::vmx_models::{ARRANDALE, BROADWELL, PENRYN, SANDY_BRIDGE, SKYLAKE, SKYLAKE_X};
use crate::vmx::controls::{EntryControls, ExitControls, Pin, Primary, Secondary};
use crate::vmx::exits::neutral;
use crate::vmx::fields::SegmentFields;
use crate::vmx::negotiate::TOGGLED;
use crate::vmx::{Controls, Refusal, VmxCapabilities, field, negotiate, unlock};
use abi::vcpu::Exit;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::string::ToString;

const MODERN: [VmxCapabilities; 5] = [ARRANDALE, SANDY_BRIDGE, BROADWELL, SKYLAKE, SKYLAKE_X];

fn allowed(msr: u64, value: u32) -> bool {
    let (must, may) = (msr as u32, (msr >> 32) as u32);
    value & must == must && value & !may == 0
}

fn sound(caps: &VmxCapabilities, controls: &Controls) -> bool {
    allowed(caps.pin, controls.pin)
        && allowed(caps.primary, controls.primary)
        && allowed(caps.primary, controls.primary | TOGGLED.bits())
        && allowed(caps.secondary, controls.secondary)
        && allowed(caps.exit, controls.exit)
        && allowed(caps.entry, controls.entry)
        && allowed(caps.entry, controls.entry | EntryControls::IA32E_MODE_GUEST.bits())
}

#[test]
fn modern_processors_are_taken() {
    for caps in MODERN {
        let controls = negotiate(&caps).unwrap();
        assert!(sound(&caps, &controls));
        assert_eq!(controls.revision, caps.basic as u32);
        assert_eq!(unlock(caps.feature_control).unwrap(), None);
        assert!(controls.vpid && controls.io_bitmaps && controls.ept_2m);
        assert_eq!(controls.primary & TOGGLED.bits(), 0);
        assert_eq!(controls.primary & Primary::CR3_LOAD_EXITING.bits(), 0);
        assert_eq!(controls.primary & Primary::USE_IO_BITMAPS.bits(), 0);
        // The reserved bits that must be 1 are in, beside those asked for.
        assert_eq!(controls.pin, 0x16 | 1 << 0 | 1 << 3 | 1 << 5);
    }
    for caps in [ARRANDALE, SANDY_BRIDGE] {
        let old = negotiate(&caps).unwrap();
        assert!(!old.ept_1g);
        assert_eq!(old.secondary, 1 << 1 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 7);
    }
    for caps in [SKYLAKE, SKYLAKE_X] {
        let new = negotiate(&caps).unwrap();
        assert!(new.ept_1g);
        assert_ne!(new.secondary & Secondary::ENABLE_XSAVES.bits(), 0);
    }
    let skylake = negotiate(&SKYLAKE).unwrap();
    assert_eq!(skylake.exit, 0x3_6dfb | 1 << 2 | 1 << 9 | 1 << 15 | 0xf << 18);
}

#[test]
fn refusals_say_what_is_missing() {
    let refusal = |caps: &VmxCapabilities| negotiate(caps).unwrap_err().to_string();
    assert_eq!(refusal(&VmxCapabilities::default()), "no VT-x");
    assert_eq!(refusal(&PENRYN), "no EPT");
    let locked = VmxCapabilities { feature_control: 1, ..SKYLAKE };
    assert_eq!(refusal(&locked), "VT-x is locked off by firmware (IA32_FEATURE_CONTROL)");
    let open = VmxCapabilities { feature_control: 0, ..SKYLAKE };
    negotiate(&open).unwrap();
    assert_eq!(unlock(open.feature_control).unwrap(), Some(5));
    // What Nehalem had: EPT and VPID, but no unrestricted guest.
    let nehalem = VmxCapabilities { secondary: 0x7f_0000_0000, ..SANDY_BRIDGE };
    assert_eq!(refusal(&nehalem), "no unrestricted guest");
    let walk = VmxCapabilities { ept_vpid: SKYLAKE.ept_vpid & !(1 << 6), ..SKYLAKE };
    assert_eq!(refusal(&walk), "EPT without a 4-level walk");
    let uncached = VmxCapabilities { basic: SKYLAKE.basic & !(0xf << 50), ..SKYLAKE };
    assert_eq!(refusal(&uncached), "VMCS in memory of type 0");
    let save = ExitControls::SAVE_EFER.bits();
    let no_efer = VmxCapabilities { exit: SKYLAKE.exit & !(u64::from(save) << 32), ..SKYLAKE };
    assert_eq!(refusal(&no_efer), "VM-exit control SAVE_EFER is not available");
    let nmis = u64::from(Pin::VIRTUAL_NMIS.bits()) << 32;
    let no_nmis = VmxCapabilities { pin: SKYLAKE.pin & !nmis, ..SKYLAKE };
    assert_eq!(refusal(&no_nmis), "pin-based control VIRTUAL_NMIS is not available");
    // Without the TRUE MSRs the default1 class counts, and CR3 accesses exit.
    let old = VmxCapabilities { primary: SKYLAKE.primary | 1 << 15 | 1 << 16, ..SKYLAKE };
    assert_eq!(refusal(&old), "primary processor-based control CR3_LOAD_EXITING cannot be off");
}

#[test]
fn a_vpid_that_cannot_be_flushed_is_not_used() {
    let caps = VmxCapabilities { ept_vpid: SKYLAKE.ept_vpid & !(1 << 42), ..SKYLAKE };
    let controls = negotiate(&caps).unwrap();
    assert!(!controls.vpid);
    assert_eq!(controls.secondary & Secondary::ENABLE_VPID.bits(), 0);
}

/// An RDMSR that fails the test where a processor would raise #GP, or where another MSR counts.
fn rdmsr(caps: &VmxCapabilities, msr: u32) -> u64 {
    let first = if caps.basic >> 55 & 1 == 0 { 0x481 } else { 0x48d };
    match msr {
        0x3a => caps.feature_control,
        0x480 => caps.basic,
        _ if msr == first => caps.pin,
        _ if msr == first + 1 => caps.primary,
        _ if msr == first + 2 => caps.exit,
        _ if msr == first + 3 => caps.entry,
        0x48b => caps.secondary,
        0x48c if caps.ept_vpid != 0 => caps.ept_vpid,
        _ => panic!("no MSR {msr:#x} is to be read"),
    }
}

#[test]
fn only_msrs_that_exist_are_read() {
    for caps in MODERN.into_iter().chain([PENRYN]) {
        assert_eq!(VmxCapabilities::read(true, |msr| rdmsr(&caps, msr)), caps);
    }
    let none = VmxCapabilities::read(false, |msr| panic!("read of {msr:#x}"));
    assert_eq!(negotiate(&none), Err(Refusal::Absent("VT-x")));
}

proptest! {
    /// Processors that lack or force random bits: refused, or the controls are allowed.
    #[test]
    fn what_is_chosen_is_allowed(
        model in 0..MODERN.len(),
        lack in prop::collection::vec((0..5_usize, 32..64_u32), 0..4),
        force in prop::collection::vec((0..5_usize, 0..32_u32), 0..4),
    ) {
        let mut caps = MODERN[model];
        let msrs = [
            &mut caps.pin, &mut caps.primary, &mut caps.exit, &mut caps.entry, &mut caps.secondary,
        ];
        for (msr, bit) in lack {
            if *msrs[msr] >> (bit - 32) & 1 == 0 {
                *msrs[msr] &= !(1 << bit);
            }
        }
        for (msr, bit) in force {
            if *msrs[msr] >> (bit + 32) & 1 != 0 {
                *msrs[msr] |= 1 << bit;
            }
        }
        if let Ok(controls) = negotiate(&caps) {
            prop_assert!(sound(&caps, &controls));
            prop_assert_eq!(controls.primary & TOGGLED.bits(), 0);
        }
    }
}

#[test]
fn encodings_agree_with_width_and_access() {
    let mut seen = BTreeSet::new();
    for (name, encoding, size, writable) in field::ALL {
        // SDM 3C 25.11.2: bits 14:13 width, 11:10 type, 9:1 index, 0 access; 15 and up and 12 are
        // 0.
        assert_eq!([2, 8, 4, 8].get(*encoding as usize >> 13), Some(size), "{name}");
        assert_eq!(encoding & (1 << 12 | 1), 0, "{name}");
        let kind = encoding >> 10 & 3;
        assert_eq!(kind != 1, *writable, "{name}");
        assert_eq!(kind == 3, name.starts_with("HOST_"), "{name}");
        assert!(kind != 2 || name.starts_with("GUEST_") || matches!(*encoding, 0x2800 | 0x482e));
        assert!(seen.insert(*encoding), "{name} is there twice");
    }
}

#[test]
fn encodings_are_those_of_the_manual() {
    // SDM 3D appendix B, one of each group, and those at the ends of runs.
    assert_eq!(field::VPID.encoding(), 0);
    assert_eq!(field::HOST_TR_SELECTOR.encoding(), 0xc0c);
    assert_eq!(field::EPT_POINTER.encoding(), 0x201a);
    assert_eq!(field::XSS_EXITING_BITMAP.encoding(), 0x202c);
    assert_eq!(field::GUEST_PHYSICAL_ADDRESS.encoding(), 0x2400);
    assert_eq!(field::GUEST_PDPTE3.encoding(), 0x2810);
    assert_eq!(field::HOST_EFER.encoding(), 0x2c02);
    assert_eq!(field::SECONDARY_CONTROLS.encoding(), 0x401e);
    assert_eq!(field::EXIT_INSTRUCTION_LENGTH.encoding(), 0x440c);
    assert_eq!(field::GUEST_SYSENTER_CS.encoding(), 0x482a);
    assert_eq!(field::HOST_SYSENTER_CS.encoding(), 0x4c00);
    assert_eq!(field::CR4_READ_SHADOW.encoding(), 0x6006);
    assert_eq!(field::GUEST_LINEAR_ADDRESS.encoding(), 0x640a);
    assert_eq!(field::GUEST_SYSENTER_EIP.encoding(), 0x6826);
    assert_eq!(field::HOST_RIP.encoding(), 0x6c16);
}

#[test]
fn segments_are_those_of_the_manual() {
    let segment = |fields: SegmentFields| {
        let SegmentFields { selector, limit, rights, base } = fields;
        [selector.encoding(), limit.encoding(), rights.encoding(), base.encoding()]
    };
    // SDM 3D B.1.2, B.3.3, B.4.3.
    assert_eq!(segment(field::GUEST_ES), [0x800, 0x4800, 0x4814, 0x6806]);
    assert_eq!(segment(field::GUEST_CS), [0x802, 0x4802, 0x4816, 0x6808]);
    assert_eq!(segment(field::GUEST_SS), [0x804, 0x4804, 0x4818, 0x680a]);
    assert_eq!(segment(field::GUEST_DS), [0x806, 0x4806, 0x481a, 0x680c]);
    assert_eq!(segment(field::GUEST_FS), [0x808, 0x4808, 0x481c, 0x680e]);
    assert_eq!(segment(field::GUEST_GS), [0x80a, 0x480a, 0x481e, 0x6810]);
    assert_eq!(segment(field::GUEST_LDTR), [0x80c, 0x480c, 0x4820, 0x6812]);
    assert_eq!(segment(field::GUEST_TR), [0x80e, 0x480e, 0x4822, 0x6814]);
    assert_eq!(field::GUEST_GDTR.limit.encoding(), 0x4810);
    assert_eq!(field::GUEST_GDTR.base.encoding(), 0x6816);
    assert_eq!(field::GUEST_IDTR.limit.encoding(), 0x4812);
    assert_eq!(field::GUEST_IDTR.base.encoding(), 0x6818);
}

#[test]
fn exit_reasons_are_those_of_the_manual() {
    for (reason, exit) in [
        (0, Exit::Exception),
        (2, Exit::TripleFault),
        (10, Exit::Cpuid),
        (12, Exit::Hlt),
        (13, Exit::CacheInvalidate),
        (18, Exit::Hypercall),
        (27, Exit::Virtualization),
        (28, Exit::Control),
        (30, Exit::Port),
        (33, Exit::BadState),
        (46, Exit::DescriptorTable),
        (48, Exit::Memory),
        (49, Exit::Other),
        (51, Exit::Rdtsc),
        (54, Exit::CacheInvalidate),
        (55, Exit::Xsetbv),
        (79, Exit::Other),
        (80, Exit::Other),
        (u16::MAX, Exit::Other),
    ] {
        assert_eq!(neutral(reason), exit as u8, "{reason}");
    }
    // Nothing that only software makes comes out of an exit reason.
    assert!((0..200).all(|reason| neutral(reason) != Exit::Startup as u8));
}
