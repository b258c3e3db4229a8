//! The groups of a virtual CPU's state that are in the same place on both vendors' processors, or in none of them.

use abi::vcpu::{Gprs, Groups, VcpuState};

use super::cpu::Cpu;
use super::fpu;
use super::vcpu::{breakpoints, set_breakpoints, set_deadline, wants};
use super::vmx::exception::KEPT;
use crate::object::Ref;
use crate::object::ec::Ec;

/// RFLAGS.TF.
pub const TRAP: u64 = 1 << 8;
/// RFLAGS.RF.
pub const RESUME: u64 = 1 << 16;

/// Copies the general registers that `mask` names; RSP is in the control structure.
#[inline(always)]
pub fn copy_registers<const KNOWN: u64>(mask: u64, from: &Gprs, to: &mut Gprs) {
    if wants::<KNOWN>(mask, Groups::ACDB) {
        to.rax = from.rax;
        to.rcx = from.rcx;
        to.rdx = from.rdx;
        to.rbx = from.rbx;
    }
    if wants::<KNOWN>(mask, Groups::BSD) {
        to.rbp = from.rbp;
        to.rsi = from.rsi;
        to.rdi = from.rdi;
    }
    if wants::<KNOWN>(mask, Groups::R8_R15) {
        to.r8 = from.r8;
        to.r9 = from.r9;
        to.r10 = from.r10;
        to.r11 = from.r11;
        to.r12 = from.r12;
        to.r13 = from.r13;
        to.r14 = from.r14;
        to.r15 = from.r15;
    }
}

/// Reads what the kernel keeps itself.
pub fn export(cpu: &Cpu, ec: &Ec, mask: u64, state: &mut VcpuState) {
    let wants = |group: Groups| mask & group.0 != 0;
    if wants(Groups::CONTROL) {
        state.exceptions = ec.vcpu.exceptions.get();
        [state.cr0_mask, state.cr4_mask] = ec.vcpu.masks.get();
    }
    if wants(Groups::DEADLINE) {
        state.deadline = ec.vcpu.deadline.get();
    }
    if wants(Groups::DR) {
        state.dr = breakpoints(cpu, ec);
    }
    if wants(Groups::XSAVE) {
        // Not what was last set for it: QEMU does not intercept XSETBV.
        state.xcr0 = fpu::xcr0();
        state.xss = 0;
    }
}

/// Writes it, of a virtual CPU that is loaded.
pub fn import(ec: &Ec, mask: u64, state: &VcpuState) {
    let wants = |group: Groups| mask & group.0 != 0;
    if wants(Groups::CONTROL) {
        ec.vcpu.exceptions.set(state.exceptions & !KEPT);
        ec.vcpu.masks.set([state.cr0_mask, state.cr4_mask]);
    }
    if wants(Groups::DEADLINE) {
        set_deadline(Ref::of(ec), state.deadline);
    }
    if wants(Groups::DR) {
        set_breakpoints(ec, state.dr);
    }
    // Another thread can change the page meanwhile, and XSETBV faults with what is not valid: read once, then checked.
    // SAFETY: a number in a message page.
    let xcr0 = unsafe { (&raw const state.xcr0).read_volatile() };
    if wants(Groups::XSAVE) && fpu::valid_xcr0(xcr0) {
        ec.vcpu.xcr0.set(xcr0);
        fpu::set_xcr0(xcr0);
    }
}

/// The system-call registers that a state asks for, in the order STAR, LSTAR, CSTAR, FMASK, KERNEL_GS_BASE, TSC_AUX: addresses
/// are made canonical, what has 32 bits is cut to them.
pub fn system_call(state: &VcpuState) -> [u64; 6] {
    let canonical = |address: u64| ((address as i64) << 16 >> 16) as u64;
    let low = |value: u64| value & 0xffff_ffff;
    let (lstar, cstar) = (canonical(state.lstar), canonical(state.cstar));
    let gs_base = canonical(state.kernel_gs_base);
    [state.star, lstar, cstar, low(state.fmask), gs_base, low(state.tsc_aux)]
}

/// DR6 with the bits that are always set (SDM 3B 18.2.3).
pub const fn dr6(value: u64) -> u64 {
    value & 0xe00f | 0xffff_0ff0
}
