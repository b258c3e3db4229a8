//! The end of the instruction that exited.
//!
//! A VMM that has carried an instruction out replies with [`Groups::DONE`]; what the processor does at the end of one is done here.
//! Most replies say that and little else, and have a way of their own.

use abi::utcb::Utcb;
use abi::vcpu::{Exit, Groups, VcpuState, blocking};
use hypervisor_logic::vmx::controls::EntryControls;
use hypervisor_logic::vmx::fields::field as f;

use super::{vcpu, vmcs};
use crate::arch::cpu::Cpu;
use crate::arch::state::{RESUME, TRAP, copy_registers};
use crate::arch::vcpu::has_length;
use crate::object::ec::Ec;

/// Of the pending debug exceptions: a single step (SDM 3C 25.4.2).
const PENDING_STEP: u64 = 1 << 14;

/// What keeps interrupts away from the next instruction.
pub const SHADOW: u32 = blocking::STI | blocking::MOV_SS;

/// The usual reply to an exit, see [`crate::arch::complete_instruction`]. Returns whether it was one; if not, nothing has been done.
#[inline(always)]
pub fn complete(cpu: &Cpu, ec: &Ec, mask: u64, utcb: *mut Utcb) -> bool {
    if mask & !Groups::ACDB.0 != Groups::DONE.0 || !vcpu::can_go_on(cpu, ec) {
        return false;
    }
    // SAFETY: the handler has a UTCB for life; a state fits its words, any bit pattern is valid.
    let state = unsafe { &*utcb.cast::<VcpuState>() };
    let old = vmcs::read(f::GUEST_RIP);
    let rip = old.wrapping_add(instruction_length(ec).unwrap_or(state.inst_len));
    let flags = vmcs::read(f::GUEST_RFLAGS);
    if (rip ^ old) >> 32 != 0 || flags & TRAP != 0 || in_shadow() {
        return false;
    }
    vmcs::write(f::GUEST_RIP, rip);
    // What exits like a fault leaves RF set (SDM 3C 28.3.3).
    if flags & RESUME != 0 {
        vmcs::write(f::GUEST_RFLAGS, flags & !RESUME);
    }
    if mask & Groups::ACDB.0 != 0 {
        copy_registers::<{ Groups::ACDB.0 }>(mask, &state.gpr, &mut ec.regs().gpr);
    }
    true
}

/// The length of the instruction that exited, if the processor tells it. Of the exceptions, those of INT3, INTO and INT1 have one.
#[inline(always)]
pub fn instruction_length(ec: &Ec) -> Option<u64> {
    const SOFTWARE: core::ops::RangeInclusive<u32> = 4..=6;
    let software = || {
        ec.vcpu.last_exit.get() == Exit::Exception as u8
            && SOFTWARE.contains(&(vmcs::read(f::EXIT_INTERRUPTION_INFO) >> 8 & 7))
    };
    (has_length(ec) || software()).then(|| vmcs::read(f::EXIT_INSTRUCTION_LENGTH).into())
}

/// Moves behind the instruction that exited.
pub fn next_instruction(ec: &Ec, state: &VcpuState) {
    let old = vmcs::read(f::GUEST_RIP);
    let mut rip = old.wrapping_add(instruction_length(ec).unwrap_or(state.inst_len));
    if (rip ^ old) >> 32 != 0 && !in_64_bit_mode() {
        rip &= 0xffff_ffff;
    }
    vmcs::write(f::GUEST_RIP, rip);
}

/// What the processor does at the end of an instruction: blocking ends, a single step traps (SDM 3B 18.3.1.4).
pub fn finish_instruction() {
    let state = vmcs::read(f::GUEST_INTERRUPTIBILITY);
    if state & SHADOW != 0 {
        vmcs::write(f::GUEST_INTERRUPTIBILITY, state & !SHADOW);
    }
    let flags = vmcs::read(f::GUEST_RFLAGS);
    if flags & RESUME != 0 {
        vmcs::write(f::GUEST_RFLAGS, flags & !RESUME);
    }
    if flags & TRAP != 0 {
        single_step();
    }
}

/// Moves the guest. Elsewhere, nothing is pending of what was pending behind another instruction, unless that is `done`.
pub fn move_to(rip: u64, done: bool) {
    if !done && vmcs::read(f::GUEST_RIP) != rip {
        vmcs::write(f::GUEST_PENDING_DEBUG, 0);
    }
    vmcs::write(f::GUEST_RIP, rip);
}

/// The VMM has changed what decides whether a step is pending: a guest that does not single-step has none.
pub fn start_instruction() {
    if vmcs::read(f::GUEST_RFLAGS) & TRAP == 0 {
        vmcs::write(f::GUEST_PENDING_DEBUG, vmcs::read(f::GUEST_PENDING_DEBUG) & !PENDING_STEP);
    }
    step_in_shadow();
}

/// In the shadow of STI or MOV SS the step of a guest that single-steps must be pending for the entry to be valid (SDM 3C 27.3.1.5).
pub fn step_in_shadow() {
    if in_shadow() && vmcs::read(f::GUEST_RFLAGS) & TRAP != 0 {
        single_step();
    }
}

#[inline(always)]
fn in_shadow() -> bool {
    vmcs::read(f::GUEST_INTERRUPTIBILITY) & SHADOW != 0
}

#[cold]
fn in_64_bit_mode() -> bool {
    const LONG: u32 = 1 << 13;
    vmcs::read(f::GUEST_CS.rights) & LONG != 0 && long_mode()
}

pub fn long_mode() -> bool {
    EntryControls::from_bits_retain(vmcs::read(f::ENTRY_CONTROLS))
        .contains(EntryControls::IA32E_MODE_GUEST)
}

/// The guest single-steps: the trap is pending (SDM 3C 25.4.2).
#[cold]
fn single_step() {
    const BRANCHES: u64 = 1 << 1;
    // With IA32_DEBUGCTL.BTF only branches trap, and no instruction that exits is one.
    if vmcs::read(f::GUEST_DEBUGCTL) & BRANCHES == 0 {
        vmcs::write(f::GUEST_PENDING_DEBUG, vmcs::read(f::GUEST_PENDING_DEBUG) | PENDING_STEP);
    }
}
