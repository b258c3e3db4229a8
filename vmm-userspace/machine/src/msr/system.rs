//! Registers from c001_0000 on: what a kernel looks at that takes itself to be on bare metal. None of them has an effect here, since
//! what they control is the host's. The Processor Programming References describe each under its number, as MSRC001_0015.
//!
//! | register | reads as |
//! |---|---|
//! | HWCR | the time-stamp counter runs at the frequency of P-state 0; nothing is disabled |
//! | SYSCFG | fixed MTRRs have no extended bits; no second top of memory; no memory encryption |
//! | NB_CFG | no extended access to configuration space |
//! | INT_PENDING | no message that wakes from a sleep state |
//! | VM_CR | virtualization is off and locked (APM 2 15.30.1) |
//! | DE_CFG | LFENCE waits for everything before it |
//! | DC_CFG, TW_CFG, CU_CFG2, CU_CFG3 | nothing is disabled |
//! | PATCH_LOADER | #GP: it can only be written |
//! | energy counters and their units | they stand still |
//!
//! The writable ones ignore what is written. Everything else that APM 2 table A-1 lists faults, as CPUID announces none of it:
//! performance counters, OSVW, P-states, SMM, IBS, virtual speculation control.

use devices::lapic::Gp;

/// Numbers of registers.
pub mod index {
    #![allow(missing_docs)]
    pub const SYSCFG: u32 = 0xc001_0010;
    pub const HWCR: u32 = 0xc001_0015;
    pub const NB_CFG: u32 = 0xc001_001f;
    pub const PATCH_LOADER: u32 = 0xc001_0020;
    pub const INT_PENDING: u32 = 0xc001_0055;
    pub const VM_CR: u32 = 0xc001_0114;
    pub const RAPL_POWER_UNIT: u32 = 0xc001_0299;
    pub const CORE_ENERGY_STATUS: u32 = 0xc001_029a;
    pub const PACKAGE_ENERGY_STATUS: u32 = 0xc001_029b;
    pub const DC_CFG: u32 = 0xc001_1022;
    pub const TW_CFG: u32 = 0xc001_1023;
    pub const DE_CFG: u32 = 0xc001_1029;
    pub const CU_CFG2: u32 = 0xc001_102a;
    pub const CU_CFG3: u32 = 0xc001_102b;
}

/// HWCR.TscFreqSel.
const TSC_AT_P0: u64 = 1 << 24;
/// VM_CR.LOCK and VM_CR.SVMDIS.
const LOCKED_OFF: u64 = 1 << 3 | 1 << 4;
/// DE_CFG.LfenceSerialize.
const LFENCE_SERIALIZES: u64 = 1 << 1;

/// RDMSR.
///
/// # Errors
/// #GP for a register that is not there.
pub const fn read(register: u32) -> Result<u64, Gp> {
    match register {
        index::HWCR => Ok(TSC_AT_P0),
        index::VM_CR => Ok(LOCKED_OFF),
        index::DE_CFG => Ok(LFENCE_SERIALIZES),
        index::SYSCFG
        | index::NB_CFG
        | index::INT_PENDING
        | index::DC_CFG
        | index::TW_CFG
        | index::CU_CFG2
        | index::CU_CFG3
        | index::RAPL_POWER_UNIT
        | index::CORE_ENERGY_STATUS
        | index::PACKAGE_ENERGY_STATUS => Ok(0),
        _ => Err(Gp),
    }
}

/// Whether WRMSR is ignored; for the others it is a #GP.
#[must_use]
pub const fn ignores(register: u32) -> bool {
    matches!(
        register,
        index::SYSCFG
            | index::HWCR
            | index::NB_CFG
            | index::PATCH_LOADER
            | index::INT_PENDING
            | index::VM_CR
            | index::DC_CFG
            | index::TW_CFG
            | index::DE_CFG
            | index::CU_CFG2
            | index::CU_CFG3
    )
}
