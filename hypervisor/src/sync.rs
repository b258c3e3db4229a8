//! Sharing between kernel code paths: one lock around all of them.
//!
//! [`enter`](crate::arch::cpu::enter) takes it at each entry, and each exit path gives it back. Interrupts stay off in between, and an
//! entry never goes on in an older frame: so what a kernel path does is one step for all others, whatever their CPU. Kernel
//! objects and the state of CPUs are in cells of the type [`Guarded`], which only the holder touches.

use core::cell::Cell;

use hypervisor_logic::lock::TicketLock;

/// The lock of the kernel. From the loader's hand-over on the first CPU holds it, until it goes to the root task.
pub static KERNEL: TicketLock = TicketLock::taken();

/// A cell that only the holder of the kernel's lock touches.
#[repr(transparent)]
pub struct Guarded<T>(Cell<T>);

// SAFETY: whoever runs kernel code holds the lock (but for what `docs/src/ordering.md` lists, which concerns the CPU that
// executes it alone), and is not interrupted where it holds a reference.
unsafe impl<T> Sync for Guarded<T> {}

impl<T> Guarded<T> {
    /// A cell holding `value`.
    pub const fn new(value: T) -> Self {
        Self(Cell::new(value))
    }

    /// Replaces the value.
    #[inline(always)]
    pub fn set(&self, value: T) {
        self.0.set(value);
    }

    /// Replaces the value and returns the old one.
    #[inline(always)]
    pub fn replace(&self, value: T) -> T {
        self.0.replace(value)
    }

    /// A pointer to the value.
    #[inline(always)]
    pub const fn as_ptr(&self) -> *mut T {
        self.0.as_ptr()
    }
}

impl<T: Copy> Guarded<T> {
    /// The value.
    #[inline(always)]
    pub fn get(&self) -> T {
        self.0.get()
    }
}
