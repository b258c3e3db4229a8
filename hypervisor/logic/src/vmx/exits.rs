//! Basic exit reasons (SDM 3D appendix C) and what they are to a VMM.

use crate::exits::table;
use abi::vcpu::Exit;

/// Reasons that the kernel looks at itself.
pub mod reason {
    #![allow(missing_docs)]
    pub const EXCEPTION_OR_NMI: u16 = 0;
    pub const EXTERNAL_INTERRUPT: u16 = 1;
    pub const TASK_SWITCH: u16 = 9;
    pub const MACHINE_CHECK_AT_ENTRY: u16 = 41;
    pub const EPT_VIOLATION: u16 = 48;
    pub const EPT_MISCONFIGURATION: u16 = 49;
}

/// The exit for each reason with a meaning, as a number.
const NEUTRAL: [u8; 80] = table(&[
    (0, 0, Exit::Exception),
    (2, 2, Exit::TripleFault),
    (3, 3, Exit::Init),
    (7, 7, Exit::InterruptWindow),
    (8, 8, Exit::NmiWindow),
    (9, 9, Exit::TaskSwitch),
    (10, 10, Exit::Cpuid),
    (12, 12, Exit::Hlt),
    (13, 13, Exit::CacheInvalidate),
    (14, 14, Exit::Invlpg),
    (15, 15, Exit::Rdpmc),
    (16, 16, Exit::Rdtsc),
    (18, 18, Exit::Hypercall),
    // VMCLEAR, VMLAUNCH, VMPTRLD, VMPTRST, VMREAD, VMRESUME, VMWRITE, VMXOFF, VMXON.
    (19, 27, Exit::Virtualization),
    (28, 28, Exit::Control),
    (29, 29, Exit::Debug),
    (30, 30, Exit::Port),
    (31, 31, Exit::MsrRead),
    (32, 32, Exit::MsrWrite),
    // Entry failed: guest state, MSR loading.
    (33, 34, Exit::BadState),
    (36, 36, Exit::Mwait),
    (39, 39, Exit::Mwait),
    (40, 40, Exit::Pause),
    (46, 47, Exit::DescriptorTable),
    (48, 48, Exit::Memory),
    // INVEPT, INVVPID.
    (50, 50, Exit::Virtualization),
    (53, 53, Exit::Virtualization),
    (51, 51, Exit::Rdtsc),
    (54, 54, Exit::CacheInvalidate),
    (55, 55, Exit::Xsetbv),
    (58, 58, Exit::Invlpg),
    // VMFUNC.
    (59, 59, Exit::Virtualization),
]);

/// What the exit with that basic reason is to a VMM: the number of an [`Exit`]. External interrupts, NMIs and what else
/// concerns the kernel alone it must have handled before.
#[inline(always)]
pub fn neutral(reason: u16) -> u8 {
    NEUTRAL.get(usize::from(reason)).copied().unwrap_or(Exit::Other as u8)
}
