//! What is made of processors: their CPUID leaf 8000_000A is that of real ones, as VirtualBox's CPU
//! database has the older, and public bug reports the newer.

use crate::svm::{Controls, Refusal, SvmCapabilities, negotiate};
use proptest::prelude::*;
use std::string::ToString;

const NONE: SvmCapabilities =
    SvmCapabilities { svm: false, pages_1g: false, rdtscp: false, asids: 0, features: 0, vm_cr: 0 };
/// Athlon 64 X2 4200+ (K8, revision F): no nested paging.
const K8: SvmCapabilities = SvmCapabilities { svm: true, asids: 0x40, rdtscp: true, ..NONE };
/// Phenom II X6 1100T (K10, 2010), the family of the Opteron G3.
const K10: SvmCapabilities = SvmCapabilities { features: 0x40f, pages_1g: true, ..K8 };
/// FX-8150 (Bulldozer, 2011).
const BULLDOZER: SvmCapabilities = SvmCapabilities { asids: 0x1_0000, features: 0x14ff, ..K10 };
/// Threadripper 2970WX (Zen+, 2018).
const ZEN_1: SvmCapabilities = SvmCapabilities { asids: 0x8000, features: 0x1_bcff, ..K10 };
/// Ryzen 9 5950X (Zen 3, 2020).
const ZEN_3: SvmCapabilities = SvmCapabilities { features: 0x101b_bcff, ..ZEN_1 };
/// EPYC 4244P (Zen 4, 2024).
const ZEN_4: SvmCapabilities = SvmCapabilities { features: 0x1ebf_bcff, ..ZEN_1 };
/// QEMU 7.2 emulating, `-cpu max,+svm,+npt`.
const QEMU: SvmCapabilities = SvmCapabilities { asids: 0x10, features: 0x1001_0001, ..K10 };

const GOOD: [SvmCapabilities; 6] = [K10, BULLDOZER, ZEN_1, ZEN_3, ZEN_4, QEMU];

const LOCK: u64 = 1 << 3;
const SVMDIS: u64 = 1 << 4;

#[test]
fn processors_are_taken_as_they_are() {
    let least = Controls {
        vm_cr: None,
        asids: 0x10,
        pages_1g: true,
        rdtscp: true,
        next_rip: false,
        decode_assists: false,
    };
    assert_eq!(negotiate(&QEMU), Ok(least));
    let k10 = Controls { asids: 0x40, next_rip: true, ..least };
    assert_eq!(negotiate(&K10), Ok(k10));
    let bulldozer = Controls { asids: 0x1_0000, decode_assists: true, ..k10 };
    assert_eq!(negotiate(&BULLDOZER), Ok(bulldozer));
    let zen = Controls { asids: 0x8000, ..bulldozer };
    for caps in [ZEN_1, ZEN_3, ZEN_4] {
        assert_eq!(negotiate(&caps), Ok(zen));
    }
}

#[test]
fn refusals_say_what_is_missing() {
    let refusal = |caps: &SvmCapabilities| negotiate(caps).unwrap_err().to_string();
    assert_eq!(refusal(&NONE), "no AMD-V");
    assert_eq!(refusal(&K8), "no nested paging");
    let locked = SvmCapabilities { vm_cr: LOCK | SVMDIS, ..QEMU };
    assert_eq!(refusal(&locked), "AMD-V is locked off by firmware (VM_CR)");
    let key = SvmCapabilities { vm_cr: LOCK | SVMDIS, ..ZEN_1 };
    assert_eq!(refusal(&key), "AMD-V is locked off by firmware with a key (VM_CR)");
    let one = SvmCapabilities { asids: 1, ..ZEN_1 };
    let message = "too few ASIDs: 1, where the host needs one and guests another";
    assert_eq!(refusal(&one), message);
    // Of two reasons, the one that the firmware's settings can remove.
    let both = SvmCapabilities { vm_cr: LOCK | SVMDIS, ..K8 };
    assert_eq!(negotiate(&both), Err(Refusal::Because("AMD-V is locked off by firmware (VM_CR)")));
}

