use crate::buddy::{Buddy, Memory, ORDERS};
use proptest::prelude::*;
use std::collections::{BTreeSet, HashMap};
use std::vec::Vec;

const PAGE: u64 = 4096;

/// Memory full of junk, that notices who touches what is not the allocator's.
#[derive(Default)]
struct Pages {
    words: HashMap<u64, u64>,
    theirs: BTreeSet<u64>,
}

impl Pages {
    fn check(&self, address: u64) {
        assert!(address.is_multiple_of(8));
        assert!(self.theirs.contains(&(address / PAGE)), "{address:#x} is somebody else's");
    }
}

impl Memory for Pages {
    fn read(&self, address: u64) -> u64 {
        self.check(address);
        self.words.get(&address).copied().unwrap_or(0x5a5a_5a5a_5a5a_5a5a)
    }

    fn write(&mut self, address: u64, value: u64) {
        self.check(address);
        self.words.insert(address, value);
    }
}

/// An allocator beside a plain set of the pages that are free.
#[derive(Default)]
struct Both {
    memory: Pages,
    buddy: Buddy,
    free: BTreeSet<u64>,
    held: Vec<(u64, u32)>,
}

impl Both {
    fn donate(&mut self, first: u64, pages: u64) -> bool {
        let all = first..first + pages;
        self.memory.theirs.extend(all.clone());
        let before = self.buddy.free_pages();
        let taken = self.buddy.donate(&mut self.memory, first * PAGE, pages);
        if taken {
            // The pages between the start and the multiple of four before it have bits too.
            let bitmap = (pages + first % 4).div_ceil(32768);
            assert_eq!(self.buddy.free_pages() - before, pages - bitmap);
            self.free.extend(all.skip(bitmap as usize));
        }
        taken
    }

    fn block(first: u64, order: u32) -> impl Iterator<Item = u64> + Clone {
        first..first + (1 << order)
    }

    fn has(&self, order: u32) -> bool {
        self.free.iter().any(|first| {
            first.is_multiple_of(1 << order)
                && Self::block(*first, order).all(|page| self.free.contains(&page))
        })
    }

    fn alloc(&mut self, order: u32) -> Option<u64> {
        let expected = self.has(order);
        let block = self.buddy.alloc(&mut self.memory, order);
        assert_eq!(block.is_some(), expected, "order {order}");
        let first = block? / PAGE;
        assert!(block?.is_multiple_of(PAGE << order));
        for page in Self::block(first, order) {
            assert!(self.free.remove(&page), "page {page:#x} was not free");
            assert!(self.memory.theirs.remove(&page));
            // Whoever has it writes to it.
            self.memory.words.extend([0, 8].map(|at| (page * PAGE + at, u64::MAX)));
        }
        assert_eq!(self.buddy.free_pages(), self.free.len() as u64);
        self.held.push((first, order));
        block
    }

    fn free(&mut self, first: u64, order: u32) {
        self.free.extend(Self::block(first, order));
        self.memory.theirs.extend(Self::block(first, order));
        self.buddy.free(&mut self.memory, first * PAGE, order);
        assert_eq!(self.buddy.free_pages(), self.free.len() as u64);
    }

    /// Frees everything; then the largest blocks must be there again.
    fn finish(&mut self) {
        for (first, order) in std::mem::take(&mut self.held) {
            self.free(first, order);
        }
        for order in (0..ORDERS as u32).rev() {
            while self.alloc(order).is_some() {}
        }
        assert_eq!(self.buddy.free_pages(), 0);
    }
}

#[derive(Clone, Debug)]
enum Op {
    Alloc(u32),
    Free(prop::sample::Index),
    /// Frees a block page by page.
    Crumble(prop::sample::Index),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..ORDERS as u32).prop_map(Op::Alloc),
        6 => any::<prop::sample::Index>().prop_map(Op::Free),
        2 => any::<prop::sample::Index>().prop_map(Op::Crumble),
    ]
}

proptest! {
    #[test]
    fn follows_a_set_of_pages(
        first in 1..9_u64,
        pages in 2..90_u64,
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut both = Both::default();
        assert!(both.donate(first, pages));
        for op in ops {
            match op {
                Op::Alloc(order) => {
                    both.alloc(order);
                }
                Op::Free(which) if !both.held.is_empty() => {
                    let (first, order) = both.held.swap_remove(which.index(both.held.len()));
                    both.free(first, order);
                }
                Op::Crumble(which) if !both.held.is_empty() => {
                    let (first, order) = both.held.swap_remove(which.index(both.held.len()));
                    Both::block(first, order).for_each(|page| both.free(page, 0));
                }
                _ => {}
            }
        }
        both.finish();
    }
}

#[test]
fn the_lowest_pages_go_first() {
    let mut both = Both::default();
    assert!(both.donate(16, 64));
    for page in 17..40 {
        assert_eq!(both.alloc(0), Some(page * PAGE));
    }
}

#[test]
fn a_bitmap_of_several_pages() {
    for (first, pages, bitmap) in [(8, 32768, 1), (8, 32769, 2), (11, 32765, 1), (11, 32766, 2)] {
        let mut both = Both::default();
        assert!(both.donate(first, pages));
        let usable = first + bitmap..first + pages;
        let mut taken: Vec<_> =
            std::iter::from_fn(|| both.buddy.alloc(&mut both.memory, 0)).collect();
        taken.sort_unstable();
        assert!(taken.iter().copied().eq(usable.clone().map(|page| page * PAGE)));
        for page in taken {
            both.buddy.free(&mut both.memory, page, 0);
        }
        let blocks = std::iter::from_fn(|| both.buddy.alloc(&mut both.memory, 2)).count() as u64;
        assert_eq!(blocks, usable.end / 4 - usable.start.div_ceil(4));
    }
}

#[test]
fn refuses_what_it_cannot_use() {
    let mut both = Both::default();
    assert!(!both.donate(0, 8));
    let mut donate = |base, pages| both.buddy.donate(&mut both.memory, base, pages);
    assert!(!donate(PAGE + 8, 8));
    assert!(!donate(PAGE, u64::MAX / PAGE + 1));
    assert!(!donate(u64::MAX - 2 * PAGE + 1, 3));
    assert!(!both.donate(1, 0));
    assert!(!both.donate(1, 1));
    assert!(both.donate(1, 2));
    assert!(!both.donate(99, 2));
    assert_eq!(both.buddy.free_pages(), 1);
    both.finish();
}

#[test]
fn no_block_is_larger_than_the_largest_order() {
    let mut both = Both::default();
    assert!(both.donate(4, 60));
    for order in [ORDERS as u32, 6, 63, 64, u32::MAX] {
        assert_eq!(both.buddy.alloc(&mut both.memory, order), None);
    }
    both.finish();
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "freed twice")]
fn freeing_twice_is_noticed() {
    let mut both = Both::default();
    assert!(both.donate(4, 8));
    let block = both.alloc(0).unwrap();
    both.memory.theirs.insert(block / PAGE);
    both.buddy.free(&mut both.memory, block, 0);
    both.buddy.free(&mut both.memory, block, 0);
}
