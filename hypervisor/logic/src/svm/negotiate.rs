//! From what the processor offers to what the kernel uses.

use super::capability::SvmCapabilities;
use crate::refusal::Refusal;
use bitflags::bitflags;

bitflags! {
    /// CPUID 8000_000A EDX (APM 3 E.4.9).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features: u32 {
        /// Nested paging.
        const NESTED_PAGING = 1 << 0;
        /// VM_CR can be locked with a key.
        const SVM_LOCK = 1 << 2;
        /// The address of the next instruction is told.
        const NRIP_SAVE = 1 << 3;
        /// Decode assists.
        const DECODE_ASSISTS = 1 << 7;
    }
}

/// What every virtual CPU uses, and what else depends on the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Controls {
    /// What VM_CR must be written with before EFER.SVME can be set: the firmware has turned AMD-V
    /// off, but not locked it. [`Self::confirm`] what it reads then.
    pub vm_cr: Option<u64>,
    /// Number of ASIDs, at least 2. 0 is the host's.
    pub asids: u32,
    /// Nested leaves of 1 GiB.
    pub pages_1g: bool,
    /// There is RDTSCP, and with it TSC_AUX.
    pub rdtscp: bool,
    /// Exits due to an instruction tell the address of the next.
    pub next_rip: bool,
    /// EXITINFO1 describes accesses to control and debug registers and INVLPG, and instruction bytes
    /// come with nested page faults.
    pub decode_assists: bool,
}

/// VM_CR.LOCK: LOCK and SVMDIS ignore writes.
const LOCK: u64 = 1 << 3;
/// VM_CR.SVMDIS: EFER.SVME cannot be set.
const SVMDIS: u64 = 1 << 4;

/// Chooses what to use of a processor.
///
/// # Errors
/// The first thing that the kernel cannot do without and the processor lacks.
pub const fn negotiate(caps: &SvmCapabilities) -> Result<Controls, Refusal> {
    let features = Features::from_bits_retain(caps.features);
    if !caps.svm {
        return Err(Refusal::Absent("AMD-V"));
    }
    // APM 2 15.4, 15.30.1.
    let vm_cr = match (caps.vm_cr & SVMDIS != 0, caps.vm_cr & LOCK != 0) {
        (false, _) => None,
        (true, false) => Some(caps.vm_cr & !SVMDIS),
        // Software that knows the firmware's key could unlock it (APM 2 15.31).
        (true, true) if features.contains(Features::SVM_LOCK) => {
            return Err(Refusal::Because("AMD-V is locked off by firmware with a key (VM_CR)"));
        }
        _ => return Err(Refusal::Because("AMD-V is locked off by firmware (VM_CR)")),
    };
    if !features.contains(Features::NESTED_PAGING) {
        return Err(Refusal::Because("no nested paging"));
    }
    if caps.asids < 2 {
        return Err(Refusal::TooFewAsids(caps.asids));
    }
    Ok(Controls {
        vm_cr,
        asids: caps.asids,
        pages_1g: caps.pages_1g,
        rdtscp: caps.rdtscp,
        next_rip: features.contains(Features::NRIP_SAVE),
        decode_assists: features.contains(Features::DECODE_ASSISTS),
    })
}

impl Controls {
    /// Whether EFER.SVME can be set, with VM_CR reading so.
    ///
    /// # Errors
    /// A [`Refusal`] if AMD-V is still turned off, though nothing is locked.
    pub const fn confirm(&self, vm_cr: u64) -> Result<(), Refusal> {
        if vm_cr & SVMDIS == 0 {
            return Ok(());
        }
        Err(Refusal::Because("AMD-V is turned off and cannot be turned on (VM_CR)"))
    }
}
