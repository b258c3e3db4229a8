//! When a processor must refuse to enter a guest: each rule, who has it, and how a state breaks it.
//!
//! This is data of the test, written after the manuals. Sections of SDM 3C are those of "Checks on the guest state area"
//! (26.3.1 in the edition of 2023, 27.3.1 in later ones).

use core::arch::x86_64::{__cpuid, __cpuid_count};

use abi::vcpu::{Segment, VcpuState, blocking};

use crate::processor::{Extension, extension, is_tcg};

/// A rule for the state of a guest.
pub struct Rule {
    /// What it demands.
    pub name: &'static str,
    /// Who has it.
    by: By,
    /// Whether a state breaks it.
    broken: fn(&VcpuState) -> bool,
}

/// Who refuses a guest that breaks a rule.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// VT-x. AMD-V enters the guest: it takes the state for something that there is, or sets and clears the bits as it always does.
    Vmx,
    /// VT-x and AMD-V, as QEMU (7.2) emulates it.
    Both,
    /// AMD-V, as QEMU emulates it. With VT-x the bits are the kernel's, or it is not forbidden.
    Svm,
    /// VT-x and the manual of AMD-V; QEMU does not check it.
    NotQemu,
    /// Nothing is known: not all processors of the vendor are the same, or the manual and the emulator differ.
    Nobody,
}

use By::{Both, Nobody, NotQemu, Svm, Vmx};

impl Rule {
    /// Whether this processor has the rule.
    #[must_use]
    pub fn is_here(&self) -> bool {
        match (extension(), self.by) {
            (_, Both) | (Extension::Vmx, Vmx | NotQemu) | (Extension::Svm, Svm) => true,
            (Extension::Svm, NotQemu) => !is_tcg(),
            _ => false,
        }
    }

    /// Whether this processor must be expected to have it, or not to: of the rest, nothing is.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.by != Nobody
    }

    /// Whether a state breaks the rule.
    #[must_use]
    pub fn is_broken(&self, state: &VcpuState) -> bool {
        (self.broken)(state)
    }
}

const PE: u64 = 1 << 0;
const NW: u64 = 1 << 29;
const CD: u64 = 1 << 30;
const PG: u64 = 1 << 31;
const PAE: u64 = 1 << 5;
const PCIDE: u64 = 1 << 17;
const CET: u64 = 1 << 23;
const WP: u64 = 1 << 16;
const LME: u64 = 1 << 8;
const LMA: u64 = 1 << 10;
const IF: u64 = 1 << 9;
const VM: u64 = 1 << 17;
/// Bits of [`Segment::attr`].
const CODE: u16 = 1 << 3;
const S: u16 = 1 << 4;
const P: u16 = 1 << 7;
const L: u16 = 1 << 9;
const D: u16 = 1 << 10;
const G: u16 = 1 << 11;

/// Whether the guest is in long mode.
const fn long(s: &VcpuState) -> bool {
    s.efer & LMA != 0
}

const fn v86(s: &VcpuState) -> bool {
    s.rflags & VM != 0
}

const fn usable(s: &Segment) -> bool {
    s.attr & Segment::UNUSABLE == 0
}

const fn dpl(s: &Segment) -> u16 {
    s.attr >> 5 & 3
}

const fn kind(s: &Segment) -> u16 {
    s.attr & 15
}

const fn canonical(address: u64) -> bool {
    (address as i64) << 16 >> 16 == address as i64
}

/// G agrees with the limit.
const fn granular(s: &Segment) -> bool {
    let (low, high) = (s.limit & 0xfff != 0xfff, s.limit >> 20 != 0);
    if s.attr & G != 0 { !low } else { !high }
}

/// DS, ES, FS, GS.
const fn data(s: &VcpuState) -> [&Segment; 4] {
    [&s.ds, &s.es, &s.fs, &s.gs]
}

/// CS, SS, DS, ES, FS, GS.
const fn all(s: &VcpuState) -> [&Segment; 6] {
    [&s.cs, &s.ss, &s.ds, &s.es, &s.fs, &s.gs]
}

fn any_usable(segments: &[&Segment], broken: fn(&Segment) -> bool) -> bool {
    segments.iter().any(|segment| usable(segment) && broken(segment))
}

