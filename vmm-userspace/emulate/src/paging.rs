//! Linear to guest-physical addresses (SDM 3A chapter 4): no paging, 32-bit, PAE and 4-level.
//!
//! Accessed and dirty bits are set like the processor does. Protection keys and 5-level paging are not offered to guests, so
//! they have no code here.

use abi::vcpu::VcpuState;

use crate::{
    bus::Bus,
    fault::Fault,
    mode::{CR0_PG, CR0_WP, CR4_PAE, CR4_PSE, CR4_SMAP, CR4_SMEP, EFER_LMA, EFER_NXE, RFLAGS_AC},
};

const P: u64 = 1 << 0;
const RW: u64 = 1 << 1;
const US: u64 = 1 << 2;
const A: u64 = 1 << 5;
const D: u64 = 1 << 6;
const PS: u64 = 1 << 7;
const NX: u64 = 1 << 63;
/// Address bits of an 8-byte entry.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Error-code bits of #PF (SDM 3A 4.7).
pub mod code {
    /// The fault was caused by a protection violation, not by a page that is not present.
    pub const PRESENT: u32 = 1 << 0;
    /// It was a write.
    pub const WRITE: u32 = 1 << 1;
    /// It was an access of user mode.
    pub const USER: u32 = 1 << 2;
    /// A reserved bit was set in a paging entry.
    pub const RESERVED: u32 = 1 << 3;
    /// It was an instruction fetch, where no-execute or SMEP is on.
    pub const FETCH: u32 = 1 << 4;
}

/// What the translation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading data.
    Read,
    /// Writing data, or reading data that will be written.
    Write,
    /// Fetching an instruction.
    Fetch,
}

/// Layout of one paging mode.
#[derive(Clone, Copy)]
struct Format {
    /// Bytes of an entry: 4 or 8.
    size: u8,
    /// Index bits of a table: 10 or 9.
    bits: u32,
    /// Levels below the root.
    levels: u32,
}

/// Translates `linear` for an access at privilege level `cpl`.
///
/// # Errors
/// [`Fault::Page`] with the error code of the access.
pub fn translate(
    state: &VcpuState,
    bus: &mut impl Bus,
    linear: u64,
    access: Access,
    cpl: u8,
) -> Result<u64, Fault> {
    if state.cr0 & CR0_PG == 0 {
        return Ok(linear & 0xffff_ffff);
    }
    let walk = Walk { state, linear, access, user: cpl == 3 };
    if state.efer & EFER_LMA != 0 {
        let table = state.cr3 & ADDRESS;
        walk.run(bus, Format { size: 8, bits: 9, levels: 4 }, table, RW | US)
    } else if state.cr4 & CR4_PAE != 0 {
        let pdpte = pdpte(state, bus, linear);
        if pdpte & P == 0 {
            return Err(walk.fault(0));
        }
        if pdpte & reserved_in_pdpte(bus.physical_bits()) != 0 {
            return Err(walk.fault(code::PRESENT | code::RESERVED));
        }
        let format = Format { size: 8, bits: 9, levels: 2 };
        walk.run(bus, format, pdpte & ADDRESS, RW | US)
    } else {
        let format = Format { size: 4, bits: 10, levels: 2 };
        walk.run(bus, format, state.cr3 & 0xffff_f000, RW | US)
    }
}

/// The PAE entry for an address. It was loaded into a register by the last write of CR3 (SDM 3A 4.4.1). Processors that
/// read it from memory whenever they need it show zeros (APM 2 15.25.10), which no guest that runs can have in all four.
fn pdpte(state: &VcpuState, bus: &mut impl Bus, linear: u64) -> u64 {
    let [a, b, c, d] = state.pdpte;
    let index = linear >> 30 & 3;
    if a | b | c | d == 0 {
        return bus.read((state.cr3 & 0xffff_ffe0) + index * 8, 8);
    }
    match index {
        0 => a,
        1 => b,
        2 => c,
        _ => d,
    }
}

/// Bits 1-2, 5-8 and those above the physical-address width (SDM 3A table 4-8). A register never has them.
const fn reserved_in_pdpte(physical_bits: u32) -> u64 {
    let bits = if physical_bits < 52 { physical_bits } else { 52 };
    0x1e6 | !((1 << bits) - 1)
}

/// Where an instruction lies that the processor has just fetched itself, so that rights need no second look and the accessed
/// bits are set. `None` where that is not simple: not 4-level paging, or the tables have changed since.
#[inline]
pub fn translate_fetched(state: &VcpuState, bus: &mut impl Bus, linear: u64) -> Option<u64> {
    if state.cr0 & CR0_PG == 0 {
        return Some(linear & 0xffff_ffff);
    }
    if state.efer & EFER_LMA == 0 {
        return None;
    }
    let mut table = state.cr3 & ADDRESS;
    for shift in [39, 30, 21, 12] {
        let entry = bus.read(table + (linear >> shift & 511) * 8, 8);
        if entry & P == 0 {
            return None;
        }
        if shift == 12 || entry & PS != 0 {
            if shift == 39 {
                return None;
            }
            let offset = (1 << shift) - 1;
            return Some(entry & ADDRESS & !offset | linear & offset);
        }
        table = entry & ADDRESS;
    }
    None
}

