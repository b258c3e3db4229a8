use super::*;
use proptest::prelude::*;

const ONE: Topology = Topology { cpus: 1, apic_id: 0, xsave: true };

/// A host that has everything, with an XSAVE layout of a server CPU.
fn everything(leaf: u32, subleaf: u32) -> Registers {
    match (leaf, subleaf) {
        (0, _) => [0x20, 0x756e_6547, 0x6c65_746e, 0x4965_6e69],
        (0x8000_0000, _) => [0x8000_001f, 0, 0, 0],
        (4, 0..=2) => [0x121 + (subleaf << 5), 0x1c0_003f, 0x3f, 0],
        (4, _) => [0; 4],
        (0xd, 0) => [0x602e7, 0xa88, 0x2b00, 0],
        (0xd, 1) => [0x1f, 0xa08, 0x1900, 0],
        (0xd, 2) => [256, 576, 0, 0],
        (0xd, 5) => [64, 1088, 0, 0],
        (0xd, 6) => [512, 1152, 0, 0],
        (0xd, 7) => [1024, 1664, 0, 0],
        (0xd, 9) => [8, 2688, 0, 0],
        (0xd, _) => [0; 4],
        (0x8000_0008, _) => [0x3934, u32::MAX, 0, 0],
        _ => [u32::MAX; 4],
    }
}

fn has(word: u32, bit: u32) -> bool {
    word & 1 << bit != 0
}

#[test]
fn what_a_guest_cannot_have_is_masked() {
    let cpuid = Cpuid::new(everything, ONE);
    let [_, _, ecx, edx] = cpuid.lookup(1, 0);
    // DTES64, MONITOR, DS-CPL, virtualization, SMX, EIST, TM2, SDBG, xTPR, PDCM, OSXSAVE.
    for bit in [2, 3, 4, 5, 6, 7, 8, 11, 14, 15, 27] {
        assert!(!has(ecx, bit), "leaf 1 ECX {bit}");
    }
    // PSN, DS, ACPI, HTT, TM, PBE.
    for bit in [18, 21, 22, 28, 29, 31] {
        assert!(!has(edx, bit), "leaf 1 EDX {bit}");
    }
    let [max, ebx, ecx, edx] = cpuid.lookup(7, 0);
    assert_eq!(max, 0);
    // SGX, HLE, RTM, RDT, MPX, PT; PKU, OSPKE, WAITPKG, CET, LA57, key locker, PKS; UINTR, AMX, IBRS, STIBP, capabilities, SSBD.
    for (word, list) in [
        (ebx, &[2, 4, 11, 12, 14, 15, 25][..]),
        (ecx, &[3, 4, 5, 7, 13, 16, 23, 29, 30, 31]),
        (edx, &[5, 15, 18, 20, 22, 24, 25, 26, 27, 28, 29, 30, 31]),
    ] {
        for &bit in list {
            assert!(!has(word, bit), "leaf 7 {bit}");
        }
    }
    assert_eq!(cpuid.lookup(0xa, 0), [0; 4]);
    assert_eq!(cpuid.lookup(6, 0), [4, 0, 0, 0]);
    assert!(!has(cpuid.lookup(0x8000_0001, 0)[2], 2), "virtualization");
    assert_eq!(cpuid.lookup(0x8000_0007, 0), [0, 0, 0, 1 << 8]);
    assert_eq!(cpuid.lookup(0x8000_0008, 0), [0x3030, 0x2400_0205, 0, 0]);
}

/// The same by the other manual: the vendor's name, more extended leaves, two caches.
fn apm(leaf: u32, subleaf: u32) -> Registers {
    match (leaf, subleaf) {
        (0, _) => [0x10, 0x6874_7541, 0x444d_4163, 0x6974_6e65],
        (4, _) => [0; 4],
        (0x8000_0000, _) => [0x8000_0023, 0x6874_7541, 0x444d_4163, 0x6974_6e65],
        (0x8000_001d, 0..=3) => [0x7c121 + ((subleaf / 3) << 6), 0x1c0_003f, 0x3f, 0],
        (0x8000_001d, _) => [0; 4],
        _ => everything(leaf, subleaf),
    }
}

