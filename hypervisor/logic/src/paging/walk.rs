//! Finding entries, and making the tables they need.

use super::format::address;
use super::{Format, PageTable};
use crate::frames::{Frames, WORDS};
use abi::hypercall::Status;

/// Shift of the memory that an entry of the root covers.
pub(super) const ROOT_SHIFT: u32 = 39;
/// Bits of an address that choose an entry in one table.
pub(super) const STEP: u32 = 9;

/// What a walk from the root counts for where work is bounded: as much as so many neighbours in a table.
pub(super) const WALK: u64 = 16;

/// The number of the entry for `va` in a table whose entries cover `1 << shift` bytes.
#[inline]
pub(super) const fn index(va: u64, shift: u32) -> usize {
    (va >> shift) as usize & (WORDS - 1)
}

/// 4 KiB pages that an entry covers.
#[inline]
pub(super) const fn pages(shift: u32) -> u64 {
    1 << (shift - 12)
}

/// The entry that decides about an address: a leaf, or where the walk ends without one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub table: u64,
    pub index: usize,
    pub shift: u32,
    pub entry: u64,
}

impl<F: Format> PageTable<F> {
    /// Walks down as far as there are tables, but not to those whose entries cover less than
    /// `1 << lowest` bytes.
    #[inline(always)]
    pub(super) fn find(&self, frames: &impl Frames, va: u64, lowest: u32) -> Slot {
        let mut table = self.root;
        let mut shift = ROOT_SHIFT;
        loop {
            let index = index(va, shift);
            let entry = frames.read(table, index);
            if shift == lowest || !F::is_table(entry, shift) {
                return Slot { table, index, shift, entry };
            }
            table = address(entry, 12);
            shift -= STEP;
        }
    }

    /// The table whose entries for `va` cover `1 << shift` bytes. Makes the tables that are missing
    /// and splits the leaf that is in the way; translations stay what they were.
    #[inline]
    pub(super) fn enter(
        &self,
        frames: &mut impl Frames,
        va: u64,
        shift: u32,
    ) -> Result<u64, Status> {
        let mut slot = self.find(frames, va, shift);
        while slot.shift > shift {
            let table = self.grow(frames, slot)?;
            let (index, shift) = (index(va, slot.shift - STEP), slot.shift - STEP);
            slot = Slot { table, index, shift, entry: frames.read(table, index) };
        }
        Ok(slot.table)
    }

    /// Puts a table in the place of a leaf, or of nothing. It is complete before it is linked:
    /// another processor may walk it at once.
    #[cold]
    pub(super) fn grow(&self, frames: &mut impl Frames, slot: Slot) -> Result<u64, Status> {
        let table = frames.alloc().ok_or(Status::Quota)?;
        if F::present(slot.entry) {
            let shift = slot.shift - STEP;
            let rights = F::rights(slot.entry);
            let mut leaf = F::leaf(address(slot.entry, slot.shift), shift, rights);
            for index in 0..WORDS {
                frames.write(table, index, leaf);
                leaf = leaf.wrapping_add(1 << shift);
            }
        }
        frames.write(slot.table, slot.index, F::table(table));
        Ok(table)
    }
}
