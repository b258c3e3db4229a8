//! Exceptions that exit whether a VMM wants them or not.
//!
//! A guest can make the delivery of #DB raise #DB, or that of #AC raise #AC, for ever: the processor then never comes to the end of an
//! instruction, where interrupts and deadlines are taken. So both always exit, and the kernel delivers them itself. Machine
//! checks are the machine's, not the guest's.

use abi::vcpu::Event;
use hypervisor_logic::vmx::fields::field as f;

use super::instruction::step_in_shadow;
use super::{vcpu, vmcs};
use crate::object::ec::Ec;

const DEBUG: u32 = 1;
const ALIGNMENT_CHECK: u32 = 17;
const MACHINE_CHECK: u32 = 18;

/// Bits of the exception bitmap that are always set.
pub const ALWAYS: u32 = 1 << DEBUG | 1 << ALIGNMENT_CHECK | 1 << MACHINE_CHECK;
/// The one that a VMM cannot have at all.
pub const KEPT: u32 = 1 << MACHINE_CHECK;

/// The first type in an interruption information that is not an interrupt.
const EXCEPTIONS: u32 = 3;
/// Type of the instruction INT1 in an interruption information.
const INT1: u32 = 5;

/// Delivers an exception to the guest that its VMM does not want to see. Returns whether it was such a one.
///
/// `was_delivering`: it came in the middle of the delivery of another event, which has been prepared again. If that is an exception
/// itself, the new one takes its place, and the instruction will raise the old one again (SDM 3A 7.15). An interrupt would be
/// lost: it is tried again instead, exit by exit, until the guest lets it through.
pub fn deliver(ec: &Ec, info: u32, was_delivering: bool) -> bool {
    let vector = info & 0xff;
    if vector == MACHINE_CHECK {
        crate::arch::machine_check::stop();
    }
    let wanted = ec.vcpu.exceptions.get() >> vector & 1 != 0;
    if wanted || !matches!(vector, DEBUG | ALIGNMENT_CHECK) {
        return false;
    }
    if was_delivering && vmcs::read(f::IDT_VECTORING_INFO) >> 8 & 7 < EXCEPTIONS {
        return true;
    }
    if vector == DEBUG {
        debug(ec, info);
    } else {
        vmcs::write(f::ENTRY_EXCEPTION_ERROR, vmcs::read(f::EXIT_INTERRUPTION_ERROR));
        vmcs::write(f::ENTRY_INTERRUPTION_INFO, Event::exception(vector as u8, Some(0)).info);
    }
    true
}

/// The exit has left DR6, DR7 and the pending debug exceptions to software (SDM 3C 28.1, 28.3.4).
fn debug(ec: &Ec, info: u32) {
    /// Breakpoints, access to a debug register, single step.
    const CONDITIONS: u64 = 0x600f;
    const GENERAL_DETECT: u64 = 1 << 13;
    let conditions = vmcs::read(f::EXIT_QUALIFICATION) & CONDITIONS;
    vcpu::set_dr6(ec, ec.vcpu.vmx.dr6.get() & !0xf | conditions);
    vmcs::write(f::GUEST_DR7, vmcs::read(f::GUEST_DR7) & !GENERAL_DETECT);
    if info >> 8 & 7 == INT1 {
        vmcs::write(f::ENTRY_INSTRUCTION_LENGTH, vmcs::read(f::EXIT_INSTRUCTION_LENGTH));
    }
    // Type and vector as they came; bit 12 is reserved at an entry.
    vmcs::write(f::ENTRY_INTERRUPTION_INFO, info & !(1 << 12));
    step_in_shadow();
}