/// Bits of CR4 that the processor has.
fn cr4_bits() -> u64 {
    let (one, seven) = (__cpuid(1), __cpuid_count(7, 0));
    let bit = |register: u32, from: u32, to: u32| u64::from(register >> from & 1) << to;
    0x7ff
        | bit(seven.ecx, 2, 11)
        | bit(seven.ecx, 16, 12)
        | bit(seven.ebx, 0, 16)
        | bit(one.ecx, 17, 17)
        // QEMU lets PCIDE through, which its processor has not.
        | u64::from(is_tcg()) << 17
        | bit(one.ecx, 26, 18)
        | bit(seven.ebx, 7, 20)
        | bit(seven.ebx, 20, 21)
        | bit(seven.ecx, 3, 22)
        | bit(seven.ecx, 7, 23)
        | bit(seven.ecx, 31, 24)
}

/// Bits of EFER that are not reserved: SCE, LME, LMA, NXE.
const EFER: u64 = 0xd01;
/// What AMD has besides: SVME, which is the kernel's, LMSLE, FFXSR.
const EFER_AMD: u64 = 0xfd01;

fn physical_bits() -> u32 {
    __cpuid(0x8000_0008).eax & 0xff
}

/// Exceptions that push an error code.
const WITH_ERROR: u32 = 0b11111 << 10 | 1 << 8 | 1 << 17;

/// Type and vector of the event, if one is to be injected.
const fn event(s: &VcpuState) -> Option<(u8, u8)> {
    if s.event.is_valid() { Some((s.event.kind(), s.event.vector())) } else { None }
}

