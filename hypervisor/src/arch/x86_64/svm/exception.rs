//! Exceptions that exit whether a VMM wants them or not: for the same reasons as on VT-x, see [`crate::arch::vmx::exception`].

use abi::vcpu::{Event, EventKind};
use hypervisor_logic::svm::fields::field as f;
use hypervisor_logic::svm::state::event_to_vmcb;

use super::nmi;
use super::vmcb::Vmcb;
use crate::arch::machine_check;
use crate::object::ec::Ec;

pub use crate::arch::vmx::exception::ALWAYS;

const DEBUG: u8 = 1;
const ALIGNMENT_CHECK: u8 = 17;
const MACHINE_CHECK: u8 = 18;

/// Delivers an exception to the guest that its VMM does not want to see. Returns whether it was such a one.
///
/// `was_delivering`: it came in the middle of the delivery of an event of that kind. An exception takes the place of another; the
/// instruction will raise that again. An interrupt would be lost: it is tried again instead.
pub fn deliver(ec: &Ec, vector: u8, was_delivering: Option<EventKind>) -> bool {
    if vector == MACHINE_CHECK {
        machine_check::stop();
    }
    if vector == DEBUG && nmi::ends_step(ec) {
        return true;
    }
    if ec.vcpu.exceptions.get() >> (vector & 31) & 1 != 0 {
        return false;
    }
    if matches!(was_delivering, Some(EventKind::Interrupt | EventKind::Nmi)) {
        return true;
    }
    let vmcb = Vmcb::of(ec);
    // DR6 and DR7 are as the guest's handler shall find them (APM 2 15.12.2).
    let error = if vector == ALIGNMENT_CHECK { Some(vmcb.read(f::EXITINFO1) as u32) } else { None };
    vmcb.write(f::EVENTINJ, event_to_vmcb(Event::exception(vector, error)));
    true
}
