//! The page pool: blocks of one, two and four pages, out of memory that is mapped in the window.

use hypervisor_logic::buddy::{Buddy, Memory};
use hypervisor_logic::list::List;
use spin::Mutex;

use super::{PAGE, virt};
use crate::arch::shootdown;

static POOL: Mutex<Buddy> = Mutex::new(Buddy::new());

/// The allocator's own memory: bitmaps and free blocks. Only its lock's holder touches them.
struct Window;

impl Memory for Window {
    #[inline(always)]
    fn read(&self, address: u64) -> u64 {
        // SAFETY: the allocator reads only what was donated and is not taken, by the word.
        unsafe { virt(address).cast::<u64>().read() }
    }

    #[inline(always)]
    fn write(&mut self, address: u64, value: u64) {
        // SAFETY: as above, and nobody else uses that memory.
        unsafe { virt(address).cast::<u64>().write(value) };
    }
}

/// Gives `pages` pages from `base` on to the pool, which keeps the first of them, one in 32,768, for itself. They must be
/// mapped in the window. Returns whether the pool could use them: it has one range.
///
/// # Safety
/// Nobody else may use that memory, now or later.
pub unsafe fn donate(base: u64, pages: u64) -> bool {
    POOL.lock().donate(&mut Window, base, pages)
}

/// Pages that are free.
pub fn free_pages() -> u64 {
    POOL.lock().free_pages()
}

/// Takes a page out and zeroes it: its physical address.
pub fn alloc() -> Option<u64> {
    alloc_block(0)
}

/// Puts a page back.
///
/// # Safety
/// `pa` came from [`alloc`] and nothing refers to it any more.
pub unsafe fn free(pa: u64) {
    // SAFETY: passed on to the caller.
    unsafe { free_block(pa, 0) };
}

/// Takes out `1 << order` pages in one piece, aligned to its size, and zeroes them: their physical address. `order` is at
/// most 2.
pub fn alloc_block(order: u32) -> Option<u64> {
    let pa = POOL.lock().alloc(&mut Window, order)?;
    // SAFETY: the block has just left the free lists: it is mapped and nobody else has it.
    unsafe { virt(pa).write_bytes(0, PAGE << order) };
    Some(pa)
}

/// Puts `1 << order` pages back.
///
/// # Safety
/// `pa` came from [`alloc_block`] with the same `order` and nothing refers to the block any more.
pub unsafe fn free_block(pa: u64, order: u32) {
    POOL.lock().free(&mut Window, pa, order);
}

/// Table pages that a processor may still walk through: as many as one call can retire, with two leaves of 1 GiB over full tables.
static RETIRED: Mutex<List<u64, 1030>> = Mutex::new(List::new(0));

/// Puts a page back as soon as no processor can walk through it any more.
///
/// # Safety
/// As for [`free`], but for processors that remember it as a part of their tables.
pub unsafe fn retire(pa: u64) {
    if RETIRED.lock().push(pa).is_err() {
        shootdown::everything();
        // There is room now.
        let _ = RETIRED.lock().push(pa);
    }
}

/// Every processor has forgotten the pages that were retired.
pub fn reclaim() {
    let mut retired = RETIRED.lock();
    for page in retired.iter() {
        // SAFETY: by the word of whoever retired it.
        unsafe { free(*page) };
    }
    retired.clear();
}

/// Whether pages wait to be put back.
pub fn has_retired() -> bool {
    !RETIRED.lock().is_empty()
}
