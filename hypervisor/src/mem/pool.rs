//! The page pool: a free list through the free pages.

use spin::Mutex;

use super::{PAGE, virt};

struct Pool {
    head: u64,
    free: u64,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { head: 0, free: 0 });

/// Gives `pages` pages from `base` on to the pool. They must be mapped in the window.
///
/// # Safety
/// Nobody else may use that memory, now or later.
pub unsafe fn donate(base: u64, pages: u64) {
    let mut pool = POOL.lock();
    for page in (0..pages).rev() {
        let pa = base + page * PAGE as u64;
        // SAFETY: the caller hands over memory that is mapped in the window.
        unsafe { virt(pa).cast::<u64>().write(pool.head) };
        pool.head = pa;
    }
    pool.free += pages;
}

/// Pages that are free.
pub fn free_pages() -> u64 {
    POOL.lock().free
}

/// Takes a page out and zeroes it: its physical address.
pub fn alloc() -> Option<u64> {
    let pa = {
        let mut pool = POOL.lock();
        let pa = pool.head;
        if pa == 0 {
            return None;
        }
        // SAFETY: `pa` heads the free list, so it is a mapped page whose first word is the link.
        pool.head = unsafe { virt(pa).cast::<u64>().read() };
        pool.free -= 1;
        pa
    };
    // SAFETY: the page just left the free list: it is mapped and nobody else has it.
    unsafe { virt(pa).write_bytes(0, PAGE) };
    Some(pa)
}

/// Puts a page back.
///
/// # Safety
/// `pa` came from [`alloc`] and nothing refers to it any more.
pub unsafe fn free(pa: u64) {
    let mut pool = POOL.lock();
    // SAFETY: the caller gives back a page of the pool, which is mapped in the window.
    unsafe { virt(pa).cast::<u64>().write(pool.head) };
    pool.head = pa;
    pool.free += 1;
}
