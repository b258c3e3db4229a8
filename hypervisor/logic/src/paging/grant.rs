//! Copying mappings from one memory space to another.

use super::format::{Format, address};
use super::walk::{STEP, Slot, WALK, index, pages};
use super::{Flush, PINNED, PageTable, Progress};
use crate::frames::{Frames, WORDS};
use abi::cap::MemRights;
use abi::hypercall::Status;

/// What one call of [`grant()`] may cost, in units of about one entry.
const WORK: u64 = 256;

/// A last-level table that was found before: the walk is paid for once in 512 pages.
///
/// It is used for ascending pages only, and a table is freed only when a large leaf takes all of
/// its 512 pages: nobody comes back to it.
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    window: u64,
    table: u64,
}

impl Cursor {
    /// Nothing found yet.
    pub const NONE: Self = Self { window: u64::MAX, table: 0 };

    /// The table for `page`: if it is another one than before, what `find` finds.
    #[inline]
    fn table<E>(&mut self, page: u64, find: impl FnOnce() -> Result<u64, E>) -> Result<u64, E> {
        if self.window != page >> STEP {
            *self = Self { table: find()?, window: page >> STEP };
        }
        Ok(self.table)
    }
}

/// Pages that follow each other in the source and in physical memory, with the same rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Physical address of the first.
    pub pa: u64,
    /// How many, at least one.
    pub pages: u64,
    /// What the source may do with them.
    pub rights: MemRights,
}

/// What a source has at a page: memory, or nothing that can be granted for this many pages, at least one.
pub type Run = Result<Extent, u64>;

/// Where a grant takes its memory from.
pub trait Source {
    /// Whether a grant can choose [`MemRights::UNCACHED`]; if not, the source's attribute stays.
    const CHOOSES_CACHING: bool;

    /// What is at `page`. There is no use in looking further than `limit` pages.
    fn at(&self, frames: &impl Frames, cursor: &mut Cursor, page: u64, limit: u64) -> Run;
}

impl<F: Format> Source for PageTable<F> {
    const CHOOSES_CACHING: bool = false;

    #[inline]
    fn at(&self, frames: &impl Frames, cursor: &mut Cursor, page: u64, limit: u64) -> Run {
        if page >= F::PAGES {
            return Err(limit.max(1));
        }
        let found = cursor.table(page, || match self.find(frames, page << 12, 12) {
            Slot { shift: 12, table, .. } => Ok(table),
            Slot { shift, entry, .. } => Err(above::<F>(page, shift, entry)),
        });
        let table = match found {
            Ok(table) => table,
            Err(run) => return run,
        };
        let index = page as usize & (WORDS - 1);
        let first = frames.read(table, index);
        if !F::present(first) {
            return Err(1);
        }
        // The same rights and the next frame make an entry that is larger by exactly one page.
        let room = (WORDS - index).min(usize::try_from(limit).unwrap_or(WORDS));
        let mut count = 1;
        let mut next = first.wrapping_add(1 << 12);
        while count < room && frames.read(table, index + count) == next {
            count += 1;
            next = next.wrapping_add(1 << 12);
        }
        present(address(first, 12), count as u64, F::rights(first))
    }
}

/// What is at `page` if an entry above the last level decides about it.
#[inline]
fn above<F: Format>(page: u64, shift: u32, entry: u64) -> Run {
    let offset = page & pages(shift).wrapping_sub(1);
    let pages = pages(shift).wrapping_sub(offset);
    if !F::present(entry) {
        return Err(pages);
    }
    present(address(entry, shift).wrapping_add(offset << 12), pages, F::rights(entry))
}

/// [`PINNED`] memory is not there for a grant.
#[inline]
const fn present(pa: u64, pages: u64, rights: MemRights) -> Run {
    if rights.contains(PINNED) { Err(pages) } else { Ok(Extent { pa, pages, rights }) }
}

