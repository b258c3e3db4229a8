//! The atomics of the processor, or those of `loom`, which tries every interleaving.

#[cfg(not(test))]
pub(super) use core::hint::spin_loop;
#[cfg(not(test))]
pub(super) use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};

#[cfg(test)]
pub(super) use loom::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};

/// Lets other threads go on.
///
/// Threads that wait could look and wait in turn for ever, and `loom` would follow them. A run in
/// which one of them has looked this often is finished, but not varied any further.
#[cfg(test)]
pub(super) fn spin_loop() {
    const VARIED: u32 = 2;
    loom::thread_local! {
        static LOOKS: core::cell::Cell<u32> = core::cell::Cell::new(0);
    }
    let looks = LOOKS.with(|looks| looks.replace(looks.get() + 1));
    if looks == VARIED {
        loom::skip_branch();
    }
    loom::thread::yield_now();
}

/// A constructor that can make a `static`. Those of `loom` exist only while a model runs.
macro_rules! const_fn {
    ($(#[$attribute:meta])* $visibility:vis fn $($rest:tt)*) => {
        $(#[$attribute])*
        #[cfg(not(test))]
        $visibility const fn $($rest)*

        $(#[$attribute])*
        #[cfg(test)]
        $visibility fn $($rest)*
    };
}
pub(super) use const_fn;
