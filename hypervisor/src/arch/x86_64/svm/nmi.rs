//! NMIs of guests.
//!
//! VT-x blocks virtual NMIs after one is delivered and has an exit for the end of that. Here software has to watch (APM 2 15.21.9): an
//! injected NMI blocks others until the guest executes IRET, which is intercepted before it is executed.
//!
//! ```text
//!        inject                IRET intercepted            left IRET behind
//! Open ─────────► Blocked ───────────────────► Leaving(rip) ───────────────► Open
//! ```
//!
//! A VMM that waits for the window while an instruction must come first, an IRET or the one behind STI or MOV SS, gets it
//! after a single step of the guest.

use hypervisor_logic::svm::fields::field as f;
use hypervisor_logic::svm::state::event_from_vmcb;

use super::vcpu;
use super::vmcb::Vmcb;
use crate::arch::state::TRAP;
use crate::object::ec::Ec;
use crate::sync::Guarded;
use abi::vcpu::EventKind;

/// Whether a guest can take an NMI.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Blocking {
    /// It can.
    Open,
    /// It handles one.
    Blocked,
    /// It is about to execute the IRET at this address.
    Leaving(u64),
}

/// A single step that the guest does not know of.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Step {
    /// Whether the guest single-steps itself.
    guest_steps: bool,
    /// The IRET that is stepped over, which brings flags of its own.
    iret: Option<u64>,
    dr6: u64,
}

/// What the kernel keeps of a guest's NMIs.
pub struct Nmi {
    blocking: Guarded<Blocking>,
    step: Guarded<Option<Step>>,
    /// Whether the VMM waits for the window.
    pub window: Guarded<bool>,
}

/// DR6.BS.
const SINGLE_STEP: u64 = 1 << 14;
/// What else a debug exception can be due to: breakpoints, access to a debug register, a task switch.
const CONDITIONS: u64 = 0xa00f;

impl Nmi {
    /// Of a virtual CPU that has not run.
    pub const fn new() -> Self {
        Self {
            blocking: Guarded::new(Blocking::Open),
            step: Guarded::new(None),
            window: Guarded::new(false),
        }
    }

    /// Whether there is nothing to watch.
    #[inline(always)]
    pub fn is_quiet(&self) -> bool {
        self.blocking.get() == Blocking::Open && self.step.get().is_none()
    }

    /// Whether IRET has to exit.
    pub fn watches_iret(&self) -> bool {
        self.blocking.get() == Blocking::Blocked
    }
}

/// Whether an NMI is to be delivered at the next entry.
fn is_injected(vmcb: Vmcb) -> bool {
    let event = event_from_vmcb(vmcb.read(f::EVENTINJ));
    event.is_valid() && event.kind() == EventKind::Nmi as u8
}

/// Whether NMIs are blocked, as the state image tells it: not yet by one that is to be delivered.
pub fn is_blocked(ec: &Ec) -> bool {
    ec.vcpu.svm.nmi.blocking.get() != Blocking::Open && !is_injected(Vmcb::of(ec))
}

/// The VMM has set the blocking of NMIs, or the event to inject.
pub fn update(ec: &Ec, blocked: bool) {
    let (nmi, vmcb) = (&ec.vcpu.svm.nmi, Vmcb::of(ec));
    let closed = blocked || is_injected(vmcb);
    // With an event to deliver, or elsewhere, that IRET does not come next.
    let iret = (vmcb.read(f::EVENTINJ) >> 31 & 1 == 0).then(|| vmcb.read(f::GUEST_RIP));
    nmi.blocking.set(match nmi.blocking.get() {
        leaving @ Blocking::Leaving(rip) if blocked && Some(rip) == iret => leaving,
        _ if closed => Blocking::Blocked,
        _ => Blocking::Open,
    });
    vcpu::intercept(ec);
    look_again(ec);
}

/// The VMM waits for the window, or no longer.
pub fn set_window(ec: &Ec, on: bool) {
    ec.vcpu.svm.nmi.window.set(on);
    look_again(ec);
}

