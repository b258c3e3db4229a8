//! The interrupt descriptor table: 256 stubs.

use core::sync::atomic::{AtomicU64, Ordering};

use super::entry::trap_stub_address;
use super::gdt::KERNEL_CODE;
use crate::mem::virt;

/// The page that holds the table of all CPUs.
static PAGE: AtomicU64 = AtomicU64::new(0);

/// Builds the table in `page`, which stays.
pub fn build(page: u64) {
    for vector in 0..=255_u8 {
        // NMI on its own stack (SDM 3A 6.14.5); on another double fault, machine check, and what an INIT becomes on AMD-V, because it can
        // come before a system call has found its stack.
        let stack = match vector {
            2 => 1,
            8 | 18 | 30 => 2,
            _ => 0_u64,
        };
        // INT3 and INTO are for ring 3 to use.
        let kind = if matches!(vector, 3 | 4) { 0xee } else { 0x8e_u64 };
        let address = trap_stub_address(vector);
        let low = address & 0xffff
            | u64::from(KERNEL_CODE) << 16
            | stack << 32
            | kind << 40
            | (address >> 16 & 0xffff) << 48;
        // SAFETY: 256 gates of 16 bytes fill the page.
        unsafe {
            let gate = virt(page).cast::<u64>().add(usize::from(vector) * 2);
            gate.write(low);
            gate.add(1).write(address >> 32);
        }
    }
    PAGE.store(page, Ordering::Relaxed);
}

/// Address of the table.
pub fn base() -> u64 {
    virt(PAGE.load(Ordering::Relaxed)) as u64
}

/// Loads the table.
///
/// # Safety
/// [`build`] was called, and the task register of this CPU is loaded.
pub unsafe fn load() {
    let pointer = x86_64::structures::DescriptorTablePointer {
        limit: 0xfff,
        base: x86_64::VirtAddr::new(base()),
    };
    // SAFETY: by the caller's word.
    unsafe { x86_64::instructions::tables::lidt(&pointer) };
}
