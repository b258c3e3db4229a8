//! What the processor says of AMD-V: two CPUID leaves and VM_CR.

/// VM_CR (APM 2 15.30.1).
pub const VM_CR: u32 = 0xc001_0114;
/// Largest extended leaf.
const EXTENDED: u32 = 0x8000_0000;
/// Extended features.
const FEATURES: u32 = 0x8000_0001;
/// AMD-V: revision, ASIDs, features.
const SVM: u32 = 0x8000_000a;

/// The raw values; 0 where the processor has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SvmCapabilities {
    /// CPUID 8000_0001 ECX\[2\]: there is AMD-V at all.
    pub svm: bool,
    /// CPUID 8000_0001 EDX\[26\]: leaves of 1 GiB, in nested tables as in any other (APM 3 E.4.2).
    pub pages_1g: bool,
    /// CPUID 8000_0001 EDX\[27\]: RDTSCP and TSC_AUX (APM 3 E.4.2).
    pub rdtscp: bool,
    /// CPUID 8000_000A EBX: number of ASIDs, that of the host included (APM 3 E.4.9).
    pub asids: u32,
    /// CPUID 8000_000A EDX: features (APM 3 E.4.9).
    pub features: u32,
    /// VM_CR.
    pub vm_cr: u64,
}

impl SvmCapabilities {
    /// Reads those leaves and registers that exist. `cpuid` gives EAX, EBX, ECX, EDX of a leaf.
    pub fn read(mut cpuid: impl FnMut(u32) -> [u32; 4], rdmsr: impl FnOnce(u32) -> u64) -> Self {
        let [last, ..] = cpuid(EXTENDED);
        if !(SVM..=EXTENDED | 0xffff).contains(&last) {
            return Self::default();
        }
        let [_, _, ecx, edx] = cpuid(FEATURES);
        if ecx & 1 << 2 == 0 {
            return Self::default();
        }
        let [_, asids, _, features] = cpuid(SVM);
        Self {
            svm: true,
            pages_1g: edx & 1 << 26 != 0,
            rdtscp: edx & 1 << 27 != 0,
            asids,
            features,
            vm_cr: rdmsr(VM_CR),
        }
    }
}
