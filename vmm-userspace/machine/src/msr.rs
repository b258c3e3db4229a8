//! What RDMSR and WRMSR do that leave the guest (SDM 4, chapter 2).
//!
//! | | registers |
//! |---|---|
//! | guest's own, in the state image; the kernel can let the guest use them without an exit | FS_BASE, GS_BASE, KERNEL_GS_BASE, STAR, LSTAR, CSTAR, FMASK, SYSENTER_CS, _ESP, _EIP, TSC_AUX, EFER, PAT |
//! | emulated with effect | APIC_BASE, x2APIC range, TSC_DEADLINE, TSC, TSC_ADJUST |
//! | kept, without effect: memory types come from the second-level tables | MTRRs |
//! | kept, without effect | MISC_ENABLE bit 0, MCG_STATUS, DEBUGCTL bits 0 and 1 |
//! | constant | MTRRCAP, MCG_CAP (no banks), PLATFORM_ID, PLATFORM_INFO, BIOS_SIGN_ID, FEATURE_CONTROL (locked, no virtualization), SMI_COUNT |
//! | constant, only where the APM describes the processor | those of [`system`] |
//! | writes ignored | BIOS_UPDT_TRIG, BIOS_SIGN_ID |
//! | #GP | everything else: what CPUID does not offer has no registers either |

mod mtrr;
pub mod system;

use abi::vcpu::{Groups, VcpuState};
use devices::lapic::{Clock, Effects, Gp, LocalApic, owns_msr};

pub use mtrr::Mtrr;

use crate::cpuid::Manual;

/// Numbers of registers (SDM 4 table 2-2).
pub mod index {
    #![allow(missing_docs)]
    pub const TSC: u32 = 0x10;
    pub const PLATFORM_ID: u32 = 0x17;
    pub const SMI_COUNT: u32 = 0x34;
    pub const FEATURE_CONTROL: u32 = 0x3a;
    pub const TSC_ADJUST: u32 = 0x3b;
    pub const BIOS_UPDT_TRIG: u32 = 0x79;
    pub const BIOS_SIGN_ID: u32 = 0x8b;
    pub const PLATFORM_INFO: u32 = 0xce;
    pub const SYSENTER_CS: u32 = 0x174;
    pub const SYSENTER_ESP: u32 = 0x175;
    pub const SYSENTER_EIP: u32 = 0x176;
    pub const MCG_CAP: u32 = 0x179;
    pub const MCG_STATUS: u32 = 0x17a;
    pub const MISC_ENABLE: u32 = 0x1a0;
    pub const DEBUGCTL: u32 = 0x1d9;
    pub const PAT: u32 = 0x277;
    pub const EFER: u32 = 0xc000_0080;
    pub const STAR: u32 = 0xc000_0081;
    pub const LSTAR: u32 = 0xc000_0082;
    pub const CSTAR: u32 = 0xc000_0083;
    pub const FMASK: u32 = 0xc000_0084;
    pub const FS_BASE: u32 = 0xc000_0100;
    pub const GS_BASE: u32 = 0xc000_0101;
    pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
    pub const TSC_AUX: u32 = 0xc000_0103;
}

/// FEATURE_CONTROL: locked, with virtualization off.
const LOCKED: u64 = 1;
/// BIOS_SIGN_ID: revision 1 in the upper half (SDM 3A 10.11.7.1).
const MICROCODE: u64 = 1 << 32;
/// The same register, where it is the patch level, in the lower half: that of a processor with some patch.
const PATCH_LEVEL: u64 = 0x0100_0065;
/// MISC_ENABLE: fast strings can be changed; branch trace and precise sampling are unavailable.
const MISC_WRITABLE: u64 = 1 << 0;
const MISC_FIXED: u64 = 1 << 11 | 1 << 12;
/// MISC_ENABLE bits that exist on some model; the others are reserved.
const MISC_DEFINED: u64 =
    1 << 0 | 1 << 3 | 1 << 7 | 1 << 11 | 1 << 12 | 1 << 16 | 1 << 18 | 1 << 22 | 1 << 23 | 1 << 34;
/// DEBUGCTL: LBR, BTF.
const DEBUGCTL_KEPT: u64 = 3;
/// MCG_STATUS: RIPV, EIPV, MCIP.
const MCG_STATUS_DEFINED: u64 = 7;
const CR0_PG: u64 = 1 << 31;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// Why an access was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// #GP(0).
    Gp,
    /// The state image lacks these groups; the access is to be repeated with them.
    Need(Groups),
}

