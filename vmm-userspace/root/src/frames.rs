//! Free physical memory.

use alloc::vec::Vec;

/// A range of physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte, page-aligned.
    pub base: u64,
    /// Bytes, whole pages.
    pub len: u64,
}

impl Range {
    const fn end(self) -> u64 {
        self.base + self.len
    }
}

/// Free memory, sorted, in ranges that do not touch.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    free: Vec<Range>,
}

/// Bytes in a page.
const PAGE: u64 = 4096;

const fn align_up(value: u64, align: u64) -> Option<u64> {
    match value.checked_add(align - 1) {
        Some(sum) => Some(sum / align * align),
        None => None,
    }
}

impl Frames {
    /// No memory.
    #[must_use]
    pub const fn new() -> Self {
        Self { free: Vec::new() }
    }

    /// Adds memory. What is not a whole page is left out; what is there already is not added twice.
    pub fn add(&mut self, range: Range) {
        let (Some(base), Some(end)) =
            (align_up(range.base, PAGE), range.base.checked_add(range.len))
        else {
            return;
        };
        let (mut base, mut end) = (base, end / PAGE * PAGE);
        if base >= end {
            return;
        }
        // Merges with everything that it touches.
        self.free.retain(|other| {
            let apart = other.end() < base || end < other.base;
            if !apart {
                base = base.min(other.base);
                end = end.max(other.end());
            }
            apart
        });
        let at = self.free.partition_point(|other| other.base < base);
        self.free.insert(at, Range { base, len: end - base });
    }

    /// Bytes that are free.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.free.iter().map(|range| range.len).sum()
    }

    /// Takes `bytes`, rounded up to whole pages, from the lowest address that is a multiple of
    /// `align` (a power of two, at least a page).
    pub fn take(&mut self, bytes: u64, align: u64) -> Option<Range> {
        let len = align_up(bytes, PAGE)?;
        let base = self.free.iter().find_map(|range| {
            let base = align_up(range.base, align)?;
            (base.checked_add(len)? <= range.end()).then_some(base)
        })?;
        let taken = Range { base, len };
        self.remove(taken);
        Some(taken)
    }

    /// Takes `bytes`, rounded up to whole pages, in pieces from the highest addresses down. Each
    /// piece begins at a multiple of `align`, and all but the last have such a length, so that put
    /// together they are as aligned as each of them. Takes nothing if there is not enough.
    pub fn take_pieces(&mut self, bytes: u64, align: u64) -> Option<Vec<Range>> {
        let mut missing = align_up(bytes, PAGE)?;
        let mut pieces = Vec::new();
        for range in self.free.iter().rev() {
            if missing == 0 {
                break;
            }
            let Some(first) = align_up(range.base, align).filter(|first| *first < range.end())
            else {
                continue;
            };
            let room = range.end() - first;
            let len = if room >= missing { missing } else { room / align * align };
            if len == 0 {
                continue;
            }
            // As high as it can be.
            let base = (range.end() - len) / align * align;
            pieces.push(Range { base, len });
            missing -= len;
        }
        if missing > 0 {
            return None;
        }
        pieces.iter().for_each(|piece| self.remove(*piece));
        Some(pieces)
    }

    fn remove(&mut self, taken: Range) {
        if taken.len == 0 {
            return;
        }
        let Some(at) = self
            .free
            .iter()
            .position(|range| range.base <= taken.base && taken.end() <= range.end())
        else {
            return;
        };
        let range = self.free.remove(at);
        let above = Range { base: taken.end(), len: range.end() - taken.end() };
        let below = Range { base: range.base, len: taken.base - range.base };
        for part in [above, below].into_iter().filter(|part| part.len > 0) {
            self.free.insert(at, part);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const LARGE: u64 = 16 * PAGE;

    fn pages(range: Range) -> impl Iterator<Item = u64> {
        (range.base / PAGE)..(range.end() / PAGE)
    }

    #[derive(Clone, Debug)]
    enum Step {
        Take(u64, bool),
        Pieces(u64),
        GiveBack(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1..40 * PAGE, any::<bool>()).prop_map(|(bytes, large)| Step::Take(bytes, large)),
            (1..200 * PAGE).prop_map(Step::Pieces),
            any::<usize>().prop_map(Step::GiveBack),
        ]
    }

    proptest! {
        #[test]
        fn every_page_is_in_one_place(
            regions in proptest::collection::vec((0..500_u64, 1..200_u64), 1..6),
            steps in proptest::collection::vec(step(), 0..60),
        ) {
            let mut frames = Frames::new();
            let mut free = BTreeSet::new();
            for (base, len) in regions {
                let range = Range { base: base * PAGE, len: len * PAGE };
                frames.add(range);
                free.extend(pages(range));
            }
            let mut taken = Vec::new();
            for step in steps {
                match step {
                    Step::Take(bytes, large) => {
                        let align = if large { LARGE } else { PAGE };
                        if let Some(range) = frames.take(bytes, align) {
                            prop_assert!(range.base.is_multiple_of(align));
                            prop_assert_eq!(range.len, bytes.next_multiple_of(PAGE));
                            prop_assert!(pages(range).all(|page| free.remove(&page)));
                            taken.push(range);
                        } else if !large {
                            // There is no gap of that size.
                            let need = bytes.div_ceil(PAGE);
                            let mut run = 0;
                            let mut last = None;
                            for page in &free {
                                run = if last == page.checked_sub(1) && last.is_some() { run + 1 } else { 1 };
                                prop_assert!(run < need);
                                last = Some(*page);
                            }
                        }
                    }
                    Step::Pieces(bytes) => {
                        if let Some(pieces) = frames.take_pieces(bytes, LARGE) {
                            let total: u64 = pieces.iter().map(|piece| piece.len).sum();
                            prop_assert_eq!(total, bytes.next_multiple_of(PAGE));
                            for (i, piece) in pieces.iter().enumerate() {
                                prop_assert!(piece.base.is_multiple_of(LARGE));
                                prop_assert!(i + 1 == pieces.len() || piece.len.is_multiple_of(LARGE));
                                prop_assert!(pages(*piece).all(|page| free.remove(&page)));
                            }
                            taken.extend(pieces);
                        }
                    }
                    Step::GiveBack(index) => {
                        if !taken.is_empty() {
                            let range = taken.swap_remove(index % taken.len());
                            frames.add(range);
                            free.extend(pages(range));
                        }
                    }
                }
                prop_assert_eq!(frames.free_bytes(), free.len() as u64 * PAGE);
                for pair in frames.free.windows(2) {
                    prop_assert!(pair[0].end() < pair[1].base);
                }
            }
        }
    }

    #[test]
    fn memory_that_is_not_whole_pages_is_left_out() {
        let mut frames = Frames::new();
        frames.add(Range { base: 1, len: 2 * PAGE });
        assert_eq!(frames.take(1, PAGE), Some(Range { base: PAGE, len: PAGE }));
        assert_eq!(frames.take(1, PAGE), None);
        frames.add(Range { base: u64::MAX - 10, len: 100 });
        assert_eq!(frames.free_bytes(), 0);
    }
}
