//! From what the processor offers to what the kernel sets.

use super::capability::VmxCapabilities;
use super::controls::{EntryControls, ExitControls, Pin, Primary, Secondary};
use crate::refusal::Refusal;
use bitflags::Flags;

/// The VM-execution, exit and entry controls of every virtual CPU, and what else depends on the
/// processor.
///
/// The primary controls in [`TOGGLED`] and [`EntryControls::IA32E_MODE_GUEST`] are 0 here, and each
/// virtual CPU can set them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Controls {
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

/// A group of controls: its name and its capability MSR, in which the low half has the bits that must
/// be 1, the high half those that may be (SDM 3D A.2).
struct Group(&'static str, u64);

impl Group {
    /// These controls are to be 1, and those that have to be.
    fn on<F: Flags<Bits = u32>>(&self, flags: F) -> Result<u32, Refusal> {
        let missing = flags.bits() & !((self.1 >> 32) as u32);
        if missing != 0 {
            return Err(Refusal::Unavailable(self.0, name::<F>(missing)));
        }
        Ok(flags.bits() | self.1 as u32)
    }

    /// These controls are to be 0.
    fn off<F: Flags<Bits = u32>>(&self, flags: F) -> Result<(), Refusal> {
        let forced = flags.bits() & self.1 as u32;
        if forced != 0 {
            return Err(Refusal::Forced(self.0, name::<F>(forced)));
        }
        Ok(())
    }
}

/// The name of the lowest flag in `bits`.
fn name<F: Flags<Bits = u32>>(bits: u32) -> &'static str {
    F::FLAGS.iter().find(|flag| flag.value().bits() & bits != 0).map_or("?", |flag| flag.name())
}

const fn bit(value: u64, bit: u32) -> bool {
    value >> bit & 1 != 0
}

/// What IA32_FEATURE_CONTROL must be written with before VMXON if the firmware has left it open, on each CPU (SDM 3C 24.7).
///
/// # Errors
/// The firmware has decided against VT-x.
pub const fn unlock(feature_control: u64) -> Result<Option<u64>, Refusal> {
    const LOCK: u64 = 1 << 0;
    const VMX_OUTSIDE_SMX: u64 = 1 << 2;
    if feature_control & LOCK == 0 {
        Ok(Some(feature_control | VMX_OUTSIDE_SMX | LOCK))
    } else if feature_control & VMX_OUTSIDE_SMX == 0 {
        Err(Refusal::Because("VT-x is locked off by firmware (IA32_FEATURE_CONTROL)"))
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
        return Err(Refusal::Absent("VT-x"));
    }
    unlock(caps.feature_control)?;
    let may = Secondary::from_bits_retain((caps.secondary >> 32) as u32);
    // SDM 3D A.10.
    for (there, what) in [
        (may.contains(Secondary::ENABLE_EPT), "no EPT"),
        (may.contains(Secondary::UNRESTRICTED_GUEST), "no unrestricted guest"),
        (bit(caps.ept_vpid, 6), "EPT without a 4-level walk"),
        (bit(caps.ept_vpid, 14), "EPT without write-back paging structures"),
        (bit(caps.ept_vpid, 20), "EPT without INVEPT"),
        (bit(caps.ept_vpid, 26), "EPT without all-context INVEPT"),
    ] {
        if !there {
            return Err(Refusal::Because(what));
        }
    }
    let memory_type = (caps.basic >> 50 & 0xf) as u8;
    if memory_type != 6 {
        return Err(Refusal::VmcsMemoryType(memory_type));
    }

    let primary = Group("primary processor-based", caps.primary);
    primary.on(TOGGLED)?;
    primary.off(TOGGLED.union(PRIMARY_OFF))?;
    let entry = Group("VM-entry", caps.entry);
    entry.on(EntryControls::IA32E_MODE_GUEST)?;
    entry.off(EntryControls::IA32E_MODE_GUEST)?;
    // INVVPID itself, of a single context, of all contexts.
    let vpid_usable = [32, 41, 42].into_iter().all(|number| bit(caps.ept_vpid, number));
    let mut wanted = SECONDARY | SECONDARY_WANTED & may;
    wanted.set(Secondary::ENABLE_VPID, vpid_usable && may.contains(Secondary::ENABLE_VPID));
    let secondary = Group("secondary processor-based", caps.secondary).on(wanted)?;
    Ok(Controls {
        revision: caps.basic as u32 & 0x7fff_ffff,
        pin: Group("pin-based", caps.pin).on(PIN)?,
        primary: primary.on(PRIMARY)?,
        secondary,
        exit: Group("VM-exit", caps.exit).on(EXIT)?,
        entry: entry.on(ENTRY)?,
        ept_2m: bit(caps.ept_vpid, 16),
        ept_1g: bit(caps.ept_vpid, 17),
        vpid: secondary & Secondary::ENABLE_VPID.bits() != 0,
        io_bitmaps: primary.on(Primary::USE_IO_BITMAPS).is_ok(),
    })
}
