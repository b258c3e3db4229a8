//! A buddy allocator of pages: blocks of one, two and four pages, each aligned to its size.
//!
//! ```text
//! memory  | bitmap | page | page | ...          bitmap: one bit a page, set = free
//! block   | next | previous | ...               of a free block: the links of its list
//! ```
//!
//! A block that becomes free merges with its buddy at once if that is free too. Four pages that
//! share a block of the largest size therefore need no more than their four bits to tell which
//! blocks they form: `1111` is one block of four, `0011` one of two, `0101` two single pages.
//! Taking and freeing touch one word of a bitmap and at most one list an order.

/// Bytes in a page.
const PAGE: u64 = 4096;
/// Orders of blocks: a block of order `n` has `1 << n` pages.
pub const ORDERS: usize = 3;
/// Order of the largest block.
const LARGEST: u32 = ORDERS as u32 - 1;
/// Pages whose bits fill a page.
const PAGES_A_PAGE: u64 = PAGE * 8;
/// No block. Page 0 cannot be donated.
const NONE: u64 = 0;

/// Access to the memory that was donated, by physical address.
pub trait Memory {
    /// The 64-bit word at `address`, a multiple of 8.
    fn read(&self, address: u64) -> u64;

    /// Stores a 64-bit word at `address`, a multiple of 8.
    fn write(&mut self, address: u64, value: u64);
}

/// The free blocks of one range of memory.
#[derive(Debug, Default)]
pub struct Buddy {
    /// First free block, by order.
    heads: [u64; ORDERS],
    /// Free pages.
    free: u64,
    /// Address behind bit 0: the start, rounded down to the largest block. Bits outside the range
    /// stay clear, so nothing merges across its ends.
    origin: u64,
    /// Bytes from `origin` to the end.
    len: u64,
    /// Address of the bitmap.
    map: u64,
}

/// Bytes in a block.
const fn size(order: u32) -> u64 {
    PAGE << order
}

/// A block's bits, in the lowest place.
const fn mask(order: u32) -> u64 {
    (1 << (1 << order)) - 1
}

impl Buddy {
    /// No memory.
    pub const fn new() -> Self {
        Self { heads: [NONE; ORDERS], free: 0, origin: 0, len: 0, map: 0 }
    }

    /// Pages that are free, in blocks of any order.
    pub const fn free_pages(&self) -> u64 {
        self.free
    }

    /// Adds `pages` pages from `base` on, once. The first of them, one in 32,768, hold their bitmap;
    /// the others become free. Takes time in proportion to `pages`.
    ///
    /// Returns whether there was none before, the range starts with a page other than page 0, it ends
    /// within 64 bits, and its bitmap leaves something of it; otherwise nothing was added.
    pub fn donate(&mut self, memory: &mut impl Memory, base: u64, pages: u64) -> bool {
        let end = pages.checked_mul(PAGE).and_then(|len| base.checked_add(len));
        let usable = self.len == 0 && base != NONE && base.is_multiple_of(PAGE);
        let Some(end) = end.filter(|_| usable) else { return false };
        let origin = base & !(size(LARGEST) - 1);
        let len = end - origin;
        let first = base + (len / PAGE).div_ceil(PAGES_A_PAGE) * PAGE;
        if first >= end {
            return false;
        }
        (self.origin, self.len, self.map) = (origin, len, base);
        for word in (base..first).step_by(8) {
            memory.write(word, 0);
        }
        // From the end, so that the lowest addresses head the lists.
        let mut at = end;
        while at > first {
            let ends_here = |order: &u32| at % size(*order) == 0 && at - first >= size(*order);
            let order = (1..=LARGEST).rev().find(ends_here).unwrap_or(0);
            at -= size(order);
            self.free(memory, at, order);
        }
        true
    }

    /// Takes a block of `1 << order` pages, aligned to its size: its address. What is in it is
    /// left over from before. `None` if no free block is large enough.
    pub fn alloc(&mut self, memory: &mut impl Memory, order: u32) -> Option<u64> {
        let (found, head) =
            (order..).zip(self.heads.get(order as usize..)?).find(|(_, h)| **h != NONE)?;
        let block = *head;
        self.unlink(memory, block, found);
        for half in (order..found).rev() {
            self.push(memory, block.wrapping_add(size(half)), half);
        }
        let (word, shift) = self.bits(block)?;
        memory.write(word, memory.read(word) & !(mask(order) << shift));
        self.free = self.free.wrapping_sub(1 << order);
        Some(block)
    }

    /// Puts back a block of `1 << order` pages that [`Self::alloc`] gave, or such a part of one.
    pub fn free(&mut self, memory: &mut impl Memory, block: u64, order: u32) {
        let bits = self.bits(block).filter(|_| order <= LARGEST);
        debug_assert!(bits.is_some(), "{block:#x} was never donated");
        debug_assert!(block.is_multiple_of(size(order)), "{block:#x} is not aligned");
        let Some((word, mut shift)) = bits else { return };
        let old = memory.read(word);
        debug_assert!(old >> shift & mask(order) == 0, "{block:#x} is freed twice");
        let map = old | mask(order) << shift;
        memory.write(word, map);
        self.free = self.free.wrapping_add(1 << order);
        let (mut block, mut order) = (block, order);
        while order < LARGEST {
            // The pages of a free buddy form one block of this order: they would have merged with
            // one another, and could not yet merge with this block.
            if map >> (shift ^ 1 << order) & mask(order) != mask(order) {
                break;
            }
            self.unlink(memory, block ^ size(order), order);
            block &= !size(order);
            shift &= !(1 << order);
            order += 1;
        }
        self.push(memory, block, order);
    }

    /// Where the bits of a block are, as the address of a word and the first bit in it.
    fn bits(&self, block: u64) -> Option<(u64, u32)> {
        let offset = Some(block.wrapping_sub(self.origin)).filter(|offset| *offset < self.len)?;
        let page = offset / PAGE;
        Some((self.map.wrapping_add(page / 64 * 8), (page % 64) as u32))
    }

    /// Puts a block at the head of its list.
    fn push(&mut self, memory: &mut impl Memory, block: u64, order: u32) {
        let Some(head) = self.heads.get_mut(order as usize) else { return };
        memory.write(block, *head);
        memory.write(block.wrapping_add(8), NONE);
        if *head != NONE {
            memory.write(head.wrapping_add(8), block);
        }
        *head = block;
    }

    /// Takes a block out of its list.
    fn unlink(&mut self, memory: &mut impl Memory, block: u64, order: u32) {
        let (next, previous) = (memory.read(block), memory.read(block.wrapping_add(8)));
        if previous != NONE {
            memory.write(previous, next);
        } else if let Some(head) = self.heads.get_mut(order as usize) {
            *head = next;
        }
        if next != NONE {
            memory.write(next.wrapping_add(8), previous);
        }
    }
}