#[test]
fn the_other_manuals_leaves() {
    let cpuid = Cpuid::new(apm, ONE);
    assert_eq!((cpuid.manual(), Cpuid::new(everything, ONE).manual()), (Manual::Apm, Manual::Sdm));
    assert_eq!(cpuid.lookup(0x8000_0000, 0)[0], 0x8000_0021);
    let [_, ebx, ecx, edx] = cpuid.lookup(0x8000_0001, 0);
    assert_eq!((ebx, ecx & 2), (0, 0), "one core");
    // Virtualization, extended APIC space, CR8 by LOCK, OSVW, IBS, SKINIT, watchdog, LWP, TCE, node register, performance counters,
    // breakpoint masks, MONITORX; FFXSR, 3DNow.
    for bit in [2, 3, 4, 9, 10, 12, 13, 15, 17, 19, 23, 24, 26, 28, 29] {
        assert!(!has(ecx, bit), "leaf 8000_0001 ECX {bit}");
    }
    assert!(!has(edx, 25) && !has(edx, 30) && !has(edx, 31) && has(ecx, 22));
    let [_, ebx, ecx, _] = cpuid.lookup(0x8000_0008, 0);
    // RDPRU, INVLPGB, MCOMMIT and speculation control are not there.
    assert_eq!((ebx, ecx), (0x2400_0205, 0));
    for leaf in [0x8000_000a, 0x8000_001b, 0x8000_001c, 0x8000_001f, 0x8000_0020] {
        assert_eq!(cpuid.lookup(leaf, 0), [0; 4], "{leaf:x}");
    }
    assert_eq!(cpuid.lookup(0x8000_0021, 0), [0x2000_0047, 0, 0, 0]);
    // Caches and topology of one CPU.
    assert_eq!(cpuid.lookup(0x8000_001d, 0), [0x121, 0x1c0_003f, 0x3f, 0]);
    assert_eq!(cpuid.lookup(0x8000_001d, 3)[0], 0x161);
    assert_eq!(cpuid.lookup(0x8000_001d, 4), [0; 4]);
    assert_eq!(cpuid.lookup(0x8000_001e, 0), [0; 4]);
    // Beyond all ranges there is nothing.
    for leaf in [0xe, 0x20, 0x4000_0001, 0x7fff_ffff, 0x8000_0022, u32::MAX] {
        assert_eq!(cpuid.lookup(leaf, 0), [0; 4], "{leaf:x}");
    }
}

#[test]
fn the_other_manuals_topology() {
    let several = Topology { cpus: 6, apic_id: 5, xsave: true };
    let cpuid = Cpuid::new(apm, several);
    assert!(has(cpuid.lookup(0x8000_0001, 0)[2], 1));
    assert_eq!(cpuid.lookup(0x8000_0008, 0)[2], 5);
    assert_eq!(cpuid.lookup(0x8000_001e, 0), [5, 5, 0, 0]);
    // The first levels are a core's own, the third is shared by all.
    assert_eq!(cpuid.lookup(0x8000_001d, 2)[0], 0x121);
    assert_eq!(cpuid.lookup(0x8000_001d, 3)[0], 0x161 | 5 << 14);
    // Without the extensions their leaves are empty.
    let without = |leaf, subleaf| match (leaf, apm(leaf, subleaf)) {
        (0x8000_0001, [a, b, c, d]) => [a, b, c & !(1 << 22), d],
        (_, registers) => registers,
    };
    let cpuid = Cpuid::new(without, several);
    assert_eq!((cpuid.lookup(0x8000_001d, 0), cpuid.lookup(0x8000_001e, 0)), ([0; 4], [0; 4]));
}

#[test]
fn what_is_emulated_is_there_on_any_host() {
    let bare = |leaf, _| if leaf == 0 { [7, 1, 2, 3] } else { [0; 4] };
    let cpuid = Cpuid::new(bare, Topology { cpus: 1, apic_id: 0, xsave: false });
    let [_, _, ecx, edx] = cpuid.lookup(1, 0);
    assert!(has(ecx, 21) && has(ecx, 24) && has(ecx, 31), "x2APIC, TSC-deadline, hypervisor");
    assert!(has(edx, 7) && has(edx, 9) && has(edx, 12) && has(edx, 14));
    assert_eq!(cpuid.lookup(0, 0), [0xb, 1, 2, 3]);
    assert_eq!(cpuid.lookup(HYPERVISOR, 0)[0], HYPERVISOR);
    let [_, b, c, d] = cpuid.lookup(HYPERVISOR, 0);
    let text: Vec<u8> = [b, c, d].iter().flat_map(|w| w.to_le_bytes()).collect();
    assert_eq!(&text, b"FerriteVMM\0\0");
}

