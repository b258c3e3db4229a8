//! The kernel's own memory.
//!
//! At boot the kernel takes a pool of physical memory for itself. It maps that pool, and no other memory, at
//! [`WINDOW`]. Page tables, UTCBs and objects all come from it, and each page is charged to a protection domain.

pub mod pool;
pub mod slab;
pub mod tables;

/// Physical address `a` of the pool is mapped at `WINDOW + a`.
pub const WINDOW: u64 = 0xffff_8000_0000_0000;

/// Bytes in a page.
pub const PAGE: usize = 4096;

/// The kernel's address of a byte of the pool.
#[inline(always)]
pub const fn virt(pa: u64) -> *mut u8 {
    pa.wrapping_add(WINDOW) as *mut u8
}

/// The physical address behind an address in the window.
#[inline(always)]
pub fn phys<T>(pointer: *const T) -> u64 {
    (pointer as u64).wrapping_sub(WINDOW)
}
