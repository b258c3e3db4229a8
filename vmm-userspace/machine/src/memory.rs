//! Where the guest's RAM lies.
//!
//! ```text
//! 0          a_0000      c_0000        low                   4 GiB          4 GiB + high
//! |   RAM    |  VGA hole |     RAM     |  device hole        |     RAM      |
//! ```
//! `low` is at most [`HOLE`]; the rest of a larger memory goes above 4 GiB, as on a PC. The area of the firmware,
//! `c_0000` to `10_0000`, is RAM that the memory map given to the guest calls reserved.

use core::ops::Range;

/// First address of the hole for devices below 4 GiB.
pub const HOLE: u64 = 0xc000_0000;
/// Where the memory above the hole starts.
pub const HIGH: u64 = 1 << 32;
/// The legacy frame buffer: never RAM.
pub const VGA: Range<u64> = 0xa_0000..0xc_0000;
/// End of the firmware's area.
pub const MIB: u64 = 0x10_0000;

/// A guest-physical address without RAM behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotRam(pub u64);

/// Access to the guest's RAM.
pub trait GuestMemory {
    /// Fills `bytes` from `gpa` on.
    ///
    /// # Errors
    /// [`NotRam`] if any byte is outside RAM; `bytes` may then be partly filled.
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), NotRam>;

    /// Writes `bytes` from `gpa` on.
    ///
    /// # Errors
    /// [`NotRam`] if any byte is outside RAM; part may have been written.
    fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), NotRam>;

    /// Reads 1, 2, 4 or 8 bytes that do not cross a page, or `None` outside RAM.
    #[inline]
    fn load(&self, gpa: u64, size: u8) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(gpa, bytes.get_mut(..usize::from(size))?).ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    /// Writes 1, 2, 4 or 8 bytes that do not cross a page. Returns whether there is RAM.
    #[inline]
    fn store(&mut self, gpa: u64, size: u8, value: u64) -> bool {
        let bytes = value.to_le_bytes();
        match bytes.get(..usize::from(size)) {
            Some(bytes) => self.write(gpa, bytes).is_ok(),
            None => false,
        }
    }
}

/// The layout of a guest's RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryMap {
    low: u64,
    high: u64,
}

/// What a range of the memory map is for the guest (ACPI 6.5 table 15.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Usage {
    /// Free for the guest.
    Ram = 1,
    /// Not to be used.
    Reserved = 2,
}

/// An entry of the memory map that the guest gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// For what.
    pub usage: Usage,
}

impl MemoryMap {
    /// A layout for `size` bytes, which is rounded down to whole pages.
    #[must_use]
    pub const fn new(size: u64) -> Self {
        let size = size & !0xfff;
        let low = if size > HOLE { HOLE } else { size };
        Self { low, high: size - low }
    }

    /// All of it, in bytes; also the length of the memory that backs it.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.low + self.high
    }

    /// End of the RAM below 4 GiB.
    #[must_use]
    pub const fn low_end(&self) -> u64 {
        self.low
    }

    /// End of the RAM above 4 GiB; [`HIGH`] if there is none.
    #[must_use]
    pub const fn high_end(&self) -> u64 {
        HIGH + self.high
    }

    /// Where the byte at `gpa` lies in the memory that backs the guest, if it is RAM. Lengths within one page need one look-up.
    #[inline]
    #[must_use]
    pub const fn offset(&self, gpa: u64) -> Option<u64> {
        if gpa < self.low {
            if gpa >= VGA.start && gpa < VGA.end { None } else { Some(gpa) }
        } else if gpa >= HIGH && gpa - HIGH < self.high {
            Some(gpa - HIGH + self.low)
        } else {
            None
        }
    }

    /// Ranges of guest-physical addresses with RAM, to map into the guest; some may be empty.
    #[must_use]
    pub const fn ranges(&self) -> [Range<u64>; 3] {
        let first = if self.low < VGA.start { self.low } else { VGA.start };
        let second = if self.low < VGA.end { VGA.end } else { self.low };
        [0..first, VGA.end..second, HIGH..HIGH + self.high]
    }

    /// The memory map for the guest (INT 15 E820): usable RAM and what is reserved.
    pub fn e820(&self) -> impl Iterator<Item = Entry> {
        let usable = |start: u64, end: u64| Entry {
            start,
            len: end.saturating_sub(start),
            usage: Usage::Ram,
        };
        let reserved = Entry { start: VGA.start, len: MIB - VGA.start, usage: Usage::Reserved };
        [
            usable(0, self.low.min(VGA.start)),
            reserved,
            usable(MIB, self.low),
            usable(HIGH, HIGH + self.high),
        ]
        .into_iter()
        .filter(|entry| entry.len > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_and_offsets_agree(pages in 0..0x40_0000u64, at: u64) {
            let map = MemoryMap::new(pages << 12);
            let gpa = at % (HIGH * 4);
            let inside = map.ranges().iter().any(|range| range.contains(&gpa));
            prop_assert_eq!(map.offset(gpa).is_some(), inside);
            if let Some(offset) = map.offset(gpa) {
                prop_assert!(offset < map.size());
            }
            let usable: u64 = map.e820().filter(|e| e.usage == Usage::Ram).map(|e| e.len).sum();
            let lost = map.low_end().min(MIB).saturating_sub(VGA.start);
            prop_assert_eq!(usable, map.size() - lost);
            let ends: Vec<u64> = map.e820().flat_map(|e| [e.start, e.start + e.len]).collect();
            prop_assert!(ends.is_sorted());
        }
    }

    #[test]
    fn large_memories_continue_above_the_hole() {
        let map = MemoryMap::new(HOLE + 0x20_0000);
        assert_eq!(map.offset(HOLE), None);
        assert_eq!(map.offset(HIGH + 0x1f_ffff), Some(HOLE + 0x1f_ffff));
        assert_eq!(map.offset(HIGH + 0x20_0000), None);
        assert_eq!(map.e820().count(), 4);
    }
}
