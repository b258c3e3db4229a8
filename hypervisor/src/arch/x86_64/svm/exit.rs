//! From an exit to an event.

use hypervisor_logic::svm::exits::{code, neutral};
use hypervisor_logic::svm::fields::field as f;
use hypervisor_logic::svm::intercepts::tlb_control;

use super::event::reinject;
use super::vmcb::Vmcb;
use super::{exception, nmi, vcpu};
use crate::arch::cpu::{Cpu, cpu};
use crate::arch::vcpu::{deliver, go_on};
use crate::arch::{entry, lapic};
use crate::object::Ref;
use crate::object::ec::Ec;
use crate::sched::{self, Next};
use abi::vcpu::EventKind;

/// A guest was left. Returns the context to resume.
pub extern "C" fn vm_exit(ec: &Ec) -> *const Ec {
    let cpu = cpu();
    let ec = Ref::of(ec);
    let vmcb = Vmcb::of(&ec);
    if super::is_emulated_by_qemu() && cpu.timer.is_due() {
        // It changes its set of pending interrupts without the lock under which devices add to it. One of the timer that is lost
        // would be missed for ever; all others are found with it.
        lapic::look_again();
    }
    let code = vmcb.read(f::EXITCODE);
    if code > code::NPF {
        return refused(cpu, ec, vmcb, code);
    }
    vmcb.all_clean();
    vmcb.write(f::TLB_CONTROL, tlb_control::NONE);
    let was_delivering = reinject(&ec, vmcb);
    if !ec.vcpu.svm.nmi.is_quiet() {
        nmi::watch(&ec, vmcb, code == code::EXCEPTION_0 + 1);
    }
    let next = match code {
        code::INTR => {
            // Unlike an exit of VT-x this one leaves the interrupt where it was.
            entry::open_to_interrupts();
            go_on(cpu, ec)
        }
        // The kernel's handler had it as soon as the global interrupt flag was set again.
        code::NMI => go_on(cpu, ec),
        code::IRET => {
            nmi::at_iret(&ec, vmcb);
            go_on(cpu, ec)
        }
        code @ code::EXCEPTION_0..=code::EXCEPTION_31 => {
            let vector = (code - code::EXCEPTION_0) as u8;
            exception(cpu, ec, vector, was_delivering)
        }
        code => deliver(cpu, ec, neutral(code, vmcb.read(f::EXITINFO1))),
    };
    sched::settle(cpu, next).as_ptr()
}

/// A code beyond those of exits: the guest was not entered. Nothing is promised of what the processor has loaded, flushed or written
/// back then, so everything is made anew; the event is as it was.
#[cold]
fn refused(cpu: &Cpu, ec: Ref<Ec>, vmcb: Vmcb, code: u64) -> *const Ec {
    vmcb.none_clean();
    cpu.tags().renew();
    vmcb.write(f::EXITINTINFO, 0);
    vcpu::own(&ec);
    if super::is_emulated_by_qemu() {
        // It has saved the kernel's registers there.
        vmcb.forget_state();
    }
    let next = deliver(cpu, ec, neutral(code, vmcb.read(f::EXITINFO1)));
    sched::settle(cpu, next).as_ptr()
}

fn exception(cpu: &Cpu, ec: Ref<Ec>, vector: u8, was_delivering: Option<EventKind>) -> Next {
    if exception::deliver(&ec, vector, was_delivering) {
        // The next exit may be the same: interrupts must not wait for the guest's next instruction.
        entry::open_to_interrupts();
        return go_on(cpu, ec);
    }
    deliver(cpu, ec, abi::vcpu::Exit::Exception as u8)
}