/// Copies the mappings of `count` pages from `src_page` on to `dst_page` on, with the rights that
/// the source has and `rights` allows, in the largest leaves that fit.
///
/// Pages that the source does not have are skipped, and so are [`PINNED`] pages on either side;
/// what is mapped at the destination is replaced otherwise. The work is bounded whatever `count`
/// is: see [`Progress::done`].
///
/// Errors are those of [`PageTable::map`]; a range that reaches beyond the destination is
/// [`Status::BadParam`].
pub fn grant<S: Source, F: Format>(
    src: &S,
    frames: &mut impl Frames,
    dst: &PageTable<F>,
    src_page: u64,
    dst_page: u64,
    count: u64,
    rights: MemRights,
) -> Progress {
    let fits = dst_page.checked_add(count).is_some_and(|end| end <= F::PAGES);
    if !fits || src_page.checked_add(count).is_none() {
        return Progress { error: Some(Status::BadParam), ..Progress::default() };
    }
    if !rights.contains(MemRights::R) {
        // Nothing of it would be there.
        return Progress { done: count, ..Progress::default() };
    }
    let mut progress = Progress::default();
    let choice = if S::CHOOSES_CACHING { MemRights::UNCACHED.0 } else { 0 };
    let (mut from, mut into) = (Cursor::NONE, Cursor::NONE);
    let mut work = WORK;
    while progress.done < count && work > 0 {
        let left = count.wrapping_sub(progress.done);
        let to = dst_page.wrapping_add(progress.done);
        let page = src_page.wrapping_add(progress.done);
        let extent = match src.at(frames, &mut from, page, left) {
            Ok(extent) => extent,
            Err(pages) => {
                progress.done = progress.done.wrapping_add(pages.min(left));
                work = work.saturating_sub(WALK);
                continue;
            }
        };
        let had = extent.rights.0;
        let new =
            had & rights.0 & MemRights::RWX.0 | had & MemRights::UNCACHED.0 | rights.0 & choice;
        let run = Extent { pages: extent.pages.min(left), rights: MemRights(new), ..extent };
        match place(frames, dst, &mut into, to, run) {
            Ok(placed) => {
                progress.flush = progress.flush.max(placed.flush);
                progress.done = progress.done.wrapping_add(placed.pages);
                work = work.saturating_sub(placed.cost);
            }
            Err(error) => {
                progress.error = Some(error);
                break;
            }
        }
    }
    progress
}

/// What [`place`] did.
struct Placed {
    pages: u64,
    cost: u64,
    flush: Flush,
}

/// Writes the beginning of a run: one large leaf, or leaves up to the end of a last-level table.
#[inline]
fn place<F: Format>(
    frames: &mut impl Frames,
    dst: &PageTable<F>,
    into: &mut Cursor,
    page: u64,
    run: Extent,
) -> Result<Placed, Status> {
    if !run.rights.contains(MemRights::R) {
        return Ok(Placed { pages: run.pages, cost: WALK, flush: Flush::None });
    }
    let large: &[u32] = if run.pages < pages(21) { &[] } else { &[30, 21] };
    for &shift in large {
        let span = pages(shift);
        let aligned = (page | run.pa >> 12) & span.wrapping_sub(1) == 0;
        if run.pages >= span
            && aligned
            && shift <= dst.max_leaf_shift
            && let Some(placed) = place_large(frames, dst, page, run, shift)?
        {
            return Ok(placed);
        }
    }

    let table = into.table(page, || dst.enter(frames, page << 12, 12))?;
    let index = page as usize & (WORDS - 1);
    let count = (WORDS - index).min(usize::try_from(run.pages).unwrap_or(WORDS));
    let mut leaf = F::leaf(run.pa, 12, run.rights);
    let mut flush = Flush::None;
    for index in index..index.wrapping_add(count) {
        let old = frames.read(table, index);
        if old != leaf && !is_pinned::<F>(old) {
            if F::present(old) {
                flush = Flush::Needed;
            }
            frames.write(table, index, leaf);
        }
        leaf = leaf.wrapping_add(1 << 12);
    }
    let pages = count as u64;
    Ok(Placed { pages, cost: pages.saturating_add(1), flush })
}

/// Writes one large leaf; `None` if smaller ones must be used, because pinned pages are or may be
/// below it.
#[cold]
fn place_large<F: Format>(
    frames: &mut impl Frames,
    dst: &PageTable<F>,
    page: u64,
    run: Extent,
    shift: u32,
) -> Result<Option<Placed>, Status> {
    let va = page << 12;
    let table = dst.enter(frames, va, shift)?;
    let old = frames.read(table, index(va, shift));
    let mut below = (0..WORDS).map(|index| frames.read(address(old, 12), index));
    if F::PINS && F::is_table(old, shift) && (shift > 21 || below.any(is_pinned::<F>)) {
        return Ok(None);
    }
    let leaf = F::leaf(run.pa, shift, run.rights);
    let flush = dst.put(frames, table, index(va, shift), shift, leaf);
    // Tables below may have been freed one by one, the source's leaves were compared one by one.
    let cost = if shift > 21 { WORK / 2 } else { WORK / 4 };
    Ok(Some(Placed { pages: pages(shift), cost, flush }))
}

/// Whether an entry of a last-level table is a pinned leaf.
#[inline]
fn is_pinned<F: Format>(entry: u64) -> bool {
    F::PINS && F::present(entry) && F::rights(entry).contains(PINNED)
}
