//! From a VM exit to an event.

use core::sync::atomic::Ordering;

use abi::vcpu::{Exit, blocking};
use hypervisor_logic::vmx::exits::{neutral, reason};
use hypervisor_logic::vmx::fields::field as f;

use super::{exception, vcpu, vmcs};
use crate::arch::cpu::{Cpu, cpu};
use crate::arch::vcpu::{deliver, go_on};
use crate::arch::{entry, interrupts, machine_check};
use crate::log::RING;
use crate::object::Ref;
use crate::object::ec::Ec;
use crate::sched::{self, Next};

/// Bit of the exit reason: the entry failed (SDM 3C 25.9.1).
pub const ENTRY_FAILED: u32 = 1 << 31;
const VALID: u32 = 1 << 31;
const NMI: u32 = 2;
const DOUBLE_FAULT: u32 = 8;
/// Bit of an interruption information field: its type is NMI.
const TYPE: u32 = 7 << 8;
const TYPE_NMI: u32 = 2 << 8;
/// Bit of the exit's interruption information: an IRET ended the blocking of NMIs before it faulted.
const NMI_UNBLOCKED: u32 = 1 << 12;

/// A guest was left. Returns the context to resume.
pub extern "C" fn vm_exit(ec: &Ec) -> *const Ec {
    let cpu = cpu();
    let ec = Ref::of(ec);
    let reason = vmcs::read(f::EXIT_REASON);
    if reason & ENTRY_FAILED != 0 {
        if reason as u16 == reason::MACHINE_CHECK_AT_ENTRY {
            // Nothing else will tell of it (SDM 3C 27.9).
            machine_check::stop();
        }
        return not_entered(cpu, ec);
    }
    // A task's exceptions may overwrite them before the guest goes on.
    ec.vcpu.vmx.cr2.set(x86_64::registers::control::Cr2::read_raw());
    ec.vcpu.vmx.dr6.set(vcpu::dr6());
    let next = match reason as u16 {
        reason::EXTERNAL_INTERRUPT => {
            interrupts::handle(cpu, vmcs::read(f::EXIT_INTERRUPTION_INFO) as u8);
            own(cpu, ec)
        }
        reason::EXCEPTION_OR_NMI
        | reason::EPT_VIOLATION
        | reason::TASK_SWITCH
        | reason::EPT_MISCONFIGURATION => interrupted(cpu, ec, reason as u16),
        other => deliver(cpu, ec, neutral(other)),
    };
    sched::settle(cpu, next).as_ptr()
}

/// The kernel has dealt with the exit: an event that was being delivered is delivered again.
fn own(cpu: &Cpu, ec: Ref<Ec>) -> Next {
    reinject();
    go_on(cpu, ec)
}

/// Exits that can come in the middle of an event's delivery.
#[inline]
fn interrupted(cpu: &Cpu, ec: Ref<Ec>, reason: u16) -> Next {
    let was_delivering = reinject();
    if reason == reason::EXCEPTION_OR_NMI {
        let info = vmcs::read(f::EXIT_INTERRUPTION_INFO);
        if info & TYPE == TYPE_NMI && info & 0xff == NMI {
            RING.nmis.fetch_add(1, Ordering::Relaxed);
            entry::unblock_nmi();
            return own(cpu, ec);
        }
        // Of a double fault the bit is undefined (SDM 3C 28.2.2).
        if info & NMI_UNBLOCKED != 0 && !was_delivering && info & 0xff != DOUBLE_FAULT {
            block_nmis();
        }
        if exception::deliver(&ec, info, was_delivering) {
            // The next exit may be the same: interrupts must not wait for the guest's next instruction.
            entry::open_to_interrupts();
            return go_on(cpu, ec);
        }
        return deliver(cpu, ec, Exit::Exception as u8);
    }
    if reason == reason::EPT_VIOLATION
        && !was_delivering
        && vmcs::read(f::EXIT_QUALIFICATION) & u64::from(NMI_UNBLOCKED) != 0
    {
        block_nmis();
    }
    deliver(cpu, ec, neutral(reason))
}

/// The IRET that faulted will be executed again: NMIs stay blocked until then (SDM 3C 28.2.3).
fn block_nmis() {
    let state = vmcs::read(f::GUEST_INTERRUPTIBILITY);
    vmcs::write(f::GUEST_INTERRUPTIBILITY, state | blocking::NMI);
}

/// If the exit came during the delivery of an event, prepares its delivery at the next entry (SDM 3C 28.2.4). Returns whether it did.
fn reinject() -> bool {
    let info = vmcs::read(f::IDT_VECTORING_INFO);
    if info & VALID == 0 {
        return false;
    }
    // Bit 12 is undefined here and reserved there.
    vmcs::write(f::ENTRY_INTERRUPTION_INFO, info & !NMI_UNBLOCKED);
    if info & 1 << 11 != 0 {
        vmcs::write(f::ENTRY_EXCEPTION_ERROR, vmcs::read(f::IDT_VECTORING_ERROR));
    }
    // Software interrupts and exceptions push the address behind the instruction.
    if matches!(info & TYPE, 0x400 | 0x500 | 0x600) {
        vmcs::write(f::ENTRY_INSTRUCTION_LENGTH, vmcs::read(f::EXIT_INSTRUCTION_LENGTH));
    }
    if info & TYPE == TYPE_NMI {
        let state = vmcs::read(f::GUEST_INTERRUPTIBILITY);
        vmcs::write(f::GUEST_INTERRUPTIBILITY, state & !blocking::NMI);
    }
    true
}

/// VMLAUNCH or VMRESUME refused the controls or the host state, for example an event that cannot be injected.
pub extern "C" fn vm_entry_refused(ec: &Ec) -> *const Ec {
    let cpu = cpu();
    let ec = Ref::of(ec);
    ec.vcpu.vmx.entry_error.set(vmcs::read(f::VM_INSTRUCTION_ERROR));
    not_entered(cpu, ec)
}

/// The guest was not entered. Whether that was at its launch does not matter if the next entry launches it again.
#[cold]
fn not_entered(cpu: &Cpu, ec: Ref<Ec>) -> *const Ec {
    vcpu::start_over(&ec);
    sched::settle(cpu, deliver(cpu, ec, Exit::BadState as u8)).as_ptr()
}
