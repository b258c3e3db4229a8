//! MOV to control registers, CLTS, LMSW, XSETBV: the checks and effects of SDM 3A 2.5, 4.1.2, 4.4.1, 9.8.5 and 13.3.
//!
//! Functions change the state image and return the groups to write back; `Err(Gp)` stands for #GP(0) and leaves the image as it was.

use abi::vcpu::{Groups, VcpuState};
use devices::lapic::Gp;

use crate::memory::GuestMemory;

const PE: u64 = 1 << 0;
const TS: u64 = 1 << 3;
const ET: u64 = 1 << 4;
const NW: u64 = 1 << 29;
const CD: u64 = 1 << 30;
const PG: u64 = 1 << 31;
/// Bits of CR0 that exist: PE, MP, EM, TS, ET, NE, WP, AM, NW, CD, PG. Others below bit 32 are ignored.
const CR0_DEFINED: u64 = 0xe005_003f;

const PSE: u64 = 1 << 4;
const PAE: u64 = 1 << 5;
const PGE: u64 = 1 << 7;
const PCIDE: u64 = 1 << 17;
const SMEP: u64 = 1 << 20;
/// CR4.OSXSAVE.
pub const OSXSAVE: u64 = 1 << 18;

const LME: u64 = 1 << 8;
const LMA: u64 = 1 << 10;
/// CS.L in the segment attributes.
const CS_L: u16 = 1 << 9;
/// Type of a busy 16-bit TSS.
const TSS16_BUSY: u16 = 3;

/// What the machine allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bits of CR4 that may be set.
    pub cr4: u64,
    /// Bits of XCR0 that may be set.
    pub xcr0: u64,
    /// Width of guest-physical addresses.
    pub physical_bits: u32,
}

/// MOV to CR0. Needs [`Groups::CR`], [`Groups::EFER_PAT`], [`Groups::CS_SS`], [`Groups::TABLES`].
///
/// # Errors
/// #GP(0) by SDM 2B, MOV control registers.
pub fn write_cr0(
    state: &mut VcpuState,
    value: u64,
    memory: &impl GuestMemory,
    limits: &Limits,
) -> Result<Groups, Gp> {
    if value >> 32 != 0 || value & (PG | PE) == PG || value & (NW | CD) == NW {
        return Err(Gp);
    }
    let new = value & CR0_DEFINED | ET;
    let old = state.cr0;
    let mut groups = Groups::CR;
    let mut efer = state.efer;
    if new & PG != 0 && old & PG == 0 && efer & LME != 0 {
        let tss16 = state.tr.attr & 0xf == TSS16_BUSY;
        if state.cr4 & PAE == 0 || state.cs.attr & CS_L != 0 || tss16 {
            return Err(Gp);
        }
        efer |= LMA;
    }
    if new & PG == 0 && old & PG != 0 {
        let in_64_bit = efer & LMA != 0 && state.cs.attr & CS_L != 0;
        if in_64_bit || state.cr4 & PCIDE != 0 {
            return Err(Gp);
        }
        efer &= !LMA;
    }
    // Changes of CD, NW or PG load the PDPTEs in PAE paging (SDM 3A 4.4.1).
    let pae = new & PG != 0 && state.cr4 & PAE != 0 && efer & LMA == 0;
    if pae && (new ^ old) & (CD | NW | PG) != 0 {
        state.pdpte = load_pdptes(state.cr3, memory, limits)?;
    }
    if efer != state.efer {
        state.efer = efer;
        groups |= Groups::EFER_PAT;
    }
    state.cr0 = new;
    Ok(groups)
}

