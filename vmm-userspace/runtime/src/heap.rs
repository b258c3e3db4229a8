//! The task's heap: an arena in its own data segment.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use linked_list_allocator::Heap;

use crate::lock::Lock;

/// Bytes of heap unless [`crate::entry!`] is told another number.
pub const DEFAULT_SIZE: usize = 1 << 20;

/// Memory for the heap; [`crate::entry!`] makes the task's one.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Arena<const N: usize>(UnsafeCell<[MaybeUninit<u8>; N]>);

// SAFETY: its only user is the heap, which has a lock.
unsafe impl<const N: usize> Sync for Arena<N> {}

impl<const N: usize> Arena<N> {
    /// Memory that nobody uses yet.
    #[must_use]
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self(UnsafeCell::new([MaybeUninit::uninit(); N]))
    }

    /// Makes this the task's heap.
    ///
    /// # Safety
    /// To be called once in a task, before anything is allocated.
    pub unsafe fn activate(&'static self) {
        // SAFETY: the arena is used for this alone and lives as long as the task.
        unsafe { HEAP.lock().init(self.0.get().cast(), N) }
    }
}

static HEAP: Lock<Heap> = Lock::new(Heap::empty());

/// Bytes of heap: used, and free.
#[must_use]
pub fn usage() -> (usize, usize) {
    let heap = HEAP.lock();
    (heap.used(), heap.free())
}

/// Allocates from the task's heap.
#[derive(Debug)]
pub struct TaskAllocator;

// SAFETY: the heap behind it hands out disjoint blocks of its arena, under a lock.
unsafe impl GlobalAlloc for TaskAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HEAP.lock().allocate_first_fit(layout).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: the caller returns what `alloc` gave it, with the same layout.
            unsafe { HEAP.lock().deallocate(block, layout) }
        }
    }
}

#[cfg(target_os = "none")]
#[global_allocator]
static ALLOCATOR: TaskAllocator = TaskAllocator;