impl From<Gp> for Refusal {
    fn from(Gp: Gp) -> Self {
        Self::Gp
    }
}

/// What the guest may have, from CPUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bits of IA32_EFER that may be set.
    pub efer: u64,
    /// Width of guest-physical addresses.
    pub physical_bits: u32,
    /// Which registers there are beside the common ones.
    pub manual: Manual,
}

/// The rest of the virtual CPU that an access can concern.
#[derive(Debug)]
pub struct Context<'a> {
    /// The state image.
    pub state: &'a mut VcpuState,
    /// The groups it holds.
    pub have: Groups,
    /// Its local APIC.
    pub lapic: &'a mut LocalApic,
    /// The clocks.
    pub clock: Clock,
}

/// What a write leaves to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Groups of the state image that changed.
    pub groups: Groups,
    /// Effects of the local APIC.
    pub effects: Effects,
}

/// The registers that are kept here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Msrs {
    limits: Limits,
    mtrr: Mtrr,
    misc_enable: u64,
    mcg_status: u64,
    debugctl: u64,
    tsc_adjust: u64,
    tsc_offset: u64,
}

impl Msrs {
    /// The registers as firmware leaves them: memory cacheable but for the hole of the devices.
    #[must_use]
    pub const fn new(limits: Limits, tsc_offset: u64) -> Self {
        Self {
            limits,
            mtrr: Mtrr::firmware(limits.physical_bits),
            misc_enable: MISC_WRITABLE,
            mcg_status: 0,
            debugctl: 0,
            tsc_adjust: 0,
            tsc_offset,
        }
    }

    /// What is added to the host's time-stamp counter to get the guest's.
    #[inline]
    #[must_use]
    pub const fn tsc_offset(&self) -> u64 {
        self.tsc_offset
    }

    /// RDMSR.
    ///
    /// # Errors
    /// See [`Refusal`].
    #[inline]
    pub fn read(&mut self, context: &mut Context<'_>, register: u32) -> Result<u64, Refusal> {
        if owns_msr(register) {
            return Ok(context.lapic.read_msr(register, context.clock)?);
        }
        if let Some((group, _)) = guest_register(register) {
            require(context, group)?;
            return Ok(*slot(context.state, register).ok_or(Refusal::Gp)?);
        }
        if let Some(value) = self.mtrr.read(register) {
            return Ok(value);
        }
        match register {
            index::TSC => Ok(context.clock.tsc),
            index::TSC_ADJUST => Ok(self.tsc_adjust),
            index::FEATURE_CONTROL => Ok(LOCKED),
            index::BIOS_SIGN_ID => Ok(match self.limits.manual {
                Manual::Sdm => MICROCODE,
                Manual::Apm => PATCH_LEVEL,
            }),
            index::PLATFORM_ID | index::PLATFORM_INFO | index::SMI_COUNT | index::MCG_CAP => Ok(0),
            index::MCG_STATUS => Ok(self.mcg_status),
            index::MISC_ENABLE => Ok(self.misc_enable | MISC_FIXED),
            index::DEBUGCTL => Ok(self.debugctl),
            _ if self.limits.manual == Manual::Apm => Ok(system::read(register)?),
            _ => Err(Refusal::Gp),
        }
    }

    /// WRMSR.
    ///
    /// # Errors
    /// See [`Refusal`]; nothing has changed then.
    #[inline]
    pub fn write(
        &mut self,
        context: &mut Context<'_>,
        register: u32,
        value: u64,
    ) -> Result<Written, Refusal> {
        if owns_msr(register) {
            let effects = context.lapic.write_msr(register, value, context.clock)?;
            return Ok(Written { effects, ..Written::default() });
        }
        let groups = self.write_other(context, register, value)?;
        Ok(Written { groups, ..Written::default() })
    }

