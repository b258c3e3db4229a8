//! From what the processor offers to what the kernel sets.

use super::capability::VmxCapabilities;
use super::controls::{EntryControls, ExitControls, Pin, Primary, Secondary};
use bitflags::Flags;
use core::fmt;

/// The VM-execution, exit and entry controls of every virtual CPU, and what else depends on the
/// processor.
///
/// The primary controls in [`TOGGLED`] and [`EntryControls::IA32E_MODE_GUEST`] are 0 here, and each
/// virtual CPU can set them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Controls {
    /// What IA32_FEATURE_CONTROL must be written with before VMXON: the firmware has left it open.
    pub unlock: Option<u64>,
    /// VMCS revision identifier, for the first word of a VMXON region and of each VMCS.
    pub revision: u32,
    /// Pin-based controls.
    pub pin: u32,
    /// Primary processor-based controls: all I/O instructions exit.
    pub primary: u32,
    /// Secondary processor-based controls.
    pub secondary: u32,
    /// VM-exit controls.
    pub exit: u32,
    /// VM-entry controls, of a guest outside IA-32e mode.
    pub entry: u32,
    /// Bits of CR0 that are 1 in VMX operation. A guest's PE and PG may be 0 nevertheless.
    pub cr0_fixed0: u64,
    /// Bits of CR0 that may be 1 in VMX operation.
    pub cr0_fixed1: u64,
    /// Bits of CR4 that are 1 in VMX operation.
    pub cr4_fixed0: u64,
    /// Bits of CR4 that may be 1 in VMX operation.
    pub cr4_fixed1: u64,
    /// EPT leaves of 2 MiB.
    pub ept_2m: bool,
    /// EPT leaves of 1 GiB.
    pub ept_1g: bool,
    /// VPIDs are on, with INVVPID of one of them and of all.
    pub vpid: bool,
    /// [`Primary::USE_IO_BITMAPS`] can be set.
    pub io_bitmaps: bool,
}

/// Primary controls that the kernel changes while a virtual CPU lives.
pub const TOGGLED: Primary = Primary::INTERRUPT_WINDOW_EXITING
    .union(Primary::NMI_WINDOW_EXITING)
    .union(Primary::RDTSC_EXITING)
    .union(Primary::PAUSE_EXITING)
    .union(Primary::MOV_DR_EXITING);

const PIN: Pin = Pin::EXTERNAL_INTERRUPT_EXITING.union(Pin::NMI_EXITING).union(Pin::VIRTUAL_NMIS);

const PRIMARY: Primary = Primary::USE_TSC_OFFSETTING
    .union(Primary::HLT_EXITING)
    .union(Primary::MWAIT_EXITING)
    .union(Primary::RDPMC_EXITING)
    .union(Primary::CR8_LOAD_EXITING)
    .union(Primary::CR8_STORE_EXITING)
    .union(Primary::UNCONDITIONAL_IO_EXITING)
    .union(Primary::USE_MSR_BITMAPS)
    .union(Primary::MONITOR_EXITING)
    .union(Primary::ACTIVATE_SECONDARY);

/// Besides those in [`TOGGLED`].
const PRIMARY_OFF: Primary =
    Primary::INVLPG_EXITING.union(Primary::CR3_LOAD_EXITING).union(Primary::CR3_STORE_EXITING);

const SECONDARY: Secondary =
    Secondary::ENABLE_EPT.union(Secondary::UNRESTRICTED_GUEST).union(Secondary::WBINVD_EXITING);

const SECONDARY_WANTED: Secondary = Secondary::ENABLE_VPID
    .union(Secondary::ENABLE_RDTSCP)
    .union(Secondary::ENABLE_INVPCID)
    .union(Secondary::ENABLE_XSAVES);

const EXIT: ExitControls = ExitControls::SAVE_DEBUG_CONTROLS
    .union(ExitControls::HOST_ADDRESS_SPACE_SIZE)
    .union(ExitControls::ACKNOWLEDGE_INTERRUPT)
    .union(ExitControls::SAVE_PAT)
    .union(ExitControls::LOAD_PAT)
    .union(ExitControls::SAVE_EFER)
    .union(ExitControls::LOAD_EFER);

const ENTRY: EntryControls = EntryControls::LOAD_DEBUG_CONTROLS
    .union(EntryControls::LOAD_PAT)
    .union(EntryControls::LOAD_EFER);

/// Why this processor cannot run guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// CPUID reports no VMX.
    NoVtx,
    /// The firmware has locked IA32_FEATURE_CONTROL with VMX off.
    LockedOff,
    /// There is no EPT.
    NoEpt,
    /// The EPT lack something.
    EptLacks(&'static str),
    /// There is no unrestricted guest.
    NoUnrestrictedGuest,
    /// The VMCS must lie in memory of another type than write-back; here is the number (SDM 3D
    /// A.1).
    VmcsMemoryType(u8),
    /// A control cannot be 1: its group, and its name.
    Unavailable(&'static str, &'static str),
    /// A control cannot be 0: its group, and its name.
    Forced(&'static str, &'static str),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoVtx => f.write_str("no VT-x"),
            Self::LockedOff => f.write_str("VT-x is locked off by firmware (IA32_FEATURE_CONTROL)"),
            Self::NoEpt => f.write_str("no EPT"),
            Self::EptLacks(what) => write!(f, "EPT without {what}"),
            Self::NoUnrestrictedGuest => f.write_str("no unrestricted guest"),
            Self::VmcsMemoryType(kind) => write!(f, "VMCS in memory of type {kind}"),
            Self::Unavailable(group, name) => {
                write!(f, "{group} control {name} is not available")
            }
            Self::Forced(group, name) => write!(f, "{group} control {name} cannot be off"),
        }
    }
}