/// All of them.
pub static RULES: &[Rule] = &[
    // SDM 3C 26.3.1.1, control registers and MSRs; APM 2 15.5.1.
    Rule { name: "CR0 has 32 bits", by: Both, broken: |s| s.cr0 >> 32 != 0 },
    // The kernel keeps both bits off with VT-x.
    Rule {
        name: "CR0.NW only with CR0.CD",
        by: Svm,
        broken: |s| s.cr0 & NW != 0 && s.cr0 & CD == 0,
    },
    // AMD-V enters it: without EFER.LME that is paging in real mode (APM 2 15.9).
    Rule {
        name: "paging only in protected mode",
        by: Vmx,
        broken: |s| s.cr0 & PG != 0 && s.cr0 & PE == 0,
    },
    // VT-x: bits that IA32_VMX_CR4_FIXED1 has not. VMXE and SMXE are the kernel's.
    Rule {
        name: "CR4 has no reserved bits",
        by: Both,
        broken: |s| s.cr4 & !(cr4_bits() | 0x6000) != 0,
    },
    Rule { name: "CR4.SMXE and CR4.VMXE belong to VT-x", by: Svm, broken: |s| s.cr4 & 0x6000 != 0 },
    Rule {
        name: "CR4.PCIDE only in long mode",
        by: Vmx,
        broken: |s| s.cr4 & PCIDE != 0 && !long(s),
    },
    Rule {
        name: "CR4.CET only with CR0.WP",
        by: Nobody,
        broken: |s| s.cr4 & CET != 0 && s.cr0 & WP == 0,
    },
    Rule {
        name: "CR4.LA57 changes what is canonical",
        by: Nobody,
        broken: |s| s.cr4 & 1 << 12 != 0,
    },
    Rule { name: "long mode has paging", by: Vmx, broken: |s| long(s) && s.cr0 & PG == 0 },
    Rule {
        name: "long mode is protected",
        by: Both,
        broken: |s| s.efer & LME != 0 && s.cr0 & PG != 0 && s.cr0 & PE == 0,
    },
    Rule {
        name: "long mode has PAE",
        by: Both,
        broken: |s| s.efer & LME != 0 && s.cr0 & PG != 0 && s.cr4 & PAE == 0,
    },
    Rule {
        name: "CR3 has the bits of a physical address",
        by: Both,
        broken: |s| s.cr3 >> physical_bits() != 0,
    },
    Rule { name: "DR7 has 32 bits", by: Both, broken: |s| s.dr7 >> 32 != 0 },
    Rule {
        name: "SYSENTER addresses are canonical",
        by: Vmx,
        broken: |s| !canonical(s.sysenter_esp) || !canonical(s.sysenter_eip),
    },
    Rule {
        name: "PAT has known types",
        by: NotQemu,
        broken: |s| s.pat.to_le_bytes().iter().any(|kind| !matches!(kind, 0 | 1 | 4..=7)),
    },
    Rule { name: "EFER has no reserved bits", by: Vmx, broken: |s| s.efer & !EFER != 0 },
    Rule {
        name: "EFER has no bits that no processor has",
        by: Svm,
        broken: |s| s.efer & !EFER_AMD != 0,
    },
    Rule {
        name: "EFER.LMSLE and FFXSR are of some processors",
        by: Nobody,
        broken: |s| s.efer & EFER_AMD & !EFER & !(1 << 12) != 0,
    },
    Rule {
        name: "EFER.LMA is EFER.LME, with paging",
        by: Vmx,
        broken: |s| s.cr0 & PG != 0 && (s.efer & LME != 0) != long(s),
    },
    // SDM 3C 26.3.1.2, segment registers.
    Rule { name: "TR is not local", by: Vmx, broken: |s| s.tr.selector & 4 != 0 },
    Rule {
        name: "LDTR is not local",
        by: Vmx,
        broken: |s| usable(&s.ldtr) && s.ldtr.selector & 4 != 0,
    },
    Rule {
        name: "virtual-8086: bases",
        by: Vmx,
        broken: |s| v86(s) && all(s).iter().any(|x| x.base != u64::from(x.selector) << 4),
    },
    Rule {
        name: "virtual-8086: limits",
        by: Vmx,
        broken: |s| v86(s) && all(s).iter().any(|x| x.limit != 0xffff),
    },
    Rule {
        name: "virtual-8086: attributes",
        by: Vmx,
        broken: |s| v86(s) && all(s).iter().any(|x| x.attr != 0xf3),
    },
    Rule {
        name: "bases of FS, GS, TR are canonical",
        by: Vmx,
        broken: |s| [s.fs, s.gs, s.tr].iter().any(|x| !canonical(x.base)),
    },
    Rule {
        name: "base of LDTR is canonical",
        by: Vmx,
        broken: |s| usable(&s.ldtr) && !canonical(s.ldtr.base),
    },
    Rule { name: "base of CS has 32 bits", by: Vmx, broken: |s| s.cs.base >> 32 != 0 },
    Rule {
        name: "bases of SS, DS, ES have 32 bits",
        by: Vmx,
        broken: |s| any_usable(&[&s.ss, &s.ds, &s.es], |x| x.base >> 32 != 0),
    },
    // With unrestricted guest, which the kernel demands, CS may be of type 3.
    Rule {
        name: "CS: accessed code",
        by: Vmx,
        broken: |s| !v86(s) && !matches!(kind(&s.cs), 3 | 9 | 11 | 13 | 15),
    },
    Rule {
        name: "SS: accessed and writable",
        by: Vmx,
        broken: |s| !v86(s) && usable(&s.ss) && !matches!(kind(&s.ss), 3 | 7),
    },
    Rule {
        name: "data segments: accessed",
        by: Vmx,
        broken: |s| !v86(s) && any_usable(&data(s), |x| kind(x) & 1 == 0),
    },
    Rule {
        name: "data segments: readable",
        by: Vmx,
        broken: |s| !v86(s) && any_usable(&data(s), |x| x.attr & CODE != 0 && kind(x) & 2 == 0),
    },
    Rule { name: "CS is a segment", by: Vmx, broken: |s| !v86(s) && s.cs.attr & S == 0 },
    Rule {
        name: "SS and data segments are segments",
        by: Vmx,
        broken: |s| {
            !v86(s) && any_usable(&[&s.ss, &s.ds, &s.es, &s.fs, &s.gs], |x| x.attr & S == 0)
        },
    },
    Rule {
        name: "privilege of CS",
        by: Vmx,
        broken: |s| {
            !v86(s)
                && match kind(&s.cs) {
                    3 => dpl(&s.cs) != 0,
                    9 | 11 => dpl(&s.cs) != dpl(&s.ss),
                    13 | 15 => dpl(&s.cs) > dpl(&s.ss),
                    _ => false,
                }
        },
    },
    Rule {
        name: "privilege of SS in real mode is 0",
        by: Vmx,
        broken: |s| !v86(s) && (s.cr0 & PE == 0 || kind(&s.cs) == 3) && dpl(&s.ss) != 0,
    },
    Rule { name: "CS is present", by: Vmx, broken: |s| !v86(s) && s.cs.attr & P == 0 },
    Rule {
        name: "SS and data segments are present",
        by: Vmx,
        broken: |s| {
            !v86(s) && any_usable(&[&s.ss, &s.ds, &s.es, &s.fs, &s.gs], |x| x.attr & P == 0)
        },
    },
    Rule { name: "CS is usable", by: Nobody, broken: |s| !usable(&s.cs) },
    Rule {
        name: "CS of 64 bits has no 32",
        by: Both,
        broken: |s| long(s) && s.cr0 & PG != 0 && s.efer & LME != 0 && s.cs.attr & (L | D) == L | D,
    },
    Rule { name: "granularity of CS", by: Vmx, broken: |s| !v86(s) && !granular(&s.cs) },
    Rule {
        name: "granularity of SS and data segments",
        by: Vmx,
        broken: |s| !v86(s) && any_usable(&[&s.ss, &s.ds, &s.es, &s.fs, &s.gs], |x| !granular(x)),
    },
    Rule {
        name: "TR is a busy task",
        by: Vmx,
        broken: |s| kind(&s.tr) != 11 && (long(s) || kind(&s.tr) != 3),
    },
    Rule { name: "TR is a system segment", by: Vmx, broken: |s| s.tr.attr & S != 0 },
    Rule { name: "TR is present", by: Vmx, broken: |s| s.tr.attr & P == 0 },
    Rule { name: "TR is usable", by: Vmx, broken: |s| !usable(&s.tr) },
    Rule { name: "granularity of TR", by: Vmx, broken: |s| !granular(&s.tr) },
    Rule {
        name: "LDTR is a table",
        by: Vmx,
        broken: |s| usable(&s.ldtr) && (kind(&s.ldtr) != 2 || s.ldtr.attr & S != 0),
    },
    Rule { name: "LDTR is present", by: Vmx, broken: |s| usable(&s.ldtr) && s.ldtr.attr & P == 0 },
    Rule {
        name: "granularity of LDTR",
        by: Vmx,
        broken: |s| usable(&s.ldtr) && !granular(&s.ldtr),
    },
    // SDM 3C 26.3.1.3, descriptor tables.
    Rule {
        name: "bases of GDTR and IDTR are canonical",
        by: Vmx,
        broken: |s| !canonical(s.gdtr.base) || !canonical(s.idtr.base),
    },
    // The kernel drops what is beyond 32 bits: a VMCS has no room for it.
    Rule {
        name: "limits of GDTR and IDTR have 16 bits",
        by: Vmx,
        broken: |s| s.gdtr.limit as u32 >> 16 != 0 || s.idtr.limit as u32 >> 16 != 0,
    },
    // SDM 3C 26.3.1.4, RIP and RFLAGS.
    Rule {
        name: "RIP has 32 bits outside of 64-bit code",
        by: Vmx,
        broken: |s| s.rip >> 32 != 0 && !(long(s) && s.cs.attr & L != 0),
    },
    // Bochs (3.0) overlooks it, and raises #GP in the guest.
    Rule {
        name: "RIP is canonical",
        by: Nobody,
        broken: |s| long(s) && s.cs.attr & L != 0 && !canonical(s.rip),
    },
    Rule {
        name: "RFLAGS has no reserved bits",
        by: Vmx,
        broken: |s| s.rflags & 0xffff_ffff_ffc0_8028 != 0,
    },
    Rule { name: "RFLAGS has its bit 1", by: Vmx, broken: |s| s.rflags & 2 == 0 },
    Rule { name: "no virtual-8086 mode in long mode", by: Vmx, broken: |s| v86(s) && long(s) },
    // Bochs (3.0) overlooks it.
    Rule {
        name: "no virtual-8086 mode in real mode",
        by: Nobody,
        broken: |s| v86(s) && s.cr0 & PE == 0,
    },
    Rule {
        name: "interrupts are on for one that is injected",
        by: Vmx,
        broken: |s| matches!(event(s), Some((0, _))) && s.rflags & IF == 0,
    },
    // SDM 3C 26.3.1.5, what blocks events.
    Rule { name: "not blocked by both STI and MOV SS", by: Vmx, broken: |s| s.blocking & 3 == 3 },
    Rule {
        name: "blocked by STI only with interrupts on",
        by: Vmx,
        broken: |s| s.blocking & blocking::STI != 0 && s.rflags & IF == 0,
    },
    Rule {
        name: "no interrupt where it is blocked",
        by: Vmx,
        broken: |s| matches!(event(s), Some((0, _))) && s.blocking & 3 != 0,
    },
    Rule {
        name: "no NMI behind MOV SS",
        by: Vmx,
        broken: |s| matches!(event(s), Some((2, _))) && s.blocking & blocking::MOV_SS != 0,
    },
    Rule {
        name: "an NMI behind STI is a matter of the processor",
        by: Nobody,
        broken: |s| matches!(event(s), Some((2, _))) && s.blocking & blocking::STI != 0,
    },
    // Bochs (3.0) overlooks it.
    Rule {
        name: "no NMI while one is handled",
        by: Nobody,
        broken: |s| matches!(event(s), Some((2, _))) && s.blocking & blocking::NMI != 0,
    },
    // That a step behind STI or MOV SS is pending the kernel sees to itself.
    // SDM 3C 26.3.1.6, PAE pointers; AMD-V reads them from memory.
    Rule {
        name: "present PAE pointers have no reserved bits",
        by: Vmx,
        broken: |s| {
            s.cr0 & PG != 0
                && s.cr4 & PAE != 0
                && !long(s)
                && s.pdpte
                    .iter()
                    .any(|x| x & 1 != 0 && (x & 0x1e6 != 0 || x >> physical_bits() != 0))
        },
    },
    // SDM 3C 26.2.1.3, the event to inject; APM 2 15.20. The kernel passes AMD-V only the bits that mean something there.
    Rule {
        name: "no event of a reserved type",
        by: Both,
        broken: |s| matches!(event(s), Some((1, _))),
    },
    Rule {
        name: "the type of the monitor trap is not offered",
        by: Nobody,
        broken: |s| matches!(event(s), Some((7, _))),
    },
    Rule {
        name: "types 5 and 6 are exceptions for AMD-V",
        by: Svm,
        broken: |s| matches!(event(s), Some((5 | 6, 2 | 31..))),
    },
    Rule {
        name: "an NMI has vector 2",
        by: Vmx,
        broken: |s| matches!(event(s), Some((2, vector)) if vector != 2),
    },
    Rule {
        name: "an exception has a vector below 32",
        by: Both,
        broken: |s| matches!(event(s), Some((3, 32..))),
    },
    // QEMU: above 30, and the NMI's.
    Rule {
        name: "an exception is not 2 or 31",
        by: Svm,
        broken: |s| matches!(event(s), Some((3, 2 | 31))),
    },
    Rule {
        name: "an event has no reserved bits",
        by: Vmx,
        broken: |s| event(s).is_some() && s.event.info & 0x7fff_f000 != 0,
    },
    Rule {
        name: "an error code where there is one, and only there",
        by: Vmx,
        broken: |s| {
            event(s).is_some_and(|(kind, vector)| {
                let has =
                    kind == 3 && s.cr0 & PE != 0 && vector < 32 && WITH_ERROR >> vector & 1 != 0;
                // #CP has one on processors with CET.
                vector != 21 && has != (s.event.info >> 11 & 1 != 0)
            })
        },
    },
    Rule {
        name: "an error code has 16 bits",
        by: Vmx,
        broken: |s| event(s).is_some() && s.event.info >> 11 & 1 != 0 && s.event.error >> 16 != 0,
    },
    Rule {
        name: "an error code's bit 15 was reserved once",
        by: Nobody,
        broken: |s| {
            event(s).is_some() && s.event.info >> 11 & 1 != 0 && s.event.error & 0x8000 != 0
        },
    },
    Rule {
        name: "an instruction has at most 15 bytes",
        by: Vmx,
        broken: |s| matches!(event(s), Some((4..=6, _))) && s.inst_len as u32 > 15,
    },
    Rule {
        name: "an instruction of no bytes is a matter of the processor",
        by: Nobody,
        broken: |s| matches!(event(s), Some((4..=6, _))) && s.inst_len as u32 == 0,
    },
];