#[test]
fn what_is_off_and_not_locked_is_turned_on() {
    for caps in GOOD {
        // Locked on.
        let on = SvmCapabilities { vm_cr: LOCK, ..caps };
        assert_eq!(negotiate(&on), negotiate(&caps));
        // The other bits stay.
        let off = SvmCapabilities { vm_cr: SVMDIS | 0b111, ..caps };
        let controls = negotiate(&off).unwrap();
        assert_eq!(controls.vm_cr, Some(0b111));
        assert_eq!(controls.confirm(0b111), Ok(()));
        let stays = controls.confirm(SVMDIS | 0b111).unwrap_err();
        assert_eq!(stays.to_string(), "AMD-V is turned off and cannot be turned on (VM_CR)");
    }
}

/// CPUID with that last extended leaf.
fn cpuid(caps: SvmCapabilities, last: u32) -> impl FnMut(u32) -> [u32; 4] {
    move |leaf| match leaf {
        0x8000_0000 => [last, 0x6874_7541, 0x444d_4163, 0x6974_6e65],
        _ if leaf > last => panic!("there is no leaf {leaf:#x}"),
        0x8000_0001 => {
            let edx = u32::from(caps.pages_1g) << 26 | u32::from(caps.rdtscp) << 27;
            [0, 0, u32::from(caps.svm) << 2, edx]
        }
        0x8000_000a if caps.svm => [1, caps.asids, 0, caps.features],
        _ => panic!("leaf {leaf:#x} means nothing"),
    }
}

#[test]
fn only_what_exists_is_read() {
    for caps in GOOD.into_iter().chain([K8]) {
        for vm_cr in [0, LOCK, SVMDIS | LOCK] {
            let caps = SvmCapabilities { vm_cr, ..caps };
            let rdmsr = |msr| {
                assert_eq!(msr, 0xc001_0114);
                vm_cr
            };
            assert_eq!(SvmCapabilities::read(cpuid(caps, 0x8000_001f), rdmsr), caps);
        }
    }
    let absent = |msr| panic!("there is no MSR {msr:#x}");
    assert_eq!(SvmCapabilities::read(cpuid(NONE, 0x8000_0008), absent), NONE);
    assert_eq!(SvmCapabilities::read(cpuid(NONE, 0x8000_001f), absent), NONE);
    // A processor without extended leaves answers with something else.
    assert_eq!(SvmCapabilities::read(|_| [u32::MAX; 4], absent), NONE);
    assert_eq!(SvmCapabilities::read(|_| [0xd; 4], absent), NONE);
}

proptest! {
    /// Whatever a processor says, nothing it lacks is used.
    #[test]
    fn nothing_is_used_that_is_not_there(
        features in any::<u32>(),
        asids in 0..10_u32,
        vm_cr in 0..32_u64,
    ) {
        let caps = SvmCapabilities { features, asids, vm_cr, ..ZEN_1 };
        let has = |bit: u32| features >> bit & 1 != 0;
        match negotiate(&caps) {
            Ok(controls) => {
                prop_assert!(has(0) && asids >= 2 && controls.asids == asids);
                prop_assert_eq!(controls.next_rip, has(3));
                prop_assert_eq!(controls.decode_assists, has(7));
                prop_assert_eq!(controls.vm_cr.unwrap_or(vm_cr) & SVMDIS, 0);
                prop_assert!(controls.vm_cr.is_none() || vm_cr & LOCK == 0);
            }
            Err(Refusal::Because("no nested paging")) => prop_assert!(!has(0)),
            Err(Refusal::TooFewAsids(number)) => prop_assert!(number == asids && asids < 2),
            Err(Refusal::Because(locked)) => {
                prop_assert!(vm_cr & LOCK != 0 && vm_cr & SVMDIS != 0);
                prop_assert_eq!(locked.contains("with a key"), has(2));
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}
