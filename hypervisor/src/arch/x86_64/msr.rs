//! Model-specific registers.

use x86_64::registers::model_specific;

/// A register's index.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Msr(pub u32);

/// IA32_FEATURE_CONTROL.
pub const FEATURE_CONTROL: Msr = Msr(0x3a);
/// IA32_APIC_BASE.
pub const APIC_BASE: Msr = Msr(0x1b);
/// IA32_SYSENTER_CS.
pub const SYSENTER_CS: Msr = Msr(0x174);
/// IA32_SYSENTER_ESP.
pub const SYSENTER_ESP: Msr = Msr(0x175);
/// IA32_SYSENTER_EIP.
pub const SYSENTER_EIP: Msr = Msr(0x176);
/// IA32_PAT.
pub const PAT: Msr = Msr(0x277);
/// IA32_VMX_CR0_FIXED0: bits of CR0 that are 1 in VMX operation (SDM 3D A.7).
pub const CR0_FIXED0: Msr = Msr(0x486);
/// IA32_VMX_CR0_FIXED1: those that may be.
pub const CR0_FIXED1: Msr = Msr(0x487);
/// IA32_VMX_CR4_FIXED0: bits of CR4 that are 1 in VMX operation (SDM 3D A.8).
pub const CR4_FIXED0: Msr = Msr(0x488);
/// IA32_VMX_CR4_FIXED1: those that may be.
pub const CR4_FIXED1: Msr = Msr(0x489);
/// IA32_TSC_DEADLINE.
pub const TSC_DEADLINE: Msr = Msr(0x6e0);
/// First x2APIC register.
pub const X2APIC: Msr = Msr(0x800);
/// IA32_EFER.
pub const EFER: Msr = Msr(0xc000_0080);
/// IA32_STAR.
pub const STAR: Msr = Msr(0xc000_0081);
/// IA32_LSTAR.
pub const LSTAR: Msr = Msr(0xc000_0082);
/// IA32_CSTAR.
pub const CSTAR: Msr = Msr(0xc000_0083);
/// IA32_FMASK.
pub const FMASK: Msr = Msr(0xc000_0084);
/// IA32_KERNEL_GS_BASE.
pub const KERNEL_GS_BASE: Msr = Msr(0xc000_0102);
/// IA32_TSC_AUX.
pub const TSC_AUX: Msr = Msr(0xc000_0103);

impl Msr {
    /// Reads it.
    ///
    /// # Safety
    /// The processor has the register.
    #[inline(always)]
    pub unsafe fn read(self) -> u64 {
        #[cfg(feature = "counters")]
        super::counters::count(super::counters::RDMSR);
        // SAFETY: by the caller's word.
        unsafe { model_specific::Msr::new(self.0).read() }
    }

    /// Writes it.
    ///
    /// # Safety
    /// The processor has the register, takes the value, and the kernel stays sound with it.
    #[inline(always)]
    pub unsafe fn write(self, value: u64) {
        #[cfg(feature = "counters")]
        super::counters::count(super::counters::WRMSR);
        // SAFETY: by the caller's word.
        unsafe { model_specific::Msr::new(self.0).write(value) };
    }
}