fn look_again(ec: &Ec) {
    if ec.vcpu.svm.nmi.window.get() {
        ec.vcpu.attention.set(true);
    }
}

/// The guest is about to execute IRET.
pub fn at_iret(ec: &Ec, vmcb: Vmcb) {
    ec.vcpu.svm.nmi.blocking.set(Blocking::Leaving(vmcb.read(f::GUEST_RIP)));
    vcpu::intercept(ec);
    look_again(ec);
}

/// After an exit, if there is something to watch. `debug`: the exit is a debug exception.
#[cold]
pub fn watch(ec: &Ec, vmcb: Vmcb, debug: bool) {
    let nmi = &ec.vcpu.svm.nmi;
    if let Blocking::Leaving(iret) = nmi.blocking.get()
        && iret != vmcb.read(f::GUEST_RIP)
    {
        nmi.blocking.set(Blocking::Open);
        look_again(ec);
    }
    if !debug && let Some(step) = nmi.step.replace(None) {
        undo(vmcb, step);
        look_again(ec);
    }
}

/// Before an entry: whether the window is open and the VMM waits for it. If only an instruction is in the way, the guest is
/// made to stop behind it.
pub fn reaches_window(ec: &Ec) -> bool {
    let nmi = &ec.vcpu.svm.nmi;
    if !nmi.window.get() {
        return false;
    }
    let vmcb = Vmcb::of(ec);
    if vmcb.read(f::EVENTINJ) >> 31 & 1 != 0 {
        // The event comes first; the flags it pushes must be the guest's own. The next exit looks again.
        ec.vcpu.attention.set(true);
        return false;
    }
    match nmi.blocking.get() {
        Blocking::Blocked => {}
        Blocking::Open if vmcb.read(f::INTERRUPT_SHADOW) & 1 == 0 => {
            // It is open until the VMM does not wait for it any more.
            ec.vcpu.attention.set(true);
            return true;
        }
        Blocking::Open => step(nmi, vmcb, None),
        Blocking::Leaving(iret) => step(nmi, vmcb, Some(iret)),
    }
    false
}

fn step(nmi: &Nmi, vmcb: Vmcb, iret: Option<u64>) {
    if nmi.step.get().is_none() {
        let flags = vmcb.read(f::GUEST_RFLAGS);
        let guest_steps = flags & TRAP != 0;
        let dr6 = vmcb.read(f::GUEST_DR6);
        nmi.step.set(Some(Step { guest_steps, iret, dr6 }));
        // Conditions stay in DR6 until software clears them: only new ones shall be seen.
        vmcb.write(f::GUEST_DR6, dr6 & !CONDITIONS);
        vmcb.write(f::GUEST_RFLAGS, flags | TRAP);
    }
}

fn undo(vmcb: Vmcb, step: Step) {
    let reloaded = step.iret.is_some_and(|iret| iret != vmcb.read(f::GUEST_RIP));
    vmcb.write(f::GUEST_DR6, vmcb.read(f::GUEST_DR6) | step.dr6 & CONDITIONS);
    if !step.guest_steps && !reloaded {
        vmcb.write(f::GUEST_RFLAGS, vmcb.read(f::GUEST_RFLAGS) & !TRAP);
    }
}

/// A debug exception: whether it is due to nothing but the kernel's own step.
pub fn ends_step(ec: &Ec) -> bool {
    let Some(step) = ec.vcpu.svm.nmi.step.replace(None) else { return false };
    let vmcb = Vmcb::of(ec);
    let others = vmcb.read(f::GUEST_DR6) & CONDITIONS != 0;
    undo(vmcb, step);
    look_again(ec);
    if !step.guest_steps {
        let dr6 = vmcb.read(f::GUEST_DR6);
        vmcb.write(f::GUEST_DR6, dr6 & !SINGLE_STEP | step.dr6 & SINGLE_STEP);
    }
    !step.guest_steps && !others
}
