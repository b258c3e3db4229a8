//! The memory map for the kernel: sorted, page aligned, without overlaps.

use bootloader_api::info::{MemoryRegion, MemoryRegionKind};

use crate::error::Error;
use crate::handoff::{E820_RAM, MAX_MEMORY_ENTRIES, MAX_MODULES, MemoryMap};
use crate::span::{PAGE, Span, align_down};

/// The most spans the loader takes for itself: modules, its image, its arena, what it keeps.
pub const MAX_TAKEN: usize = MAX_MODULES + 4;

const MAX_BOUNDS: usize = 2 * (MAX_MEMORY_ENTRIES + MAX_TAKEN);

/// The most regions [`build`] can produce.
pub const MAX_REGIONS: usize = MAX_BOUNDS;

/// Writes the kernel's memory map to `out` and returns how many regions it has.
///
/// Where descriptions overlap, the most careful one holds: what the loader has `taken`, then what
/// the firmware reserves, then free RAM. RAM at `limit` and above cannot be addressed and is left
/// out. Reserved and taken spans grow to whole pages, free ones shrink.
///
/// # Errors
/// [`Error::MemoryMapTooLong`] if `out` or the internal list is too short.
pub fn build(
    map: &MemoryMap,
    taken: &[Span],
    limit: u64,
    out: &mut [MemoryRegion],
) -> Result<usize, Error> {
    let mut bounds = [0; MAX_BOUNDS];
    let mut bound_count = 0;
    let spans = map.entries().iter().map(|entry| pages_of(entry.span, entry.kind, limit));
    let taken_pages = taken.iter().filter(|span| !span.is_empty()).map(|span| span.pages_around());
    for span in spans.chain(taken_pages) {
        if span.is_empty() {
            continue;
        }
        for bound in [span.start, span.end] {
            *bounds.get_mut(bound_count).ok_or(Error::MemoryMapTooLong)? = bound;
            bound_count += 1;
        }
    }
    let bounds = bounds.get_mut(..bound_count).ok_or(Error::MemoryMapTooLong)?;
    bounds.sort_unstable();

    let mut count = 0usize;
    for pair in bounds.windows(2) {
        let &[start, end] = pair else { continue };
        let Some(kind) = kind_of(map, taken, limit, start).filter(|_| start < end) else {
            continue;
        };
        let last = count.checked_sub(1).and_then(|last| out.get_mut(last));
        match last {
            Some(last) if last.end == start && last.kind == kind => last.end = end,
            _ => {
                let slot = out.get_mut(count).ok_or(Error::MemoryMapTooLong)?;
                *slot = MemoryRegion { start, end, kind };
                count += 1;
            }
        }
    }
    Ok(count)
}

/// The lowest multiple of `align` in `window` with `size` free bytes behind it.
pub fn find_free(regions: &[MemoryRegion], size: u64, align: u64, window: Span) -> Option<u64> {
    regions.iter().filter(|region| region.kind == MemoryRegionKind::Usable).find_map(|region| {
        let start = region.start.max(window.start).checked_next_multiple_of(align)?;
        let end = start.checked_add(size)?;
        (end <= region.end.min(window.end)).then_some(start)
    })
}

/// The pages an entry describes.
fn pages_of(span: Span, kind: u32, limit: u64) -> Span {
    if kind == E820_RAM {
        let within = span.pages_within();
        Span { start: within.start, end: within.end.min(align_down(limit, PAGE)) }
    } else {
        span.pages_around()
    }
}

/// What lies at `address`, a bound of the sorted list.
fn kind_of(map: &MemoryMap, taken: &[Span], limit: u64, address: u64) -> Option<MemoryRegionKind> {
    let holds = |span: Span| span.start <= address && address < span.end;
    if taken.iter().any(|span| !span.is_empty() && holds(span.pages_around())) {
        return Some(MemoryRegionKind::Bootloader);
    }
    let here = map.entries().iter().filter(|e| holds(pages_of(e.span, e.kind, limit)));
    // Of the firmware's types, RAM has the lowest number but zero, which is no valid type.
    let rank = |kind: u32| if kind == E820_RAM { 0 } else { u64::from(kind) + 1 };
    here.map(|entry| entry.kind).max_by_key(|&kind| rank(kind)).map(|kind| match kind {
        E820_RAM => MemoryRegionKind::Usable,
        other => MemoryRegionKind::UnknownBios(other),
    })
}

#[cfg(test)]
#[path = "tests/regions.rs"]
mod tests;
