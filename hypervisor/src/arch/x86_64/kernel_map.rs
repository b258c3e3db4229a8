//! The kernel's own half of every address space.
//!
//! ```text
//! 0xffff_8000_0000_0000  WINDOW: the page pool, at its physical address
//! 0xffff_fe00_0000_0000  device registers
//! 0xffff_ff00_0000_0000  the CPUs' blocks
//! 0xffff_ffff_8000_0000  the kernel's image, as the loader mapped it
//! ```

use core::sync::atomic::{AtomicU64, Ordering};

use hypervisor_logic::frames::Frames;

use crate::mem::tables::Kernel;

/// Where device registers are mapped.
const DEVICES: u64 = 0xffff_fe00_0000_0000;

// Bits of an entry (SDM 3A 4.5.4).
/// It translates.
pub const PRESENT: u64 = 1 << 0;
/// Writing is allowed.
pub const WRITE: u64 = 1 << 1;
const WRITE_THROUGH: u64 = 1 << 3;
const CACHE_DISABLE: u64 = 1 << 4;
/// It was used.
pub const ACCESSED: u64 = 1 << 5;
/// It was written through.
pub const DIRTY: u64 = 1 << 6;
/// It is a leaf, above the last level.
pub const LARGE_PAGE: u64 = 1 << 7;
/// Execution is not allowed.
pub const NO_EXECUTE: u64 = 1 << 63;
/// The physical address.
pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Maps a page for the kernel alone, writable. The tables come from the pool and are never freed.
pub fn map(root: u64, va: u64, pa: u64, uncached: bool) -> Option<()> {
    let mut frames = Kernel;
    let mut table = root;
    for shift in [39, 30, 21] {
        let index = (va >> shift & 511) as usize;
        let mut entry = frames.read(table, index);
        if entry & PRESENT == 0 {
            entry = frames.alloc()? | ACCESSED | WRITE | PRESENT;
            frames.write(table, index, entry);
        }
        table = entry & ADDRESS;
    }
    let cache = if uncached { CACHE_DISABLE | WRITE_THROUGH } else { 0 };
    let leaf = pa & ADDRESS | NO_EXECUTE | DIRTY | ACCESSED | cache | WRITE | PRESENT;
    frames.write(table, (va >> 12 & 511) as usize, leaf);
    Some(())
}

/// Maps a page of device registers: its address.
pub fn map_device(root: u64, pa: u64) -> Option<u64> {
    static NEXT: AtomicU64 = AtomicU64::new(DEVICES);
    let va = NEXT.fetch_add(4096, Ordering::Relaxed);
    map(root, va, pa & !0xfff, true)?;
    Some(va + (pa & 0xfff))
}
