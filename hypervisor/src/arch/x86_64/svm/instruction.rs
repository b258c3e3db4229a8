//! The end of the instruction that exited.

use abi::utcb::Utcb;
use abi::vcpu::{Event, Exit, Groups, VcpuState};
use hypervisor_logic::svm::fields::field as f;
use hypervisor_logic::svm::qualification::port_length;
use hypervisor_logic::svm::state::event_to_vmcb;

use super::vcpu;
use super::vmcb::Vmcb;
use crate::arch::cpu::Cpu;
use crate::arch::state::{RESUME, TRAP, copy_registers};
use crate::arch::vcpu::has_length;
use crate::object::ec::Ec;

/// The usual reply to an exit, see [`crate::arch::complete_instruction`]. Returns whether it was one; if not, nothing has been done.
#[inline(always)]
pub fn complete(cpu: &Cpu, ec: &Ec, mask: u64, utcb: *mut Utcb) -> bool {
    if mask & !Groups::ACDB.0 != Groups::DONE.0 || !vcpu::can_go_on(cpu, ec) {
        return false;
    }
    // SAFETY: the handler has a UTCB for life; a state fits its words, any bit pattern is valid.
    let state = unsafe { &*utcb.cast::<VcpuState>() };
    let vmcb = Vmcb::of(ec);
    let flags = vmcb.read(f::GUEST_RFLAGS);
    let old = vmcb.read(f::GUEST_RIP);
    let rip = old.wrapping_add(instruction_length(ec, vmcb).unwrap_or(state.inst_len));
    if flags & TRAP != 0 || vmcb.read(f::INTERRUPT_SHADOW) & 1 != 0 || (rip ^ old) >> 32 != 0 {
        return false;
    }
    vmcb.write(f::GUEST_RIP, rip);
    vmcb.write(f::GUEST_RFLAGS, flags & !RESUME);
    if mask & Groups::ACDB.0 != 0 {
        vmcb.write(f::GUEST_RAX, state.gpr.rax);
        copy_registers::<{ Groups::ACDB.0 }>(mask, &state.gpr, &mut ec.regs().gpr);
    }
    true
}

/// The length of the instruction that exited, if the processor tells it.
#[inline(always)]
pub fn instruction_length(ec: &Ec, vmcb: Vmcb) -> Option<u64> {
    let rip = vmcb.read(f::GUEST_RIP);
    let length = if ec.vcpu.last_exit.get() == Exit::Port as u8 {
        port_length(rip, vmcb.read(f::EXITINFO2))
    } else if has_length(ec) && super::controls().is_some_and(|controls| controls.next_rip) {
        vmcb.read(f::NRIP).wrapping_sub(rip)
    } else {
        0
    };
    // Not of a task switch, where next RIP is 0: so what is no length is not taken for one.
    (1..=15).contains(&length).then_some(length)
}

/// Moves behind the instruction that exited.
pub fn next_instruction(ec: &Ec, vmcb: Vmcb, state: &VcpuState) {
    advance(vmcb, instruction_length(ec, vmcb).unwrap_or(state.inst_len));
}

/// Moves RIP by the length of an instruction.
pub fn advance(vmcb: Vmcb, len: u64) {
    const LONG: u16 = 1 << 9;
    const LONG_MODE_ACTIVE: u64 = 1 << 10;
    let old = vmcb.read(f::GUEST_RIP);
    let mut rip = old.wrapping_add(len);
    let in_64_bit_mode = vmcb.read(f::GUEST_CS.attributes) & LONG != 0
        && vmcb.read(f::GUEST_EFER) & LONG_MODE_ACTIVE != 0;
    if (rip ^ old) >> 32 != 0 && !in_64_bit_mode {
        rip &= 0xffff_ffff;
    }
    vmcb.write(f::GUEST_RIP, rip);
}

/// What the processor does at the end of an instruction: blocking ends, a single step traps. The VMCB has no pending debug
/// exceptions: the trap is injected, with what it leaves in DR6 (APM 2 13.1.1).
pub fn finish_instruction(vmcb: Vmcb) {
    const DEBUG: u8 = 1;
    const SINGLE_STEP: u64 = 1 << 14;
    const BRANCHES: u64 = 1 << 1;
    vmcb.write(f::INTERRUPT_SHADOW, vmcb.read(f::INTERRUPT_SHADOW) & !1);
    let flags = vmcb.read(f::GUEST_RFLAGS);
    vmcb.write(f::GUEST_RFLAGS, flags & !RESUME);
    let steps = flags & TRAP != 0 && vmcb.read(f::GUEST_DBGCTL) & BRANCHES == 0;
    if steps && vmcb.read(f::EVENTINJ) >> 31 & 1 == 0 {
        vmcb.write(f::GUEST_DR6, vmcb.read(f::GUEST_DR6) | SINGLE_STEP);
        vmcb.write(f::EVENTINJ, event_to_vmcb(Event::exception(DEBUG, None)));
    }
}
