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
    /// IA32_VMX_PINBASED_CTLS (A.3.1).
    pub pin: u64,
    /// IA32_VMX_PROCBASED_CTLS (A.3.2).
    pub primary: u64,
    /// IA32_VMX_EXIT_CTLS (A.4).
    pub exit: u64,
    /// IA32_VMX_ENTRY_CTLS (A.5).
    pub entry: u64,
    /// IA32_VMX_MISC (A.6).
    pub misc: u64,
    /// IA32_VMX_CR0_FIXED0 (A.7).
    pub cr0_fixed0: u64,
    /// IA32_VMX_CR0_FIXED1 (A.7).
    pub cr0_fixed1: u64,
    /// IA32_VMX_CR4_FIXED0 (A.8).
    pub cr4_fixed0: u64,
    /// IA32_VMX_CR4_FIXED1 (A.8).
    pub cr4_fixed1: u64,
    /// IA32_VMX_VMCS_ENUM (A.9).
    pub vmcs_enum: u64,
    /// IA32_VMX_PROCBASED_CTLS2 (A.3.3).
    pub secondary: u64,
    /// IA32_VMX_EPT_VPID_CAP (A.10).
    pub ept_vpid: u64,
    /// IA32_VMX_TRUE_PINBASED_CTLS (A.3.1).
    pub true_pin: u64,
    /// IA32_VMX_TRUE_PROCBASED_CTLS (A.3.2).
    pub true_primary: u64,
    /// IA32_VMX_TRUE_EXIT_CTLS (A.4).
    pub true_exit: u64,
    /// IA32_VMX_TRUE_ENTRY_CTLS (A.5).
    pub true_entry: u64,
    /// IA32_VMX_VMFUNC (A.11).
    pub vmfunc: u64,
    /// IA32_VMX_PROCBASED_CTLS3 (A.3.4).
    pub tertiary: u64,
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
        let mut at = |offset: u32| rdmsr(IA32_VMX_BASIC + offset);
        let mut caps = Self {
            vmx,
            basic: at(0),
            pin: at(1),
            primary: at(2),
            exit: at(3),
            entry: at(4),
            misc: at(5),
            cr0_fixed0: at(6),
            cr0_fixed1: at(7),
            cr4_fixed0: at(8),
            cr4_fixed1: at(9),
            vmcs_enum: at(0xa),
            ..Self::default()
        };
        if allowed(caps.primary, 31) {
            caps.secondary = at(0xb);
        }
        if allowed(caps.secondary, 1) || allowed(caps.secondary, 5) {
            caps.ept_vpid = at(0xc);
        }
        if caps.has_true_controls() {
            caps.true_pin = at(0xd);
            caps.true_primary = at(0xe);
            caps.true_exit = at(0xf);
            caps.true_entry = at(0x10);
        }
        if allowed(caps.secondary, 13) {
            caps.vmfunc = at(0x11);
        }
        if allowed(caps.primary, 17) {
            caps.tertiary = at(0x12);
        }
        caps.feature_control = rdmsr(IA32_FEATURE_CONTROL);
        caps
    }

    /// Whether the TRUE MSRs exist and count (A.2).
    #[must_use]
    pub const fn has_true_controls(&self) -> bool {
        self.basic >> 55 & 1 != 0
    }
}