/// The name of the lowest flag in `bits`.
fn name<F: Flags<Bits = u32>>(bits: u32) -> &'static str {
    F::FLAGS.iter().find(|flag| flag.value().bits() & bits != 0).map_or("?", |flag| flag.name())
}

/// The controls of a group. In a capability MSR the low half has the bits that must be 1, the high
/// half those that may be (SDM 3D A.2).
fn adjust<F: Flags<Bits = u32>>(
    group: &'static str,
    msr: u64,
    required: F,
    wanted: F,
    off: F,
) -> Result<u32, Refusal> {
    let (must, may) = (msr as u32, (msr >> 32) as u32);
    let missing = required.bits() & !may;
    if missing != 0 {
        return Err(Refusal::Unavailable(group, name::<F>(missing)));
    }
    let forced = off.bits() & must;
    if forced != 0 {
        return Err(Refusal::Forced(group, name::<F>(forced)));
    }
    Ok(required.bits() | wanted.bits() & may | must)
}

/// Whether all of these bits can be both 0 and 1.
fn settable<F: Flags<Bits = u32> + Copy>(
    group: &'static str,
    msr: u64,
    flags: F,
) -> Result<(), Refusal> {
    adjust(group, msr, flags, F::empty(), F::empty())?;
    adjust(group, msr, F::empty(), F::empty(), flags).map(|_| ())
}

const fn bit(value: u64, bit: u32) -> bool {
    value >> bit & 1 != 0
}

/// What IA32_FEATURE_CONTROL must be written with, if anything (SDM 3C 24.7).
const fn unlock(feature_control: u64) -> Result<Option<u64>, Refusal> {
    const LOCK: u64 = 1 << 0;
    const VMX_OUTSIDE_SMX: u64 = 1 << 2;
    if feature_control & LOCK == 0 {
        Ok(Some(feature_control | VMX_OUTSIDE_SMX | LOCK))
    } else if feature_control & VMX_OUTSIDE_SMX == 0 {
        Err(Refusal::LockedOff)
    } else {
        Ok(None)
    }
}

/// Chooses the controls for a processor.
///
/// # Errors
/// The first thing that the kernel cannot do without and the processor lacks.
pub fn negotiate(caps: &VmxCapabilities) -> Result<Controls, Refusal> {
    if !caps.vmx {
        return Err(Refusal::NoVtx);
    }
    let unlock = unlock(caps.feature_control)?;
    let may = |msr: u64, flags: u32| (msr >> 32) as u32 & flags == flags;
    if !may(caps.secondary, Secondary::ENABLE_EPT.bits()) {
        return Err(Refusal::NoEpt);
    }
    if !may(caps.secondary, Secondary::UNRESTRICTED_GUEST.bits()) {
        return Err(Refusal::NoUnrestrictedGuest);
    }
    // SDM 3D A.10.
    for (number, what) in [
        (6, "a 4-level walk"),
        (14, "write-back paging structures"),
        (20, "INVEPT"),
        (26, "all-context INVEPT"),
    ] {
        if !bit(caps.ept_vpid, number) {
            return Err(Refusal::EptLacks(what));
        }
    }
    let memory_type = (caps.basic >> 50 & 0xf) as u8;
    if memory_type != 6 {
        return Err(Refusal::VmcsMemoryType(memory_type));
    }

    settable("primary processor-based", caps.primary, TOGGLED)?;
    settable("VM-entry", caps.entry, EntryControls::IA32E_MODE_GUEST)?;
    // INVVPID itself, of a single context, of all contexts.
    let vpid_usable = [32, 41, 42].into_iter().all(|number| bit(caps.ept_vpid, number));
    let mut wanted = SECONDARY_WANTED;
    wanted.set(Secondary::ENABLE_VPID, vpid_usable);
    let secondary =
        adjust("secondary processor-based", caps.secondary, SECONDARY, wanted, Secondary::empty())?;
    Ok(Controls {
        unlock,
        revision: caps.basic as u32 & 0x7fff_ffff,
        pin: adjust("pin-based", caps.pin, PIN, Pin::empty(), Pin::empty())?,
        primary: adjust(
            "primary processor-based",
            caps.primary,
            PRIMARY,
            Primary::empty(),
            PRIMARY_OFF,
        )?,
        secondary,
        exit: adjust("VM-exit", caps.exit, EXIT, ExitControls::empty(), ExitControls::empty())?,
        entry: adjust(
            "VM-entry",
            caps.entry,
            ENTRY,
            EntryControls::empty(),
            EntryControls::empty(),
        )?,
        cr0_fixed0: caps.cr0_fixed0,
        cr0_fixed1: caps.cr0_fixed1,
        cr4_fixed0: caps.cr4_fixed0,
        cr4_fixed1: caps.cr4_fixed1,
        ept_2m: bit(caps.ept_vpid, 16),
        ept_1g: bit(caps.ept_vpid, 17),
        vpid: secondary & Secondary::ENABLE_VPID.bits() != 0,
        io_bitmaps: may(caps.primary, Primary::USE_IO_BITMAPS.bits()),
    })
}
