//! The operating mode of a virtual CPU, as far as addresses depend on it.

use abi::vcpu::VcpuState;

/// CR0.PE.
pub const CR0_PE: u64 = 1 << 0;
/// CR0.WP.
pub const CR0_WP: u64 = 1 << 16;
/// CR0.PG.
pub const CR0_PG: u64 = 1 << 31;
/// CR4.PSE.
pub const CR4_PSE: u64 = 1 << 4;
/// CR4.PAE.
pub const CR4_PAE: u64 = 1 << 5;
/// CR4.SMEP.
pub const CR4_SMEP: u64 = 1 << 20;
/// CR4.SMAP.
pub const CR4_SMAP: u64 = 1 << 21;
/// IA32_EFER.LMA.
pub const EFER_LMA: u64 = 1 << 10;
/// IA32_EFER.NXE.
pub const EFER_NXE: u64 = 1 << 11;
/// RFLAGS.VM.
pub const RFLAGS_VM: u64 = 1 << 17;
/// RFLAGS.AC.
pub const RFLAGS_AC: u64 = 1 << 18;

/// How code and addresses are interpreted (SDM 3A 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Real-address or virtual-8086 mode: segments have no types.
    Real,
    /// Protected or compatibility mode with 16-bit code.
    Protected16,
    /// Protected or compatibility mode with 32-bit code.
    Protected32,
    /// 64-bit mode.
    Long,
}

impl Mode {
    /// The mode that `state` (CR0, EFER, RFLAGS, CS) describes.
    #[inline]
    #[must_use]
    pub const fn of(state: &VcpuState) -> Self {
        let attr = state.cs.attr;
        if state.efer & EFER_LMA != 0 && attr & 1 << 9 != 0 {
            Self::Long
        } else if state.cr0 & CR0_PE == 0 || state.rflags & RFLAGS_VM != 0 {
            Self::Real
        } else if attr & 1 << 10 != 0 {
            Self::Protected32
        } else {
            Self::Protected16
        }
    }

    /// Default size of code: 16, 32 or 64.
    #[inline]
    #[must_use]
    pub const fn code_bits(self) -> u32 {
        match self {
            Self::Real | Self::Protected16 => 16,
            Self::Protected32 => 32,
            Self::Long => 64,
        }
    }
}

/// Current privilege level: SS.DPL on every processor with a hidden part that can be read (SDM 3C 25.4.1).
#[inline]
#[must_use]
pub const fn cpl(state: &VcpuState) -> u8 {
    if state.rflags & RFLAGS_VM != 0 { 3 } else { (state.ss.attr >> 5 & 3) as u8 }
}