/// MOV to CR3. Needs [`Groups::CR`] and [`Groups::EFER_PAT`].
///
/// # Errors
/// #GP(0) for reserved bits, in CR3 or in the PDPTEs it points to.
pub fn write_cr3(
    state: &mut VcpuState,
    value: u64,
    memory: &impl GuestMemory,
    limits: &Limits,
) -> Result<Groups, Gp> {
    let mut value = value;
    if state.cr4 & PCIDE != 0 {
        // Bit 63 asks to keep translations; it is not stored (SDM 3A 4.10.4.1).
        value &= !(1 << 63);
    }
    if state.efer & LMA != 0 && value >> limits.physical_bits != 0 {
        return Err(Gp);
    }
    if state.efer & LMA == 0 {
        value &= 0xffff_ffff;
        if state.cr0 & PG != 0 && state.cr4 & PAE != 0 {
            state.pdpte = load_pdptes(value, memory, limits)?;
        }
    }
    state.cr3 = value;
    Ok(Groups::CR)
}

/// MOV to CR4. Needs [`Groups::CR`] and [`Groups::EFER_PAT`].
///
/// # Errors
/// #GP(0) for bits the machine does not offer and for the combinations of SDM 2B, MOV control registers.
pub fn write_cr4(
    state: &mut VcpuState,
    value: u64,
    memory: &impl GuestMemory,
    limits: &Limits,
) -> Result<Groups, Gp> {
    let old = state.cr4;
    let set = value & !old;
    if value & !limits.cr4 != 0 || state.efer & LMA != 0 && value & PAE == 0 {
        return Err(Gp);
    }
    if set & PCIDE != 0 && (state.efer & LMA == 0 || state.cr3 & 0xfff != 0) {
        return Err(Gp);
    }
    let pae = state.cr0 & PG != 0 && value & PAE != 0 && state.efer & LMA == 0;
    if pae && (value ^ old) & (PAE | PGE | PSE | SMEP) != 0 {
        state.pdpte = load_pdptes(state.cr3, memory, limits)?;
    }
    state.cr4 = value;
    Ok(Groups::CR)
}

/// CLTS.
pub fn clts(state: &mut VcpuState) -> Groups {
    state.cr0 &= !TS;
    Groups::CR
}

/// LMSW: bits 0 to 3 of CR0, of which PE can be set but not cleared (SDM 2A, LMSW).
///
/// # Errors
/// As for MOV to CR0.
pub fn lmsw(
    state: &mut VcpuState,
    operand: u16,
    memory: &impl GuestMemory,
    limits: &Limits,
) -> Result<Groups, Gp> {
    let kept = state.cr0 & (!0xf | PE);
    write_cr0(state, kept | u64::from(operand & 0xf), memory, limits)
}

/// XSETBV. Needs [`Groups::ACDB`]; changes [`Groups::XSAVE`].
///
/// # Errors
/// #GP(0) for another register than XCR0 and for values by SDM 2C, XSETBV.
pub fn xsetbv(state: &mut VcpuState, limits: &Limits) -> Result<u64, Gp> {
    const X87: u64 = 1 << 0;
    const SSE: u64 = 1 << 1;
    const AVX: u64 = 1 << 2;
    const AVX512: u64 = 7 << 5;
    let low = state.gpr.rax & 0xffff_ffff;
    let value = state.gpr.rdx << 32 | low;
    let bad = state.gpr.rcx as u32 != 0
        || value & !limits.xcr0 != 0
        || value & X87 == 0
        || value & (AVX | SSE) == AVX
        || value & AVX512 != 0 && value & (AVX512 | AVX) != AVX512 | AVX;
    if bad {
        return Err(Gp);
    }
    state.xcr0 = value;
    Ok(value)
}

/// The four PAE entries at CR3 (SDM 3A 4.4.1).
fn load_pdptes(cr3: u64, memory: &impl GuestMemory, limits: &Limits) -> Result<[u64; 4], Gp> {
    let mut entries = [0; 4];
    let table = cr3 & 0xffff_ffe0;
    // Bits 1-2, 5-8 and those above the physical-address width must be zero in a present entry.
    let reserved = 0x1e6 | !((1 << limits.physical_bits.min(52)) - 1);
    for (i, entry) in (0..).zip(&mut entries) {
        // What is not RAM reads as ones, like everywhere, and has reserved bits set.
        *entry = memory.load(table + i * 8, 8).unwrap_or(u64::MAX);
        if *entry & 1 != 0 && *entry & reserved != 0 {
            return Err(Gp);
        }
    }
    Ok(entries)
}
