//! FPU, vector and extended state of virtual CPUs.
//!
//! Ring 0 and every task are built without vector instructions, so a guest's state stays in the registers while others run; CR0.TS
//! keeps tasks from touching it. It moves only when another virtual CPU is loaded.

use core::sync::atomic::{AtomicU64, Ordering};

use x86_64::registers::control::{Cr0, Cr0Flags};
use x86_64::registers::xcontrol::XCr0;

use crate::mem::virt;

/// XCR0 bits that fit an XSAVE area of one page in standard format: x87, SSE, AVX, AVX-512, PKRU (SDM 1 13.5).
const SUPPORTED: u64 = 0b10_1110_0111;
const AVX512: u64 = 0b1110_0000;

/// Something for the FPU to load.
static NOTHING: u32 = 0;

/// What XCR0 may hold here; 0 if there is no XSAVE.
static XCR0: AtomicU64 = AtomicU64::new(0);

/// Finds out what the processor has. CR4.OSXSAVE must be set if it has XSAVE.
pub fn init(has_xsave: bool) {
    if has_xsave {
        let leaf = core::arch::x86_64::__cpuid_count(0xd, 0);
        let available = u64::from(leaf.eax) | u64::from(leaf.edx) << 32;
        XCR0.store(available & SUPPORTED, Ordering::Relaxed);
        set_xcr0(available & SUPPORTED);
    }
}

/// Whether guests can use XSAVE.
pub fn has_xsave() -> bool {
    XCR0.load(Ordering::Relaxed) != 0
}

/// Whether a guest may have that value in XCR0 (SDM 1 13.3).
pub fn valid_xcr0(value: u64) -> bool {
    let supported = XCR0.load(Ordering::Relaxed);
    value & 1 != 0
        && value & !supported == 0
        && (value & 0b100 == 0 || value & 0b10 != 0)
        && (value & AVX512 == 0 || (value & AVX512 == AVX512 && value & 0b100 != 0))
}

/// What XCR0 holds.
pub fn xcr0() -> u64 {
    if has_xsave() { XCr0::read_raw() } else { 1 }
}

/// Loads XCR0.
pub fn set_xcr0(value: u64) {
    if has_xsave() {
        // SAFETY: every caller has checked the value, or it is what the processor supports.
        unsafe { XCr0::write_raw(value) };
    }
}

/// Prepares a state area: everything in its initial configuration.
pub fn init_area(area: u64) {
    // SAFETY: a fresh page. FCW at 0 and MXCSR at 24 are what a reset leaves (SDM 1 10.5.1.1).
    unsafe {
        virt(area).cast::<u16>().write(0x37f);
        virt(area).add(24).cast::<u32>().write(0x1f80);
    }
}

/// Moves the registers' content to one area, and loads another with its XCR0: each is an address and what XCR0 holds with it. CR0.TS is
/// set before and after.
pub fn switch(from: Option<(u64, u64)>, to: Option<(u64, u64)>) {
    let all = XCR0.load(Ordering::Relaxed);
    let (low, high) = (all as u32, (all >> 32) as u32);
    // SAFETY: the areas are pages of live virtual CPUs, 64-byte aligned and large enough for every supported component; all
    // components in the areas were written by the same instructions.
    unsafe {
        core::arch::asm!("clts", options(nomem, nostack, preserves_flags));
        set_xcr0(all);
        if let Some((from, _)) = from {
            if all != 0 {
                core::arch::asm!("xsave64 [{}]", in(reg) virt(from), in("eax") low, in("edx") high, options(nostack, preserves_flags));
            } else {
                core::arch::asm!("fxsave64 [{}]", in(reg) virt(from), options(nostack, preserves_flags));
            }
        }
        let Some((to, xcr0)) = to else { return set_task_switched() };
        if super::vendor() == super::Vendor::Svm {
            // AMD's processors restore the last instruction, data and opcode pointers only if an exception is pending (APM 2 11.4.4):
            // those of the old one would show. These are nobody's.
            core::arch::asm!("fnclex", "emms", "fild dword ptr [{}]", in(reg) &raw const NOTHING, options(nostack));
        }
        if all != 0 {
            core::arch::asm!("xrstor64 [{}]", in(reg) virt(to), in("eax") low, in("edx") high, options(nostack, preserves_flags));
        } else {
            core::arch::asm!("fxrstor64 [{}]", in(reg) virt(to), options(nostack, preserves_flags));
        }
        set_xcr0(xcr0);
        set_task_switched();
    }
}

/// Sets CR0.TS: from now on the FPU is out of bounds for ring 3.
pub fn set_task_switched() {
    // SAFETY: the kernel uses no FPU.
    unsafe { Cr0::write(Cr0::read() | Cr0Flags::TASK_SWITCHED) };
}
