//! What the program compares: the other side of a comparison is often what the input should have.
//!
//! The compiler's sanitizer coverage (LLVM, "Tracing data flow") calls a function at every
//! comparison of integers. The functions here remember the operands of the latest.
//!
//! `unsafe` is needed because the functions may not use anything that compares, not even atomics:
//! they would call themselves. The program that is tested has one thread.

use std::ptr::addr_of;

/// The operands of a comparison, and how many bytes each has. `have` may come from the input,
/// `want` is what it was compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compare {
    /// One operand.
    pub have: u64,
    /// The other one.
    pub want: u64,
    /// 1, 2, 4 or 8.
    pub bytes: u8,
}

/// Comparisons that are remembered; a power of two.
const ROOM: usize = 256;

static mut LATEST: [Compare; ROOM] = [Compare { have: 0, want: 0, bytes: 0 }; ROOM];
/// Set while nothing may be recorded: outside of the program that is tested, and inside these
/// functions.
static mut OFF: bool = true;

macro_rules! hooks {
    ($($name:ident($number:ty)),*) => {$(
        /// # Safety
        /// For the compiler alone, in a program with one thread.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(want: $number, have: $number) {
            // SAFETY: there is one thread, and `OFF` keeps a function that is called from here
            // from coming back.
            unsafe {
                if OFF {
                    return;
                }
                OFF = true;
                record(want as u64, have as u64, size_of::<$number>() as u8);
                OFF = false;
            }
        }
    )*};
}

hooks!(
    __sanitizer_cov_trace_cmp1(u8),
    __sanitizer_cov_trace_cmp2(u16),
    __sanitizer_cov_trace_cmp4(u32),
    __sanitizer_cov_trace_cmp8(u64),
    __sanitizer_cov_trace_const_cmp1(u8),
    __sanitizer_cov_trace_const_cmp2(u16),
    __sanitizer_cov_trace_const_cmp4(u32),
    __sanitizer_cov_trace_const_cmp8(u64)
);

/// # Safety
/// For the compiler alone, in a program with one thread: `cases` are a count, a width in bits, and
/// so many values.
#[unsafe(no_mangle)]
unsafe extern "C" fn __sanitizer_cov_trace_switch(have: u64, cases: *const u64) {
    // SAFETY: as in the other functions; the compiler promises the layout of `cases`.
    unsafe {
        if OFF {
            return;
        }
        OFF = true;
        let (count, bits) = (*cases, *cases.add(1));
        for index in 0..count.min(16) as usize {
            record(*cases.add(2 + index), have, (bits / 8) as u8);
        }
        OFF = false;
    }
}

/// # Safety
/// Only while `OFF` is set.
unsafe fn record(want: u64, have: u64, bytes: u8) {
    // Where Linux puts programs, heaps, libraries and stacks: other addresses in every process, and
    // nothing that an input could hold.
    let pointer = |value: u64| matches!(value >> 40, 0x55..=0x56 | 0x7e..=0x7f);
    if want == have || pointer(want) || pointer(have) {
        return;
    }
    // Loops compare the same things many times: those share a place.
    let mixed = (want ^ have.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let index = (mixed >> 56) as usize % ROOM;
    // SAFETY: nobody else looks at the table now.
    unsafe { LATEST[index] = Compare { have, want, bytes } };
}

/// Runs `program` with its comparisons recorded, behind those of earlier runs.
pub fn recorded<T>(program: impl FnOnce() -> T) -> T {
    // SAFETY: there is one thread.
    unsafe { OFF = false };
    let result = program();
    // SAFETY: as above.
    unsafe { OFF = true };
    result
}

/// Stops recording after a panic, which leaves `recorded` without its end.
pub fn stop() {
    // SAFETY: there is one thread.
    unsafe { OFF = true };
}

/// The comparison at place `index`, if there is one.
pub fn get(index: usize) -> Option<Compare> {
    // SAFETY: there is one thread, and recording is off outside of `recorded`.
    let compare = unsafe { (*addr_of!(LATEST))[index % ROOM] };
    (compare.bytes != 0).then_some(compare)
}
