//! What differs between processors, and how a test finds out.

use core::arch::x86_64::__cpuid;

use crate::report::Check;

/// Which of the two sets of instructions for virtual machines there is (SDM 3C 24.6, APM 2 15.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// VT-x.
    Vmx,
    /// AMD-V.
    Svm,
}

/// The one that this machine has; the kernel would not run without.
pub fn extension() -> Extension {
    const VMX: u32 = 1 << 5;
    if __cpuid(1).ecx & VMX != 0 { Extension::Vmx } else { Extension::Svm }
}

/// The number that the processor has which runs this just now.
pub fn apic_id() -> u32 {
    __cpuid(1).ebx >> 24
}

/// Whether MONITOR and MWAIT are instructions at all.
pub fn has_monitor() -> bool {
    const MONITOR: u32 = 1 << 3;
    __cpuid(1).ecx & MONITOR != 0
}

/// Whether QEMU emulates the processor (CPUID leaf 40000000). It differs from processors in a few places, named where that matters;
/// they were found in version 7.2.
pub fn is_tcg() -> bool {
    let leaf = __cpuid(0x4000_0000);
    [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes).as_flattened() == b"TCGTCGTCGTCG"
}

/// How late something may come, in ticks of a clock with `hz` in a second: half a millisecond. QEMU's clock runs on while
/// the host does something else, so there it is ten times that.
pub fn slack(hz: u64) -> u64 {
    if is_tcg() { hz / 200 } else { hz / 2000 }
}

/// Does what measures time. Where QEMU's clock runs on while the host does something else, it may take ten attempts.
pub fn patiently(mut measure: impl FnMut() -> Check) -> Check {
    let mut result = measure();
    for _ in 1..if is_tcg() { 10 } else { 1 } {
        if result.is_ok() {
            break;
        }
        result = measure();
    }
    result
}
