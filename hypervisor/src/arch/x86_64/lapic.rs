//! The local APIC of this CPU, in xAPIC or x2APIC mode (SDM 3A 11).

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::msr::{self, Msr};

/// A register, by its xAPIC offset.
#[derive(Clone, Copy)]
pub struct Register(u32);

/// End of interrupt.
pub const EOI: Register = Register(0xb0);
/// Spurious-interrupt vector and software enable.
pub const SVR: Register = Register(0xf0);
/// Timer entry of the local vector table.
pub const LVT_TIMER: Register = Register(0x320);
/// LINT0 entry.
pub const LVT_LINT0: Register = Register(0x350);
/// LINT1 entry.
pub const LVT_LINT1: Register = Register(0x360);
/// Error entry.
pub const LVT_ERROR: Register = Register(0x370);
/// Initial count.
pub const INITIAL_COUNT: Register = Register(0x380);
/// Current count.
pub const CURRENT_COUNT: Register = Register(0x390);
/// Divide configuration.
pub const DIVIDE: Register = Register(0x3e0);
/// Task priority.
pub const TPR: Register = Register(0x80);
/// The kernel's task priority: vectors 16 to 31, which are exceptions' and which a device can send all the same, wait for ever.
const PRIORITY: u32 = 1;
/// In service: vectors 224 to 255.
pub const ISR_LAST: Register = Register(0x170);
/// Interrupt command, and its upper half in xAPIC mode.
const ICR: Register = Register(0x300);
const ICR_HIGH: Register = Register(0x310);
/// Identifier.
pub const ID: Register = Register(0x20);

static X2APIC: AtomicBool = AtomicBool::new(false);
static MMIO: AtomicU64 = AtomicU64::new(0);

fn is_x2apic() -> bool {
    X2APIC.load(Ordering::Relaxed)
}

impl Register {
    /// In x2APIC mode.
    const fn msr(self) -> Msr {
        Msr(msr::X2APIC.0 + (self.0 >> 4))
    }

    /// In xAPIC mode.
    fn address(self) -> *mut u32 {
        (MMIO.load(Ordering::Relaxed) + u64::from(self.0)) as *mut u32
    }
}

/// Physical address of the registers in xAPIC mode.
pub fn physical_base() -> u64 {
    // SAFETY: every 64-bit processor has it.
    let base = unsafe { msr::APIC_BASE.read() };
    base & 0x000f_ffff_ffff_f000
}

/// Remembers how local APICs are reached. `x2apic`: the processor has that mode; else `mmio` is where the registers are mapped.
pub fn init(x2apic: bool, mmio: u64) {
    X2APIC.store(x2apic, Ordering::Relaxed);
    MMIO.store(mmio, Ordering::Relaxed);
}

/// Turns the local APIC of this CPU on.
pub fn enable() {
    const GLOBAL: u64 = 1 << 11;
    const EXTENDED: u64 = 1 << 10;
    // SAFETY: the local APIC belongs to the kernel; the transitions are those of SDM 3A 11.12.5.
    unsafe {
        let base = msr::APIC_BASE.read();
        msr::APIC_BASE.write(base | GLOBAL);
        if is_x2apic() {
            msr::APIC_BASE.write(base | GLOBAL | EXTENDED);
        }
    }
    write(TPR, PRIORITY << 4);
    write(LVT_LINT0, 1 << 16);
    write(LVT_LINT1, 4 << 8);
    write(LVT_ERROR, 1 << 16);
    write(SVR, 1 << 8 | 0xff);
}

/// This CPU's identifier.
pub fn id() -> u32 {
    let id = read(ID);
    if is_x2apic() { id } else { id >> 24 }
}

/// Reads a register.
pub fn read(register: Register) -> u32 {
    if is_x2apic() {
        // SAFETY: x2APIC mode is on.
        unsafe { register.msr().read() as u32 }
    } else {
        // SAFETY: the registers are mapped.
        unsafe { register.address().read_volatile() }
    }
}

/// Writes a register.
#[inline]
pub fn write(register: Register, value: u32) {
    if is_x2apic() {
        // SAFETY: x2APIC mode is on, and the kernel only writes valid values.
        unsafe { register.msr().write(u64::from(value)) };
    } else {
        // SAFETY: the registers are mapped.
        unsafe { register.address().write_volatile(value) };
    }
}

/// Acknowledges the interrupt being served.
#[inline]
pub fn eoi() {
    write(EOI, 0);
}

/// An interrupt command (SDM 3A 11.6.1): a fixed interrupt.
pub const FIXED: u32 = 0x4000;
/// INIT.
pub const INIT: u32 = 0x4500;
/// Start-up, at the page in bits 0-7.
pub const STARTUP: u32 = 0x4600;

/// Sends `command` to the CPU with that identifier. What this CPU has written before is seen by then.
pub fn send(apic: u32, command: u32) {
    const PENDING: u32 = 1 << 12;
    if is_x2apic() {
        // SAFETY: x2APIC mode is on; only the kernel sends, and only what other CPUs expect. Writing such a register is no fence
        // (SDM 3A 11.12.3).
        unsafe {
            core::arch::asm!("mfence", "lfence", options(nostack, preserves_flags));
            ICR.msr().write(u64::from(apic) << 32 | u64::from(command));
        }
    } else {
        while read(ICR) & PENDING != 0 {
            core::hint::spin_loop();
        }
        write(ICR_HIGH, apic << 24);
        write(ICR, command);
    }
}

/// Makes the local APIC tell the processor once more of the interrupts that it holds.
pub fn look_again() {
    // SAFETY: the task priority is the kernel's, and always this one.
    unsafe {
        core::arch::asm!("mov cr8, {}", in(reg) u64::from(PRIORITY), options(nomem, nostack, preserves_flags))
    };
}
