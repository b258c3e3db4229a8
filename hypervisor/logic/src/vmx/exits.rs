//! Basic exit reasons (SDM 3D appendix C) and what they are to a VMM.

use abi::vcpu::Exit;

/// Reasons that the kernel looks at itself.
pub mod reason {
    #![allow(missing_docs)]
    pub const EXCEPTION_OR_NMI: u16 = 0;
    pub const EXTERNAL_INTERRUPT: u16 = 1;
    pub const TRIPLE_FAULT: u16 = 2;
    pub const INIT: u16 = 3;
    pub const INTERRUPT_WINDOW: u16 = 7;
    pub const NMI_WINDOW: u16 = 8;
    pub const TASK_SWITCH: u16 = 9;
    pub const CPUID: u16 = 10;
    pub const HLT: u16 = 12;
    pub const INVLPG: u16 = 14;
    pub const RDTSC: u16 = 16;
    pub const VMCALL: u16 = 18;
    pub const CR_ACCESS: u16 = 28;
    pub const MOV_DR: u16 = 29;
    pub const IO_INSTRUCTION: u16 = 30;
    pub const RDMSR: u16 = 31;
    pub const WRMSR: u16 = 32;
    pub const INVALID_GUEST_STATE: u16 = 33;
    pub const MSR_LOADING: u16 = 34;
    pub const MACHINE_CHECK: u16 = 41;
    pub const GDTR_IDTR: u16 = 46;
    pub const LDTR_TR: u16 = 47;
    pub const EPT_VIOLATION: u16 = 48;
    pub const EPT_MISCONFIGURATION: u16 = 49;
    pub const RDTSCP: u16 = 51;
    pub const PREEMPTION_TIMER: u16 = 52;
    pub const XSETBV: u16 = 55;
}

/// Number of reasons with a meaning.
pub const REASONS: usize = 80;

/// The exit for each reason, as a number.
pub const NEUTRAL: [u8; REASONS] = table();

const fn table() -> [u8; REASONS] {
    let mut table = [Exit::Other as u8; REASONS];
    let mut rest: &[(usize, Exit)] = &[
        (0, Exit::Exception),
        (2, Exit::TripleFault),
        (3, Exit::Init),
        (7, Exit::InterruptWindow),
        (8, Exit::NmiWindow),
        (9, Exit::TaskSwitch),
        (10, Exit::Cpuid),
        (12, Exit::Hlt),
        (13, Exit::CacheInvalidate),
        (14, Exit::Invlpg),
        (15, Exit::Rdpmc),
        (16, Exit::Rdtsc),
        (18, Exit::Hypercall),
        // VMCLEAR, VMLAUNCH, VMPTRLD, VMPTRST, VMREAD, VMRESUME, VMWRITE, VMXOFF, VMXON.
        (19, Exit::Virtualization),
        (20, Exit::Virtualization),
        (21, Exit::Virtualization),
        (22, Exit::Virtualization),
        (23, Exit::Virtualization),
        (24, Exit::Virtualization),
        (25, Exit::Virtualization),
        (26, Exit::Virtualization),
        (27, Exit::Virtualization),
        (28, Exit::Control),
        (29, Exit::Debug),
        (30, Exit::Port),
        (31, Exit::MsrRead),
        (32, Exit::MsrWrite),
        // Entry failed: guest state, MSR loading, machine check.
        (33, Exit::BadState),
        (34, Exit::BadState),
        (41, Exit::BadState),
        (36, Exit::Mwait),
        (39, Exit::Mwait),
        (40, Exit::Pause),
        (46, Exit::DescriptorTable),
        (47, Exit::DescriptorTable),
        (48, Exit::Memory),
        // INVEPT, INVVPID.
        (50, Exit::Virtualization),
        (53, Exit::Virtualization),
        (51, Exit::Rdtsc),
        // The preemption timer is how a deadline can be kept.
        (52, Exit::Recall),
        (54, Exit::CacheInvalidate),
        (55, Exit::Xsetbv),
        (58, Exit::Invlpg),
        // VMFUNC.
        (59, Exit::Virtualization),
    ];
    while let [(reason, exit), tail @ ..] = rest {
        table[*reason] = *exit as u8;
        rest = tail;
    }
    table
}

/// What the exit with that basic reason is to a VMM: the number of an [`Exit`]. External interrupts, NMIs and what else
/// concerns the kernel alone it must have handled before.
#[inline(always)]
#[must_use]
pub fn neutral(reason: u16) -> u8 {
    match NEUTRAL.get(usize::from(reason)) {
        Some(number) => *number,
        None => Exit::Other as u8,
    }
}
