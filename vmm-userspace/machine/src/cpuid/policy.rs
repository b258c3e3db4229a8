//! Which features a guest sees.
//!
//! | | |
//! |---|---|
//! | passed | what works in a guest without anybody's help: instructions, paging features, registers that belong to the guest |
//! | forced | what the machine emulates whatever the host has: local APIC with x2APIC and TSC-deadline mode, MTRRs, machine-check banks (none), TSC_ADJUST, an APIC timer that never stops; the hypervisor bit |
//! | masked | everything else: virtualization, memory encryption, MONITOR, performance counters, debug store, thermal and power management, SGX, processor trace, resource director, protection keys, control-flow enforcement, user interrupts, AMX, 5-level paging, transactional memory, speculation control, and every bit that this policy does not know |

use super::{Manual, Registers, Topology};
use crate::layout::PHYSICAL_BITS_MAX;

/// A word with these bits set.
const fn bits<const N: usize>(list: [u32; N]) -> u32 {
    let mut word = 0;
    let mut i = 0;
    while i < N {
        word |= 1 << list[i];
        i += 1;
    }
    word
}

/// Leaf 1 ECX: SSE3, PCLMULQDQ, SSSE3, FMA, CX16, PCID, SSE4.1, SSE4.2, MOVBE, POPCNT, AES, XSAVE, AVX, F16C, RDRAND.
const L1_ECX: u32 = bits([0, 1, 9, 12, 13, 17, 19, 20, 22, 23, 25, 26, 28, 29, 30]);
/// x2APIC, TSC-deadline, hypervisor.
const L1_ECX_FORCED: u32 = bits([21, 24, 31]);
/// Leaf 1 EDX: FPU, VME, DE, PSE, TSC, MSR, PAE, CX8, SEP, PGE, CMOV, PAT, PSE-36, CLFSH, MMX, FXSR, SSE, SSE2, SS.
const L1_EDX: u32 = bits([0, 1, 2, 3, 4, 5, 6, 8, 11, 13, 15, 16, 17, 19, 23, 24, 25, 26, 27]);
/// MCE, APIC, MTRR, MCA.
const L1_EDX_FORCED: u32 = bits([7, 9, 12, 14]);
/// HTT: EBX[23:16] is valid.
const L1_EDX_HTT: u32 = 1 << 28;
/// Leaf 1 ECX: XSAVE.
pub(super) const XSAVE: u32 = 1 << 26;
/// Leaf 1 ECX bits that need XSAVE: FMA, AVX, F16C.
const L1_ECX_XSAVE: u32 = bits([12, 26, 28, 29]);
/// Leaf 6 EAX: the APIC timer always runs.
const L6_EAX_ARAT: u32 = 1 << 2;
/// Leaf 7 EBX: FSGSBASE, BMI1, AVX2, FDP_EXCPTN_ONLY, SMEP, BMI2, ERMS, INVPCID, no FCS and FDS, AVX512F, DQ, RDSEED, ADX, SMAP, IFMA,
/// CLFLUSHOPT, CLWB, PF, ER, CD, SHA, BW, VL.
const L7_EBX: u32 =
    bits([0, 3, 5, 6, 7, 8, 9, 10, 13, 16, 17, 18, 19, 20, 21, 23, 24, 26, 27, 28, 29, 30, 31]);
/// TSC_ADJUST.
const L7_EBX_FORCED: u32 = 1 << 1;
/// Leaf 7 ECX: VBMI, UMIP, VBMI2, GFNI, VAES, VPCLMULQDQ, VNNI, BITALG, VPOPCNTDQ, RDPID, CLDEMOTE, MOVDIRI, MOVDIR64B.
const L7_ECX: u32 = bits([1, 2, 6, 8, 9, 10, 11, 12, 14, 22, 25, 27, 28]);
/// Leaf 7 EDX: 4VNNIW, 4FMAPS, FSRM, VP2INTERSECT, MD_CLEAR, SERIALIZE, AVX512-FP16.
const L7_EDX: u32 = bits([2, 3, 4, 8, 10, 14, 23]);
/// Leaf 7 bits that need XSAVE: AVX2 and all of AVX-512.
const L7_EBX_XSAVE: u32 = bits([5, 16, 17, 21, 26, 27, 28, 30, 31]);
const L7_ECX_XSAVE: u32 = bits([1, 6, 9, 10, 11, 12, 14]);
const L7_EDX_XSAVE: u32 = bits([2, 3, 8, 23]);
/// Leaf 0xd.1 EAX: XSAVEOPT, XSAVEC, XGETBV with ECX = 1.
pub(super) const LD_1_EAX: u32 = bits([0, 1, 2]);
/// XCR0: x87, SSE, AVX, the three of AVX-512.
pub(super) const XCR0: u32 = bits([0, 1, 2, 5, 6, 7]);
/// Leaf 8000_0001 ECX: LAHF, LZCNT, SSE4A, MISALIGNSSE, PREFETCHW, XOP, FMA4, TBM, leaves 8000_001D and 8000_001E.
const X1_ECX: u32 = bits([0, 5, 6, 7, 8, 11, 16, 21, 22]);
/// Those that need XSAVE.
const X1_ECX_XSAVE: u32 = bits([11, 16]);
/// Leaf 8000_0001 ECX: there are several cores, and leaf 8000_0008 tells how many.
const X1_ECX_CORES: u32 = 1 << 1;
/// Leaf 8000_0001 EDX: the copies of leaf 1 that some have, SYSCALL, NX, MMXEXT, 1 GiB pages, RDTSCP, long mode.
const X1_EDX: u32 = 0x0183_f3ff & L1_EDX_COPIES | bits([11, 20, 22, 26, 27, 29]);
const L1_EDX_COPIES: u32 = L1_EDX | L1_EDX_FORCED;
/// Leaf 8000_0008 EBX: CLZERO, error pointers restored by FXRSTOR, WBNOINVD, no need for SSBD, no branch type confusion.
const X8_EBX: u32 = bits([0, 2, 9, 26, 29]);
/// Leaf 8000_0021 EAX: no breakpoints on nested data, WRMSR of bases does not serialize, LFENCE always does, null selectors clear
/// the base, no speculative return stack overflow.
const X21_EAX: u32 = bits([0, 1, 2, 6, 29]);
/// Leaf 8000_0007 EDX: the TSC runs at a constant rate in all states.
const X7_EDX_INVARIANT_TSC: u32 = 1 << 8;

