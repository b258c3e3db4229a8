//! Events to inject, and those whose delivery an exit has cut short.

use abi::vcpu::{EventKind, VcpuState};
use hypervisor_logic::svm::fields::field as f;
use hypervisor_logic::svm::state::{event_from_vmcb, event_to_vmcb};

use super::instruction::advance;
use super::vmcb::Vmcb;
use crate::object::ec::Ec;

const INT3: u8 = 3;
const INTO: u8 = 4;
/// Valid bit of EXITINTINFO and EVENTINJ.
const VALID: u64 = 1 << 31;

/// A software interrupt that was prepared is not to be: its instruction is as if it had not been reached.
pub fn take_back(ec: &Ec, vmcb: Vmcb) {
    if let Some([rip, _]) = ec.vcpu.svm.soft_event.replace(None) {
        vmcb.write(f::GUEST_RIP, rip);
        vmcb.write(f::EVENTINJ, 0);
    }
}

/// Sets the event that the VMM wants to be delivered at the next entry, or none.
pub fn inject(ec: &Ec, vmcb: Vmcb, state: &VcpuState) {
    vmcb.write(f::EVENTINJ, event_to_vmcb(state.event));
    if !state.event.is_valid() {
        return;
    }
    let rip = vmcb.read(f::GUEST_RIP);
    let software = state.event.kind() >= EventKind::SoftwareInterrupt as u8;
    if super::controls().is_some_and(|controls| controls.next_rip) {
        // The processor pushes this address for software interrupts, and for what INT3 and INTO raise (APM 2 15.20).
        vmcb.write(f::NRIP, if software { rip.wrapping_add(state.inst_len) } else { rip });
    } else if software {
        advance(vmcb, state.inst_len);
        ec.vcpu.svm.soft_event.set(Some([rip, vmcb.read(f::GUEST_RIP)]));
    }
}

/// Whether the next entry delivers an interrupt of a device.
#[inline(always)]
pub fn injects_interrupt(vmcb: Vmcb) -> bool {
    const TYPE: u64 = 7 << 8;
    vmcb.read(f::EVENTINJ) & (VALID | TYPE) == VALID
}

/// If the exit came during the delivery of an event, prepares its delivery at the next entry (APM 2 15.7.2, 15.20). Returns the kind
/// of event.
#[inline(always)]
pub fn reinject(ec: &Ec, vmcb: Vmcb) -> Option<EventKind> {
    let interrupted = vmcb.read(f::EXITINTINFO);
    // What was to be injected has been, or it is in EXITINTINFO.
    vmcb.write(f::EVENTINJ, 0);
    if interrupted & VALID == 0 && ec.vcpu.svm.soft_event.get().is_none() {
        return None;
    }
    cut_short(ec, vmcb, interrupted)
}

#[cold]
fn cut_short(ec: &Ec, vmcb: Vmcb, interrupted: u64) -> Option<EventKind> {
    let soft = ec.vcpu.svm.soft_event.replace(None);
    if interrupted & VALID == 0 {
        return None;
    }
    let event = event_from_vmcb(interrupted);
    let kind = match event.kind() {
        kind if kind == EventKind::Interrupt as u8 => EventKind::Interrupt,
        kind if kind == EventKind::Nmi as u8 => EventKind::Nmi,
        kind if kind == EventKind::Exception as u8 && !matches!(event.vector(), INT3 | INTO) => {
            EventKind::Exception
        }
        _ => EventKind::SoftwareInterrupt,
    };
    if kind != EventKind::SoftwareInterrupt {
        vmcb.write(f::EVENTINJ, event_to_vmcb(event));
    } else if let Some([rip, behind]) = soft
        && behind == vmcb.read(f::GUEST_RIP)
    {
        // The instruction is executed again, from where it stands. Elsewhere it is one of the guest's own.
        vmcb.write(f::GUEST_RIP, rip);
    }
    Some(kind)
}
