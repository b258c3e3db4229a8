//! What differs between processors, and how a test finds out.

use core::arch::x86_64::__cpuid;

use abi::hip::features;
use abi::vcpu::{MemoryAccess, blocking};

use super::vm::Vm;

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

impl Vm {
    /// The length that an exit tells of an instruction of `length` bytes.
    pub fn told(&self, length: u64) -> u64 {
        if self.features & features::INSTRUCTION_LENGTH != 0 { length } else { 0 }
    }

    /// The linear address of an access to memory, if the exit tells it; it must if the kernel says so.
    pub fn linear(&self) -> Result<Option<u64>, alloc::string::String> {
        if self.state.qual[0] & MemoryAccess::LINEAR_VALID != 0 {
            return Ok(Some(self.state.qual[2]));
        }
        if self.features & features::LINEAR_ADDRESS != 0 {
            return Err("the linear address is missing".into());
        }
        Ok(None)
    }

    /// Whether interrupts are blocked by STI or MOV SS. Not every processor tells which of the two it was (APM 2 15.21.5).
    pub fn in_shadow(&self, by: u32) -> bool {
        let shadow = self.state.blocking & (blocking::STI | blocking::MOV_SS);
        shadow == by || shadow == blocking::STI && extension() == Extension::Svm
    }
}
