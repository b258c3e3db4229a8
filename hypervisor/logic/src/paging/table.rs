//! Reading and changing translations.

use super::format::address;
use super::walk::{ROOT_SHIFT, STEP, Slot, WALK, index, pages};
use super::{Flush, Format, PINNED, Progress};
use crate::frames::{Frames, WORDS};
use abi::cap::MemRights;
use abi::hypercall::Status;
use core::marker::PhantomData;

/// Entries that one call of [`PageTable::revoke`] looks at.
const REVOKE_WORK: u64 = 512;

/// A page table, known by its root page. Its entries are changed through [`Frames`], of which whoever changes them has the only
/// reference.
#[derive(Debug)]
pub struct PageTable<F: Format> {
    /// Physical address of the root table.
    pub root: u64,
    /// Shift of the largest leaf: 12, 21 or 30.
    pub max_leaf_shift: u32,
    format: PhantomData<F>,
}

/// A leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Physical address of the start of the leaf.
    pub pa: u64,
    /// log2 of its size in bytes.
    pub shift: u32,
    /// What it allows, with [`MemRights::UNCACHED`] and [`PINNED`].
    pub rights: MemRights,
}

impl<F: Format> PageTable<F> {
    /// An empty table; `None` if there is no page for its root.
    pub fn new(max_leaf_shift: u32, frames: &mut impl Frames) -> Option<Self> {
        frames.alloc().map(|root| Self::from_root(root, max_leaf_shift))
    }

    /// The table with that root page.
    pub const fn from_root(root: u64, max_leaf_shift: u32) -> Self {
        Self { root, max_leaf_shift, format: PhantomData }
    }

    /// The leaf that translates `va`.
    pub fn lookup(&self, frames: &impl Frames, va: u64) -> Option<Mapping> {
        if !F::reaches(va) {
            return None;
        }
        let Slot { entry, shift, .. } = self.find(frames, va, 12);
        F::present(entry).then(|| Mapping {
            pa: address(entry, shift),
            shift,
            rights: F::rights(entry),
        })
    }

    /// Maps one leaf of `1 << shift` bytes in the place of whatever is there. A larger leaf around
    /// it is split, tables below it are freed.
    ///
    /// # Errors
    /// [`Status::Quota`]: a table is missing and no page is left for it; every translation is as
    /// before.
    /// [`Status::BadParam`]: an address is not aligned to the size of the leaf or outside the space,
    /// or there is no leaf of that size.
    pub fn map(
        &self,
        frames: &mut impl Frames,
        va: u64,
        pa: u64,
        shift: u32,
        rights: MemRights,
    ) -> Result<Flush, Status> {
        let possible = matches!(shift, 12 | 21 | 30)
            && shift <= self.max_leaf_shift
            && (shift == 12 || !rights.contains(PINNED));
        let low = (1_u64.checked_shl(shift).ok_or(Status::BadParam)?).wrapping_sub(1);
        if !possible || (va | pa) & low != 0 || !F::reaches(va) || pa >> 52 != 0 {
            return Err(Status::BadParam);
        }
        let table = self.enter(frames, va, shift)?;
        let leaf = F::leaf(pa, shift, rights);
        Ok(self.put(frames, table, index(va, shift), shift, leaf))
    }

    /// Replaces an entry and frees the tables behind the old one.
    pub(super) fn put(
        &self,
        frames: &mut impl Frames,
        table: u64,
        index: usize,
        shift: u32,
        new: u64,
    ) -> Flush {
        let old = frames.read(table, index);
        if old == new {
            return Flush::None;
        }
        frames.write(table, index, new);
        if F::is_table(old, shift) {
            self.release(frames, address(old, 12), shift - STEP);
        }
        if F::present(old) { Flush::Needed } else { Flush::None }
    }

    /// Frees a table whose entries cover `1 << shift` bytes, at most 1 << 21, and those below it.
    #[cold]
    fn release(&self, frames: &mut impl Frames, table: u64, shift: u32) {
        if shift > 12 {
            for index in 0..WORDS {
                let entry = frames.read(table, index);
                if F::is_table(entry, shift) {
                    frames.free(address(entry, 12));
                }
            }
        }
        frames.free(table);
    }

