//! Exit codes (APM 2 appendix C) and what they are to a VMM.

use crate::exits::table;
use abi::vcpu::Exit;

/// Codes that the kernel looks at itself. They are 64 bits wide: those that tell of a refused entry
/// are negative numbers.
pub mod code {
    #![allow(missing_docs)]
    pub const WRITE_CR0: u64 = 0x10;
    pub const WRITE_DR0: u64 = 0x30;
    pub const EXCEPTION_0: u64 = 0x40;
    pub const EXCEPTION_31: u64 = 0x5f;
    pub const INTR: u64 = 0x60;
    pub const NMI: u64 = 0x61;
    pub const CR0_SEL_WRITE: u64 = 0x65;
    pub const IRET: u64 = 0x74;
    pub const IOIO: u64 = 0x7b;
    pub const MSR: u64 = 0x7c;
    pub const TASK_SWITCH: u64 = 0x7d;
    pub const NPF: u64 = 0x400;
}

/// The exit for each of the low codes, as a number. RDMSR and WRMSR share a code.
const NEUTRAL: [u8; 0xa8] = table(&[
    // Reads, then writes.
    (0x00, 0x1f, Exit::Control),
    (0x20, 0x3f, Exit::Debug),
    (0x40, 0x5f, Exit::Exception),
    (0x63, 0x63, Exit::Init),
    (0x64, 0x64, Exit::InterruptWindow),
    (0x65, 0x65, Exit::Control),
    (0x66, 0x6d, Exit::DescriptorTable),
    (0x6e, 0x6e, Exit::Rdtsc),
    (0x6f, 0x6f, Exit::Rdpmc),
    (0x72, 0x72, Exit::Cpuid),
    (0x76, 0x76, Exit::CacheInvalidate),
    (0x77, 0x77, Exit::Pause),
    (0x78, 0x78, Exit::Hlt),
    (0x79, 0x79, Exit::Invlpg),
    (0x7a, 0x7a, Exit::Virtualization),
    (0x7b, 0x7b, Exit::Port),
    (0x7c, 0x7c, Exit::MsrRead),
    (0x7d, 0x7d, Exit::TaskSwitch),
    (0x7f, 0x7f, Exit::TripleFault),
    (0x80, 0x80, Exit::Virtualization),
    (0x81, 0x81, Exit::Hypercall),
    // VMLOAD, VMSAVE, STGI, CLGI, SKINIT.
    (0x82, 0x86, Exit::Virtualization),
    (0x87, 0x87, Exit::Rdtsc),
    (0x89, 0x89, Exit::CacheInvalidate),
    (0x8a, 0x8c, Exit::Mwait),
    (0x8d, 0x8d, Exit::Xsetbv),
    // RDPRU; INVLPGB, legal or not; MCOMMIT; TLBSYNC. No CPUID of a guest offers them.
    (0x8e, 0x8e, Exit::Virtualization),
    (0xa0, 0xa1, Exit::Virtualization),
    (0xa3, 0xa4, Exit::Virtualization),
    // INVPCID.
    (0xa2, 0xa2, Exit::Invlpg),
    // HLT, under the intercept that waits for virtual interrupts.
    (0xa6, 0xa6, Exit::Hlt),
]);

/// What the exit with that EXITCODE and EXITINFO1 is to a VMM: the number of an [`Exit`].
///
/// Physical interrupts, NMIs and what else concerns the kernel alone it must have handled before.
/// IRET is one of them: the window for an NMI opens only behind it.
#[inline(always)]
pub fn neutral(code: u64, info1: u64) -> u8 {
    // Compared at full width: a code cut off at 32 bits could be taken for another.
    match usize::try_from(code).ok().and_then(|index| NEUTRAL.get(index)) {
        Some(_) if code == code::MSR && info1 & 1 != 0 => Exit::MsrWrite as u8,
        Some(number) => *number,
        None => beyond(code),
    }
}

fn beyond(code: u64) -> u8 {
    let exit = match code {
        code::NPF => Exit::Memory,
        // VMEXIT_INVALID, BUSY, IDLE_REQUIRED, INVALID_PMC: the guest was not entered. QEMU writes 32 bits of them.
        _ if code >= u64::MAX - 3 || matches!(code, 0xffff_fffc..=0xffff_ffff) => Exit::BadState,
        _ => Exit::Other,
    };
    exit as u8
}