struct Walk<'a> {
    state: &'a VcpuState,
    linear: u64,
    access: Access,
    user: bool,
}

impl Walk<'_> {
    fn run(
        &self,
        bus: &mut impl Bus,
        format: Format,
        mut table: u64,
        mut rights: u64,
    ) -> Result<u64, Fault> {
        let mut no_execute = false;
        let mut level = format.levels;
        loop {
            level = level.wrapping_sub(1);
            let shift = 12 + level * format.bits;
            let index = self.linear >> shift & ((1 << format.bits) - 1);
            let slot = table + index * u64::from(format.size);
            let entry = bus.read(slot, format.size);
            if entry & P == 0 {
                return Err(self.fault(0));
            }
            let leaf = level == 0 || self.is_large(entry, level, format);
            if entry & self.reserved(bus.physical_bits(), level, leaf, format) != 0 {
                return Err(self.fault(code::PRESENT | code::RESERVED));
            }
            rights &= entry;
            no_execute |= format.size == 8 && entry & NX != 0;
            if !leaf {
                if entry & A == 0 {
                    bus.write(slot, format.size, entry | A);
                }
                table = entry & ADDRESS;
                continue;
            }
            if !self.allowed(rights, no_execute) {
                return Err(self.fault(code::PRESENT));
            }
            let marks = if self.access == Access::Write { A | D } else { A };
            if entry & marks != marks {
                bus.write(slot, format.size, entry | marks);
            }
            let offset = self.linear & ((1 << shift) - 1);
            return Ok(self.frame(entry, shift, format) | offset);
        }
    }

    /// Whether an entry above the last level maps a page itself.
    fn is_large(&self, entry: u64, level: u32, format: Format) -> bool {
        let possible = match format.size {
            4 => self.state.cr4 & CR4_PSE != 0,
            _ => level < 3,
        };
        entry & PS != 0 && possible
    }

    /// Base address of the page that a leaf maps.
    fn frame(&self, entry: u64, shift: u32, format: Format) -> u64 {
        if format.size == 4 && shift == 22 {
            // PSE-36: bits 13-20 are address bits 32-39 (SDM 3A table 4-4).
            return (entry & 0xffc0_0000) | (entry >> 13 & 0xff) << 32;
        }
        entry & ADDRESS & !((1 << shift) - 1)
    }

    /// Bits of an entry that must be zero (SDM 3A 4.3 to 4.5).
    fn reserved(&self, physical_bits: u32, level: u32, leaf: bool, format: Format) -> u64 {
        if format.size == 4 {
            if !leaf || level == 0 {
                return 0;
            }
            let high = physical_bits.saturating_sub(32).min(8);
            return (0x1f_e000 & !(((1 << high) - 1) << 13)) | 1 << 21;
        }
        let mut bits = 0x000f_ffff_ffff_ffff & !((1 << physical_bits.min(52)) - 1);
        if self.state.efer & EFER_NXE == 0 {
            bits |= NX;
        }
        if self.state.efer & EFER_LMA == 0 {
            bits |= 0x7ff0_0000_0000_0000;
        }
        if leaf && level > 0 {
            // Below the address of a large page only the PAT bit is defined.
            bits |= ((1 << (12 + level * 9)) - 1) & !0x1fff;
        } else if level == 3 {
            bits |= PS;
        }
        bits
    }

    /// Access rights (SDM 3A 4.6.1). `rights` has RW and US as all levels together grant them.
    fn allowed(&self, rights: u64, no_execute: bool) -> bool {
        let state = self.state;
        let user_page = rights & US != 0;
        if self.user && !user_page {
            return false;
        }
        match self.access {
            Access::Fetch => {
                let smep = !self.user && user_page && state.cr4 & CR4_SMEP != 0;
                !(smep || no_execute && state.efer & EFER_NXE != 0)
            }
            Access::Read | Access::Write => {
                let smap = !self.user && user_page && state.cr4 & CR4_SMAP != 0;
                if smap && state.rflags & RFLAGS_AC == 0 {
                    return false;
                }
                let protected = self.user || state.cr0 & CR0_WP != 0;
                self.access == Access::Read || rights & RW != 0 || !protected
            }
        }
    }

    fn fault(&self, mut code: u32) -> Fault {
        let state = self.state;
        match self.access {
            Access::Read => {}
            Access::Write => code |= code::WRITE,
            Access::Fetch => {
                let nxe = state.efer & EFER_NXE != 0 && state.cr4 & CR4_PAE != 0;
                if nxe || state.cr4 & CR4_SMEP != 0 {
                    code |= code::FETCH;
                }
            }
        }
        if self.user {
            code |= code::USER;
        }
        Fault::Page { address: self.linear, code }
    }
}
