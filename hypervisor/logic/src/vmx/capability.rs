//! The capability MSRs (SDM 3D appendix A).

/// IA32_FEATURE_CONTROL (SDM 4, table 2-2).
pub const IA32_FEATURE_CONTROL: u32 = 0x3a;
/// IA32_VMX_BASIC; the other capability MSRs follow it.
pub const IA32_VMX_BASIC: u32 = 0x480;

/// The raw values of the capability MSRs; 0 where the processor has no such MSR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VmxCapabilities {
    /// CPUID.1:ECX\[5\]: there is VMX at all.
    pub vmx: bool,
    /// IA32_FEATURE_CONTROL.
    pub feature_control: u64,
    /// IA32_VMX_BASIC (A.1).
    pub basic: u64,
    /// IA32_VMX_TRUE_PINBASED_CTLS, or IA32_VMX_PINBASED_CTLS where that is all there is (A.3.1).
    pub pin: u64,
    /// IA32_VMX_TRUE_PROCBASED_CTLS or IA32_VMX_PROCBASED_CTLS (A.3.2).
    pub primary: u64,
    /// IA32_VMX_TRUE_EXIT_CTLS or IA32_VMX_EXIT_CTLS (A.4).
    pub exit: u64,
    /// IA32_VMX_TRUE_ENTRY_CTLS or IA32_VMX_ENTRY_CTLS (A.5).
    pub entry: u64,
    /// IA32_VMX_PROCBASED_CTLS2 (A.3.3).
    pub secondary: u64,
    /// IA32_VMX_EPT_VPID_CAP (A.10).
    pub ept_vpid: u64,
}

/// Whether a control can be 1 according to a capability MSR.
const fn allowed(msr: u64, bit: u32) -> bool {
    msr >> (bit + 32) & 1 != 0
}

impl VmxCapabilities {
    /// Reads those MSRs that exist: an MSR is only read if the ones before say that there is one.
    /// `vmx` is CPUID.1:ECX\[5\].
    pub fn read(vmx: bool, mut rdmsr: impl FnMut(u32) -> u64) -> Self {
        if !vmx {
            return Self::default();
        }
        let feature_control = rdmsr(IA32_FEATURE_CONTROL);
        let mut at = |offset: u32| rdmsr(IA32_VMX_BASIC + offset);
        let basic = at(0);
        // The TRUE MSRs are in the order of the others (A.2).
        let first = if basic >> 55 & 1 != 0 { 0xd } else { 1 };
        let mut caps = Self {
            vmx,
            feature_control,
            basic,
            pin: at(first),
            primary: at(first + 1),
            exit: at(first + 2),
            entry: at(first + 3),
            ..Self::default()
        };
        if allowed(caps.primary, 31) {
            caps.secondary = at(0xb);
        }
        if allowed(caps.secondary, 1) || allowed(caps.secondary, 5) {
            caps.ept_vpid = at(0xc);
        }
        caps
    }
}
