//! Segments: the GDT and the task state of a CPU.

use super::cpu::Block;
use crate::sync::Guarded;

/// Ring-0 code. SYSENTER and SYSEXIT derive all others from it (SDM 2B SYSENTER, SYSEXIT), and SYSRET can as well.
pub const KERNEL_CODE: u16 = 0x08;
/// Ring-0 data.
pub const KERNEL_DATA: u16 = 0x10;
/// Task state.
pub const TSS: u16 = 0x38;

/// Number of descriptors; the task state takes two.
pub const ENTRIES: usize = 9;

/// Ports of the I/O bitmap.
const PORTS: usize = 65536;

/// The task-state segment (SDM 3A 8.7) with its I/O bitmap.
#[repr(C, packed(4))]
pub struct TaskState {
    reserved0: u32,
    rsp: [u64; 3],
    reserved1: u64,
    ist: [u64; 7],
    reserved2: u64,
    reserved3: u16,
    /// Where the I/O bitmap starts; behind the limit: no port at all.
    pub io_map: Guarded<u16>,
    /// One bit a port, set = not allowed.
    pub io_bitmap: [u8; PORTS / 8],
    /// The processor reads one byte further (SDM 1 19.5.2).
    end: u8,
}

/// `io_map` of a task that has ports.
pub const IO_MAP_USED: u16 = 104;
/// `io_map` of a task that has none.
pub const IO_MAP_NONE: u16 = 0xffff;

const LIMIT: u64 = 104 + 8192;
const IST_NMI: usize = 0;
const IST_FAULT: usize = 1;

impl TaskState {
    /// The task state of a CPU with these stack tops.
    pub const fn new(kernel: u64, nmi: u64, fault: u64) -> Self {
        let mut ist = [0; 7];
        ist[IST_NMI] = nmi;
        ist[IST_FAULT] = fault;
        Self {
            reserved0: 0,
            rsp: [kernel, 0, 0],
            reserved1: 0,
            ist,
            reserved2: 0,
            reserved3: 0,
            io_map: Guarded::new(IO_MAP_NONE),
            io_bitmap: [0xff; PORTS / 8],
            end: 0xff,
        }
    }
}

/// The descriptors for a CPU whose task state is at `tss`.
pub const fn descriptors(tss: u64) -> [u64; ENTRIES] {
    const CODE0: u64 = 0x00af_9b00_0000_ffff;
    const DATA0: u64 = 0x00cf_9300_0000_ffff;
    const CODE3: u64 = 0x00af_fb00_0000_ffff;
    const DATA3: u64 = 0x00cf_f300_0000_ffff;
    let low = LIMIT & 0xffff
        | (tss & 0xff_ffff) << 16
        | 0x89 << 40
        | (LIMIT >> 16 & 0xf) << 48
        | (tss >> 24 & 0xff) << 56;
    // SYSEXIT takes ring-3 code from 0x28 and data from 0x30; 0x18 stays empty: there is no 32-bit user code.
    [0, CODE0, DATA0, 0, DATA3, CODE3, DATA3, low, tss >> 32]
}

/// Loads the GDT, the segments and the task register of a CPU. There is no LDT from then on: the one that a reset leaves (SDM 3A
/// 10.1.1, APM 2 14.1.3) has base 0 and limit 0xffff, which is a task's memory, and it could write call gates there.
///
/// # Safety
/// `block` is this CPU's, is filled, and stays mapped.
pub unsafe fn load(block: &Block) {
    let pointer = x86_64::structures::DescriptorTablePointer {
        limit: (ENTRIES * 8 - 1) as u16,
        base: x86_64::VirtAddr::new(core::ptr::from_ref(&block.gdt) as u64),
    };
    // SAFETY: the table holds the descriptors that the selectors name.
    unsafe {
        x86_64::instructions::tables::lgdt(&pointer);
        core::arch::asm!(
            "push {cs}",
            "lea {t}, [rip + 2f]",
            "push {t}",
            "retfq",
            "2:",
            "mov ss, {ss:e}",
            "xor {t:e}, {t:e}",
            "mov ds, {t:e}",
            "mov es, {t:e}",
            "mov fs, {t:e}",
            "mov gs, {t:e}",
            "lldt {t:x}",
            t = out(reg) _,
            cs = const KERNEL_CODE,
            ss = in(reg) u64::from(KERNEL_DATA),
        );
    }
    load_task_register(block);
}

/// Loads the task register. After a VM exit its limit is short of the I/O bitmap (SDM 3C 28.5.2).
pub fn load_task_register(block: &Block) {
    const BUSY: u64 = 2 << 40;
    const { assert!(TSS as usize / 8 == ENTRIES - 2) };
    let [.., descriptor, _] = &block.gdt;
    descriptor.set(descriptor.get() & !BUSY);
    // SAFETY: the descriptor is that of this CPU's task state, and not busy.
    unsafe { core::arch::asm!("ltr {0:x}", in(reg) TSS, options(nostack, preserves_flags)) };
}