/// The guest's value for what the host answers.
pub(super) fn mask(leaf: u32, host: Registers, topology: Topology, manual: Manual) -> Registers {
    let [eax, ebx, ecx, edx] = host;
    let without =
        |word: u32, needs_xsave: u32| if topology.xsave { word } else { word & !needs_xsave };
    match leaf {
        // The highest leaf, the vendor; caches; the brand string.
        0 | 2 | 0x8000_0000 | 0x8000_0002..=0x8000_0006 => host,
        1 => {
            let cpus = topology.cpus.clamp(1, 128).next_power_of_two();
            let ebx = ebx & 0xffff | cpus << 16 | topology.apic_id << 24;
            let ecx = without(ecx & L1_ECX, L1_ECX_XSAVE) | L1_ECX_FORCED;
            let htt = if topology.cpus > 1 { L1_EDX_HTT } else { 0 };
            [eax, ebx, ecx, edx & L1_EDX | L1_EDX_FORCED | htt]
        }
        // The callers take the subleaves of 4 and 0xd apart.
        4 | 0xd => host,
        6 => [L6_EAX_ARAT, 0, 0, 0],
        7 => [
            0,
            without(ebx & L7_EBX, L7_EBX_XSAVE) | L7_EBX_FORCED,
            without(ecx & L7_ECX, L7_ECX_XSAVE),
            without(edx & L7_EDX, L7_EDX_XSAVE),
        ],
        0x8000_0001 => {
            let cores = if further_cores(topology, manual) > 0 { X1_ECX_CORES } else { 0 };
            [eax, 0, without(ecx & X1_ECX, X1_ECX_XSAVE) | cores, edx & X1_EDX]
        }
        0x8000_0007 => [0, 0, 0, edx & X7_EDX_INVARIANT_TSC],
        0x8000_0008 => {
            let widths = (eax & 0xff).min(PHYSICAL_BITS_MAX) | 48 << 8;
            [widths, ebx & X8_EBX, further_cores(topology, manual), 0]
        }
        // TLB entries for 1 GiB pages, widths of execution units; the callers take the caches apart.
        0x8000_0019 | 0x8000_001a | 0x8000_001d => host,
        // One thread a core, one node.
        0x8000_001e => [topology.apic_id, topology.apic_id & 0xff, 0, 0],
        0x8000_0021 => [eax & X21_EAX, 0, 0, 0],
        _ => [0; 4],
    }
}

/// Leaf 8000_0008 ECX: how many more cores there are than one (APM 3 E.4, function 8000_0008).
fn further_cores(topology: Topology, manual: Manual) -> u32 {
    match manual {
        Manual::Sdm => 0,
        Manual::Apm => (topology.cpus.max(1) - 1).min(0xff),
    }
}

/// Leaf 0xb: one thread a core, all cores in one package (SDM 2A, CPUID).
pub(super) fn topology_levels(topology: Topology) -> [Registers; 2] {
    let cpus = topology.cpus.max(1);
    let width = cpus.next_power_of_two().trailing_zeros();
    [[0, 1, 1 << 8, topology.apic_id], [width, cpus & 0xffff, 2 << 8 | 1, topology.apic_id]]
}

/// Bits of CR4 by the features of leaves 1 and 7 (SDM 3A 2.5).
pub(super) fn cr4(leaf1: Registers, leaf7: Registers) -> u64 {
    let [_, _, ecx, edx] = leaf1;
    let [_, ebx7, ecx7, _] = leaf7;
    let when = |word: u32, bit: u32, cr4: u64| if word & 1 << bit != 0 { cr4 } else { 0 };
    when(edx, 1, 1 << 0 | 1 << 1)       // VME, PVI
        | when(edx, 4, 1 << 2)          // TSD
        | when(edx, 2, 1 << 3)          // DE
        | when(edx, 3, 1 << 4)          // PSE
        | when(edx, 6, 1 << 5)          // PAE
        | when(edx, 7, 1 << 6)          // MCE
        | when(edx, 13, 1 << 7)         // PGE
        | 1 << 8                        // PCE
        | when(edx, 24, 1 << 9)         // OSFXSR
        | when(edx, 25, 1 << 10)        // OSXMMEXCPT
        | when(ecx7, 2, 1 << 11)        // UMIP
        | when(ebx7, 0, 1 << 16)        // FSGSBASE
        | when(ecx, 17, 1 << 17)        // PCIDE
        | when(ecx, 26, 1 << 18)        // OSXSAVE
        | when(ebx7, 7, 1 << 20)        // SMEP
        | when(ebx7, 20, 1 << 21) // SMAP
}

/// Bits of IA32_EFER by the features of leaf 8000_0001 (SDM 3A 2.2.1).
pub(super) fn efer(leaf: Registers) -> u64 {
    let [.., edx] = leaf;
    let when = |bit: u32, efer: u64| if edx & 1 << bit != 0 { efer } else { 0 };
    when(11, 1 << 0) | when(29, 1 << 8 | 1 << 10) | when(20, 1 << 11)
}
