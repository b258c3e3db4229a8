//! How entries look.

use super::PINNED;
use abi::cap::MemRights;

/// The layout of the entries of a 4-level page table with 512 entries in a table.
///
/// Shifts are those of the memory an entry covers: 39, 30, 21, 12 from the root down.
pub trait Format {
    /// 4 KiB pages, from address 0 on, that the owner of the space can fill.
    const PAGES: u64;
    /// Whether leaves can be [`PINNED`].
    const PINS: bool;

    /// Whether the table can translate `va`.
    fn reaches(va: u64) -> bool {
        va >> 12 < Self::PAGES
    }
    /// An entry that points to the table in `page`.
    fn table(page: u64) -> u64;
    /// A leaf of `1 << shift` bytes at `pa`. Memory that cannot be read is not mapped at all: 0.
    ///
    /// The leaf for the next address differs by exactly the size.
    fn leaf(pa: u64, shift: u32, rights: MemRights) -> u64;
    /// Whether the entry translates anything.
    fn present(entry: u64) -> bool;
    /// Whether the entry of that level points to a table.
    fn is_table(entry: u64, shift: u32) -> bool;
    /// What a present leaf allows.
    fn rights(entry: u64) -> MemRights;
}

/// Bits 51:12: the physical address in an entry.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// "This is a leaf" in entries above the last level, the same bit in all formats.
const LARGE: u64 = 1 << 7;

/// The physical address of the leaf that an entry of that level is; of a table, which is one page, as of the last level.
pub(super) const fn address(entry: u64, shift: u32) -> u64 {
    entry & ADDRESS & !((1 << shift) - 1)
}

const fn large(shift: u32) -> u64 {
    if shift > 12 { LARGE } else { 0 }
}

const fn bit(rights: MemRights, right: MemRights, bit: u64) -> u64 {
    if rights.contains(right) { bit } else { 0 }
}

/// 4-level paging of the processor itself (SDM 3A 4.5.4), for ring 3 or, with AMD-V, for guests:
/// those tables are walked as for an access in user mode whatever the guest's mode is (APM 2
/// 15.25.5).
///
/// Accessed and dirty are set from the start, which spares the processor the write. Uncached is
/// PCD and PWT together: entry 3 of the PAT, which is UC from power-on (SDM 3A 12.12.4). What is not
/// uncached is entry 0, write-back, and the guest's PAT counts (APM 2 15.25.8). IA32_EFER.NXE has to
/// be set in the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongMode<const GUEST: bool>;

/// Ring 3.
pub type Host = LongMode<false>;
/// Nested page tables.
pub type Npt = LongMode<true>;

impl<const GUEST: bool> LongMode<GUEST> {
    const P: u64 = 1 << 0;
    const RW: u64 = 1 << 1;
    const US: u64 = 1 << 2;
    const UC: u64 = 0b11 << 3;
    const A: u64 = 1 << 5;
    const D: u64 = 1 << 6;
    /// Ignored by the processor.
    const PIN: u64 = 1 << 9;
    const XD: u64 = 1 << 63;
}

impl<const GUEST: bool> Format for LongMode<GUEST> {
    const PAGES: u64 = if GUEST { 1 << 36 } else { 1 << 35 };
    const PINS: bool = !GUEST;

    fn reaches(va: u64) -> bool {
        va >> 47 == 0 || va >> 47 == if GUEST { 1 } else { 0x1_ffff }
    }

    fn table(page: u64) -> u64 {
        page & ADDRESS | Self::A | Self::US | Self::RW | Self::P
    }

    fn leaf(pa: u64, shift: u32, rights: MemRights) -> u64 {
        if !rights.contains(MemRights::R) {
            return 0;
        }
        let always = Self::D | Self::A | Self::US | Self::P | large(shift);
        let xd = if rights.contains(MemRights::X) { 0 } else { Self::XD };
        let rw = bit(rights, MemRights::W, Self::RW);
        let uc = bit(rights, MemRights::UNCACHED, Self::UC);
        let pin = bit(rights, PINNED, if GUEST { 0 } else { Self::PIN });
        pa & ADDRESS | always | xd | rw | uc | pin
    }

    fn present(entry: u64) -> bool {
        entry & Self::P != 0
    }

    fn is_table(entry: u64, shift: u32) -> bool {
        shift > 12 && entry & (LARGE | Self::P) == Self::P
    }

    fn rights(entry: u64) -> MemRights {
        let when = |bits, right: MemRights| if entry & bits != 0 { right.0 } else { 0 };
        let kind = when(Self::UC, MemRights::UNCACHED) | when(Self::PIN, PINNED);
        let execute = MemRights::X.0 & !when(Self::XD, MemRights::X);
        MemRights(MemRights::R.0 | when(Self::RW, MemRights::W) | execute | kind)
    }
}

/// Extended page tables with a 4-level walk (SDM 3C 29.3.2).
///
/// Writable or executable without readable is a misconfiguration or needs a feature (SDM 3C
/// 29.3.3.1), so memory that cannot be read is not mapped. Accessed and dirty are set from the
/// start; they are ignored where the EPT pointer does not turn them on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ept;

impl Ept {
    const RWX: u64 = 0b111;
    /// Memory type 6; the guest's PAT counts.
    const WB: u64 = 6 << 3;
    /// Memory type 0, whatever the guest's PAT says.
    const UC: u64 = 1 << 6;
    const A: u64 = 1 << 8;
    const D: u64 = 1 << 9;
}

impl Format for Ept {
    const PAGES: u64 = 1 << 36;
    const PINS: bool = false;

    fn table(page: u64) -> u64 {
        page & ADDRESS | Self::A | Self::RWX
    }

    fn leaf(pa: u64, shift: u32, rights: MemRights) -> u64 {
        if !rights.contains(MemRights::R) {
            return 0;
        }
        let kind = if rights.contains(MemRights::UNCACHED) { Self::UC } else { Self::WB };
        // R, W and X are the same three bits in both.
        pa & ADDRESS | Self::D | Self::A | large(shift) | kind | u64::from(rights.0) & Self::RWX
    }

    fn present(entry: u64) -> bool {
        entry & Self::RWX != 0
    }

    fn is_table(entry: u64, shift: u32) -> bool {
        shift > 12 && Self::present(entry) && entry & LARGE == 0
    }

    fn rights(entry: u64) -> MemRights {
        let uncached = if entry & Self::UC != 0 { MemRights::UNCACHED.0 } else { 0 };
        MemRights((entry & Self::RWX) as u32 | uncached)
    }
}
