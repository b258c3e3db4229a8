//! Stacks and UTCB addresses for further threads.

use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::cap::MemRights;
use abi::hypercall::Status;
use abi::layout::PAGE_SIZE;
use protocol::startup::UTCBS;

use crate::space::HostSpace;

/// Bytes of a thread's stack unless its maker asks for another size.
pub const DEFAULT_SIZE: usize = 64 * 1024;

/// Alignment of stacks (System V ABI, AMD64, 3.2.2).
const ALIGNMENT: usize = 16;

/// The next UTCB address. The first thread's is the one before.
static NEXT_UTCB: AtomicU64 = AtomicU64::new(UTCBS + PAGE_SIZE);

/// An address at which the kernel can map a new thread's UTCB.
pub(crate) fn utcb_address() -> u64 {
    NEXT_UTCB.fetch_add(PAGE_SIZE, Ordering::Relaxed)
}

/// Takes a stack of at least `size` bytes from the heap, for ever, and returns its top, which is
/// a multiple of 16. The page below it is unmapped, as far as the task may do that.
///
/// # Errors
/// [`Status::Quota`] when the heap has no room for it.
pub(crate) fn allocate(size: usize) -> Result<NonNull<u64>, Status> {
    let page = PAGE_SIZE as usize;
    let size = size.max(1).next_multiple_of(page).saturating_add(page);
    let layout = Layout::from_size_align(size, page).map_err(|_| Status::BadParam)?;
    // SAFETY: the layout is at least a page large.
    let bottom = NonNull::new(unsafe { alloc::alloc::alloc(layout) }).ok_or(Status::Quota)?;
    // A task without the right to unmap its memory does without the guard.
    // SAFETY: the block is this function's own and is never freed, so nobody misses its first page.
    let _ = unsafe { HostSpace::OWN.revoke(bottom.as_ptr() as u64, PAGE_SIZE, MemRights::RWX) };
    // SAFETY: the end of the block.
    Ok(unsafe { bottom.add(size) }.cast())
}

/// Moves `value` to the upper end of a new stack. What it returns is the stack's new top as well.
pub(crate) fn put<T>(top: NonNull<u64>, value: T) -> NonNull<T> {
    const {
        assert!(size_of::<T>() <= PAGE_SIZE as usize / 8, "copies of it have to fit the stack");
        assert!(align_of::<T>() <= ALIGNMENT, "a stack is aligned like this");
    }
    // SAFETY: a stack has at least a page.
    unsafe {
        let place = top.byte_sub(size_of::<T>().next_multiple_of(ALIGNMENT)).cast();
        place.write(value);
        place
    }
}

/// Puts what a new thread needs on its stack: a return address that nobody returns to, then two
/// words, which [`crate::handler`] and [`crate::thread`] read from there. Returns the stack
/// pointer, aligned as behind a call (System V ABI, AMD64, 3.2.2).
pub(crate) fn prepare(top: NonNull<u64>, words: [u64; 2]) -> u64 {
    // SAFETY: the stack is larger than that and new.
    unsafe {
        let sp = top.sub(3);
        sp.write(0);
        sp.add(1).write(words[0]);
        sp.add(2).write(words[1]);
        sp.as_ptr() as u64
    }
}