    /// Takes rights away from `count` pages of 4 KiB; without [`MemRights::R`] nothing is left of a
    /// translation. Works until a certain number of entries has been looked at, whatever `count` is,
    /// and says how far it came. A large leaf within the range is one entry.
    ///
    /// The error is [`Status::Quota`] when a leaf would have to be split at an edge of the range and
    /// there is no page for it. That leaf is as before.
    pub fn revoke(
        &self,
        frames: &mut impl Frames,
        page: u64,
        count: u64,
        remove: MemRights,
    ) -> Progress {
        let end = page.saturating_add(count).min(F::PAGES);
        let (mut at, mut work, mut flush) = (page, REVOKE_WORK, Flush::None);
        while at < end && work > 0 {
            work = work.saturating_sub(WALK);
            let slot = self.find(frames, at << 12, 12);
            if slot.shift == 12 {
                let stop = end.min((at | 511).wrapping_add(1));
                let count = stop.wrapping_sub(at);
                flush = flush.max(self.reduce(frames, slot, count as usize, remove));
                work = work.saturating_sub(count);
                at = stop;
                continue;
            }
            let first = at & !(pages(slot.shift).wrapping_sub(1));
            let next = first.wrapping_add(pages(slot.shift));
            if self.reduced(slot.entry, slot.shift, remove) == slot.entry {
                at = next;
            } else if at == first && next <= end {
                flush = flush.max(self.reduce(frames, slot, 1, remove));
                at = next;
            } else if let Err(error) = self.grow(frames, slot) {
                return Progress { done: at.wrapping_sub(page), flush, error: Some(error) };
            }
        }
        let done = if at >= end { count } else { at.wrapping_sub(page) };
        Progress { done, flush, error: None }
    }

    /// Takes rights away from `count` leaves in one table.
    fn reduce(
        &self,
        frames: &mut impl Frames,
        slot: Slot,
        count: usize,
        remove: MemRights,
    ) -> Flush {
        let mut flush = Flush::None;
        for index in slot.index..slot.index.wrapping_add(count).min(WORDS) {
            let old = frames.read(slot.table, index);
            let new = self.reduced(old, slot.shift, remove);
            if new != old {
                frames.write(slot.table, index, new);
                flush = Flush::Needed;
            }
        }
        flush
    }

    /// What is left of a leaf.
    fn reduced(&self, entry: u64, shift: u32, remove: MemRights) -> u64 {
        if !F::present(entry) {
            return entry;
        }
        let rights = F::rights(entry);
        if rights.contains(PINNED) && !remove.contains(PINNED) {
            return entry;
        }
        let rest = MemRights(rights.0 & !(remove.0 & MemRights::RWX.0));
        F::leaf(address(entry, shift), shift, rest)
    }

    /// Frees the tables below the root in bounded steps: looks at `limit` entries from address
    /// `*next` on, which starts at 0, and returns whether it came to the end. The space must be in
    /// nobody's use. Of a [`super::Host`] table the upper half belongs to the kernel and stays.
    pub fn reclaim(&self, frames: &mut impl Frames, next: &mut u64, limit: u32) -> bool {
        let end = F::PAGES << 12;
        for _ in 0..limit {
            if *next >= end {
                return true;
            }
            let at = *next;
            // Behind the last entry of a table nothing is left of it, so the one that leads to it is next.
            for lowest in [21, 30, ROOT_SHIFT] {
                let Slot { table, index, shift, entry } = self.find(frames, at, lowest);
                if F::is_table(entry, shift) {
                    frames.write(table, index, 0);
                    frames.free(address(entry, 12));
                }
                *next = (at >> shift).wrapping_add(1) << shift;
                if index != WORDS - 1 {
                    break;
                }
            }
        }
        *next >= end
    }

    /// Frees every page of the table at once; the same exceptions as for [`Self::reclaim`], and the
    /// root page itself goes too.
    pub fn destroy(self, frames: &mut impl Frames) {
        let mut next = 0;
        while !self.reclaim(frames, &mut next, u32::MAX) {}
        frames.free(self.root);
    }
}