    fn write_other(
        &mut self,
        context: &mut Context<'_>,
        register: u32,
        value: u64,
    ) -> Result<Groups, Refusal> {
        if register == index::EFER {
            return self.write_efer(context, value);
        }
        if let Some((group, check)) = guest_register(register) {
            if !check(value) {
                return Err(Refusal::Gp);
            }
            // Other members of the group are written back with it.
            require(context, group)?;
            *slot(context.state, register).ok_or(Refusal::Gp)? = value;
            return Ok(group);
        }
        if mtrr::owns(register) {
            self.mtrr.write(register, value, self.limits.physical_bits)?;
            return Ok(Groups::NONE);
        }
        let keep = |slot: &mut u64, allowed: u64, kept: u64| {
            if value & !allowed != 0 {
                return Err(Refusal::Gp);
            }
            *slot = value & kept;
            Ok(Groups::NONE)
        };
        match register {
            index::TSC => {
                // The adjustment tells what software has added (SDM 3B 18.17.3).
                let change = value.wrapping_sub(context.clock.tsc);
                self.tsc_adjust = self.tsc_adjust.wrapping_add(change);
                Ok(self.shift_tsc(context, change))
            }
            index::TSC_ADJUST => {
                let change = value.wrapping_sub(self.tsc_adjust);
                self.tsc_adjust = value;
                Ok(self.shift_tsc(context, change))
            }
            index::MISC_ENABLE => keep(&mut self.misc_enable, MISC_DEFINED, MISC_WRITABLE),
            index::MCG_STATUS => keep(&mut self.mcg_status, MCG_STATUS_DEFINED, MCG_STATUS_DEFINED),
            index::DEBUGCTL => keep(&mut self.debugctl, DEBUGCTL_KEPT, DEBUGCTL_KEPT),
            index::BIOS_UPDT_TRIG | index::BIOS_SIGN_ID => Ok(Groups::NONE),
            _ if self.limits.manual == Manual::Apm && system::ignores(register) => Ok(Groups::NONE),
            _ => Err(Refusal::Gp),
        }
    }

    fn shift_tsc(&mut self, context: &mut Context<'_>, change: u64) -> Groups {
        self.tsc_offset = self.tsc_offset.wrapping_add(change);
        context.state.tsc_offset = self.tsc_offset;
        Groups::TSC
    }

    /// IA32_EFER: LMA is read-only, LME cannot change while paging is on (SDM 3A 9.8.5).
    fn write_efer(&self, context: &mut Context<'_>, value: u64) -> Result<Groups, Refusal> {
        if value & !self.limits.efer != 0 {
            return Err(Refusal::Gp);
        }
        require(context, Groups::EFER_PAT | Groups::CR)?;
        let state = &mut *context.state;
        if (value ^ state.efer) & EFER_LME != 0 && state.cr0 & CR0_PG != 0 {
            return Err(Refusal::Gp);
        }
        state.efer = value & !EFER_LMA | state.efer & EFER_LMA;
        Ok(Groups::EFER_PAT)
    }
}

fn require(context: &Context<'_>, groups: Groups) -> Result<(), Refusal> {
    if context.have.contains(groups) { Ok(()) } else { Err(Refusal::Need(groups)) }
}

/// Whether a register may hold a value.
type Check = fn(u64) -> bool;

/// For a register in the state image: its group, and whether it may hold a value.
fn guest_register(register: u32) -> Option<(Groups, Check)> {
    let any = |_| true;
    let low = |value: u64| value >> 32 == 0;
    let canonical = |value: u64| (value as i64) << 16 >> 16 == value as i64;
    Some(match register {
        index::SYSENTER_CS => (Groups::SYSENTER, any),
        index::SYSENTER_ESP | index::SYSENTER_EIP => (Groups::SYSENTER, canonical),
        index::PAT => (Groups::EFER_PAT, valid_pat),
        index::EFER => (Groups::EFER_PAT, any),
        index::STAR => (Groups::SYSCALL, any),
        index::LSTAR | index::CSTAR | index::KERNEL_GS_BASE => (Groups::SYSCALL, canonical),
        index::FMASK | index::TSC_AUX => (Groups::SYSCALL, low),
        index::FS_BASE | index::GS_BASE => (Groups::FS_GS, canonical),
        _ => return None,
    })
}

fn slot(state: &mut VcpuState, register: u32) -> Option<&mut u64> {
    Some(match register {
        index::SYSENTER_CS => &mut state.sysenter_cs,
        index::SYSENTER_ESP => &mut state.sysenter_esp,
        index::SYSENTER_EIP => &mut state.sysenter_eip,
        index::PAT => &mut state.pat,
        index::EFER => &mut state.efer,
        index::STAR => &mut state.star,
        index::LSTAR => &mut state.lstar,
        index::CSTAR => &mut state.cstar,
        index::FMASK => &mut state.fmask,
        index::KERNEL_GS_BASE => &mut state.kernel_gs_base,
        index::TSC_AUX => &mut state.tsc_aux,
        index::FS_BASE => &mut state.fs.base,
        index::GS_BASE => &mut state.gs.base,
        _ => return None,
    })
}

/// Each byte is one of UC, WC, WT, WP, WB, UC- (SDM 3A 12.12.2).
fn valid_pat(value: u64) -> bool {
    value.to_le_bytes().iter().all(|kind| matches!(kind, 0 | 1 | 4..=7))
}