#[test]
fn without_xsave_nothing_that_needs_it_is_there() {
    let cpuid = Cpuid::new(everything, Topology { xsave: false, ..ONE });
    let [_, _, ecx, _] = cpuid.lookup(1, 0);
    let [_, ebx, ..] = cpuid.lookup(7, 0);
    assert!(!has(ecx, 26) && !has(ecx, 28) && !has(ecx, 12));
    assert!(!has(ebx, 5) && !has(ebx, 16) && has(ebx, 8));
    assert_eq!((cpuid.lookup(0xd, 0), cpuid.xcr0_mask()), ([0; 4], 0));
    assert!(cpuid.cr4_mask() & 1 << 18 == 0);
}

#[test]
fn dynamic_bits_follow_the_guest() {
    let mut cpuid = Cpuid::new(everything, ONE);
    cpuid.set_osxsave(true);
    assert!(has(cpuid.lookup(1, 0)[2], 27));
    cpuid.set_osxsave(false);
    cpuid.set_apic(false);
    assert!(!has(cpuid.lookup(1, 0)[2], 27) && !has(cpuid.lookup(1, 0)[3], 9));
    // Leaf 0xd: components of the policy only; sizes as XCR0 has them.
    assert_eq!(cpuid.xcr0_mask(), 0xe7);
    for (xcr0, standard, compacted) in
        [(1, 576, 576), (3, 576, 576), (7, 832, 832), (0xe7, 2688, 576 + 256 + 64 + 512 + 1024)]
    {
        cpuid.set_xcr0(xcr0);
        assert_eq!(cpuid.lookup(0xd, 0), [0xe7, standard, 2688, 0]);
        assert_eq!(cpuid.lookup(0xd, 1), [7, compacted, 0, 0]);
    }
    assert_eq!(cpuid.lookup(0xd, 2), [256, 576, 0, 0]);
    assert_eq!((cpuid.lookup(0xd, 3), cpuid.lookup(0xd, 9)), ([0; 4], [0; 4]));
}

#[test]
fn topology_is_the_guests() {
    let cpuid = Cpuid::new(everything, Topology { cpus: 6, apic_id: 5, xsave: true });
    assert_eq!(cpuid.lookup(1, 0)[1] >> 16, 0x0508);
    assert!(has(cpuid.lookup(1, 0)[3], 28));
    assert_eq!(cpuid.lookup(0xb, 0), [0, 1, 0x100, 5]);
    assert_eq!(cpuid.lookup(0xb, 1), [3, 6, 0x201, 5]);
    assert_eq!(cpuid.lookup(0xb, 7), [0, 0, 7, 5]);
    // The first-level caches are a core's own, the third level is shared by all.
    assert_eq!(cpuid.lookup(4, 0)[0] >> 14, 5 << 12);
    assert_eq!(cpuid.lookup(4, 2)[0] >> 14, 5 << 12 | 5);
    assert_eq!(cpuid.lookup(4, 3)[0], 0);
}

proptest! {
    /// Whatever the host says, nothing appears that neither the host has nor the machine emulates.
    #[test]
    fn never_more_than_the_host(words: [u32; 4], leaf in 0..0x30u32, high: bool, subleaf in 0..70u32, xsave: bool) {
        let host = |l: u32, s: u32| match l {
            0 | 0x8000_0000 => everything(l, s),
            _ => words,
        };
        let cpuid = Cpuid::new(host, Topology { xsave, ..ONE });
        let leaf = if high { leaf | 0x8000_0000 } else { leaf };
        let guest = cpuid.lookup(leaf, subleaf);
        if let (1, _) | (7, 0) = (leaf, subleaf) {
            let forced = if leaf == 1 { (1 << 21 | 1 << 24 | 1 << 31, 0x5280) } else { (0, 0) };
            prop_assert_eq!(guest[2] & !(words[2] | forced.0), 0);
            prop_assert_eq!(guest[3] & !(words[3] | forced.1), 0);
        }
        if leaf > 0xd && leaf < 0x4000_0000 || leaf > 0x8000_0008 {
            prop_assert_eq!(guest, cpuid.lookup(0xd, subleaf));
        }
    }
}
