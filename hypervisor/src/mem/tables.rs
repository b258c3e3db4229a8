//! Table pages: the pool seen through [`Frames`], each page charged to a protection domain.

use hypervisor_logic::frames::Frames;

use super::{pool, virt};
use crate::object::pd::Account;

/// Table pages on a domain's account.
#[derive(Clone, Copy)]
pub struct Tables<'a>(pub &'a Account);

impl Frames for Tables<'_> {
    fn alloc(&mut self) -> Option<u64> {
        self.0.take_page()
    }

    fn free(&mut self, page: u64) {
        // SAFETY: page-table code frees a table page once, after it has unlinked it.
        unsafe { self.0.retire_page(page) };
    }

    #[inline(always)]
    fn read(&self, page: u64, index: usize) -> u64 {
        Kernel.read(page, index)
    }

    #[inline(always)]
    fn write(&mut self, page: u64, index: usize, value: u64) {
        Kernel.write(page, index, value);
    }
}

/// Table pages that the kernel itself pays for, of boot-time tables that are never freed; also for whoever only looks something up.
pub struct Kernel;

impl Frames for Kernel {
    fn alloc(&mut self) -> Option<u64> {
        pool::alloc()
    }

    fn free(&mut self, page: u64) {
        // SAFETY: as for `Tables`.
        unsafe { pool::free(page) };
    }

    #[inline(always)]
    fn read(&self, page: u64, index: usize) -> u64 {
        // SAFETY: table pages come from the pool, so they are mapped in the window, and the index is
        // kept inside the page. The processor writes accessed bits to them: hence volatile.
        unsafe { virt(page).cast::<u64>().add(index & 511).read_volatile() }
    }

    #[inline(always)]
    fn write(&mut self, page: u64, index: usize, value: u64) {
        // SAFETY: as in `read`; table pages are only accessed through `Frames`, one kernel path at a time.
        unsafe { virt(page).cast::<u64>().add(index & 511).write_volatile(value) };
    }
}
