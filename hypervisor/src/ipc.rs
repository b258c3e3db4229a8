//! Messages between contexts of one CPU: calls, events, replies.
//!
//! A handler is in one of two states: idle, or serving the one caller it is linked with. The links are both ways, `caller` and
//! `callee`; a context whose `callee` is not linked back waits for its turn (see [`crate::sched`]).

use abi::cap::{Perms, Selector};
use abi::fault::{FaultGroups, FaultState};
use abi::hypercall::{EcActivity, EcKind, Status};
use abi::utcb::{MsgTag, Utcb};
use hypervisor_logic::ipc as transfer;

use crate::arch::cpu::Cpu;
use crate::arch::{self, Resume};
use crate::object::ec::{Ec, Retry, State};
use crate::object::pd::{Pd, insert};
use crate::object::pt::Pt;
use crate::object::{Ref, lookup};
use crate::sched;

/// Vector of page faults: the only exceptions with an address.
const PAGE_FAULT: u64 = 14;

/// Address bits of the lower half.
const LOWER_HALF: u64 = (1 << 47) - 1;

/// The message page of a thread or handler.
#[inline(always)]
#[allow(clippy::mut_from_ref)]
fn utcb(ec: &Ec) -> &mut Utcb {
    // SAFETY: threads and handlers have a UTCB for life, in a page of the window. User space can write to it at the same
    // time from another CPU: what is read is data for somebody else, never used by the kernel without a check.
    unsafe { &mut *ec.utcb }
}

/// Links an idle handler with its caller and aims it at the portal.
#[inline(always)]
fn enter(cpu: &Cpu, caller: Ref<Ec>, pt: Ref<Pt>, tag: u64) -> Ref<Ec> {
    let handler = pt.handler;
    caller.callee.set(Some(handler));
    handler.caller.set(Some(caller));
    handler.state.set(State::Ready);
    let regs = handler.regs();
    regs.rip = pt.ip;
    regs.rsp = handler.entry_sp;
    regs.gpr.rdi = pt.id.get();
    regs.gpr.rsi = tag;
    regs.gpr.rax = 0;
    handler.resume.set(Resume::hypercall());
    sched::switch_to(cpu, handler)
}

/// Hypercall `Call`.
#[inline(always)]
pub fn call(cpu: &Cpu, caller: Ref<Ec>, selector: Selector, tag: u64) -> Ref<Ec> {
    let pt = match lookup::<Pt>(&caller.pd, selector, Perms::PT_CALL) {
        Ok(pt) => pt,
        Err(status) => {
            caller.set_result(status);
            return caller;
        }
    };
    let handler = pt.handler;
    if handler.state.get() != State::Idle || handler.cpu != caller.cpu {
        return cannot_enter(cpu, caller, handler, Retry::Call(selector, tag));
    }
    let tag = MsgTag(tag);
    transfer::copy_words(&mut utcb(&handler).words, &utcb(&caller).words, tag);
    if tag.items() != 0 {
        pass_items(&caller, &handler, tag);
    }
    enter(cpu, caller, pt, tag.0)
}

/// The handler is dead, elsewhere, or busy.
#[cold]
fn cannot_enter(cpu: &Cpu, caller: Ref<Ec>, handler: Ref<Ec>, retry: Retry) -> Ref<Ec> {
    let status = if handler.state.get() == State::Dead {
        Status::Aborted
    } else if handler.cpu != caller.cpu {
        Status::BadCpu
    } else {
        caller.retry.set(retry);
        caller.callee.set(Some(handler));
        return sched::preempt(cpu);
    };
    match retry {
        Retry::Event(_) => unhandled(cpu, caller, "its handler is gone or bound to another CPU"),
        Retry::Call(..) | Retry::None => {
            caller.set_result(status);
            sched::switch_to(cpu, caller)
        }
    }
}

/// Does again what a busy handler prevented.
pub fn retry(cpu: &Cpu, ec: Ref<Ec>, retry: Retry) -> Ref<Ec> {
    match retry {
        Retry::None => sched::switch_to(cpu, ec),
        Retry::Call(selector, tag) => {
            let next = call(cpu, ec, selector, tag);
            if next == ec { sched::switch_to(cpu, ec) } else { next }
        }
        Retry::Event(selector) => event(cpu, ec, selector),
    }
}

/// Sends an event of `ec` (a VM exit, or an exception of a thread) to the portal at `selector`.
#[inline(always)]
pub fn event(cpu: &Cpu, ec: Ref<Ec>, selector: Selector) -> Ref<Ec> {
    let Ok(pt) = lookup::<Pt>(&ec.pd, selector, Perms::PT_EVENT) else {
        return unhandled(cpu, ec, "it has no portal for this");
    };
    let handler = pt.handler;
    if handler.state.get() != State::Idle || handler.cpu != ec.cpu || handler == ec {
        return cannot_enter(cpu, ec, handler, Retry::Event(selector));
    }
    ec.event.set(Some(pt));
    ec.event_count.set(ec.event_count.get().wrapping_add(1));
    if ec.kind == EcKind::Vcpu {
        arch::export_state(cpu, &ec, pt.mover.get(), pt.groups.get(), handler.utcb);
    } else {
        export_fault(&ec, FaultGroups(pt.groups.get()), utcb(&handler));
    }
    enter(cpu, ec, pt, pt.groups.get())
}

/// Nobody takes an event: reports it and ends the context.
#[cold]
fn unhandled(cpu: &Cpu, ec: Ref<Ec>, why: &str) -> Ref<Ec> {
    arch::report_event(cpu, &ec, why);
    sched::kill(cpu, ec)
}

/// Hypercall `Reply`: answers the caller, if there is one, and waits for the next.
#[inline(always)]
pub fn reply(cpu: &Cpu, handler: Ref<Ec>, tag: u64) -> Ref<Ec> {
    if handler.kind != EcKind::Handler {
        handler.set_result(Status::BadHypercall);
        return handler;
    }
    handler.state.set(State::Idle);
    let Some(caller) = handler.caller.replace(None) else {
        return sched::block(cpu, None);
    };
    caller.callee.set(None);
    if caller.kind == EcKind::Vcpu {
        arch::import_state(cpu, &caller, tag, handler.utcb);
    } else if caller.event.replace(None).is_some() {
        import_fault(&caller, FaultGroups(tag), utcb(&handler));
    } else {
        let tag = MsgTag(tag);
        transfer::copy_words(&mut utcb(&caller).words, &utcb(&handler).words, tag);
        if tag.items() != 0 {
            pass_items(&handler, &caller, tag);
        }
        let gpr = &mut caller.regs().gpr;
        gpr.rax = Status::Success as u64;
        gpr.rsi = tag.0;
    }
    if cpu.helping.get() {
        return sched::preempt(cpu);
    }
    sched::switch_to(cpu, caller)
}

/// The handler of `first` died: its call returns an error. If it was an event instead, that context dies as well,
/// and so on up the chain. Returns the context that can go on, if one is left.
pub fn abort(first: Ref<Ec>) -> Option<Ref<Ec>> {
    let mut next = Some(first);
    while let Some(ec) = next {
        ec.callee.set(None);
        if ec.event.replace(None).is_none() {
            ec.set_result(Status::Aborted);
            return Some(ec);
        }
        ec.state.set(State::Dead);
        ec.resume.set(Resume::never());
        next = ec.caller.replace(None);
    }
    None
}

/// Passes capabilities from one thread to another.
#[cold]
fn pass_items(from: &Ec, to: &Ec, tag: MsgTag) {
    let source: &Pd = &from.pd;
    let Some(mut table) = to.pd.object_table() else { return };
    let receiver = utcb(to);
    transfer::translate_items(
        &mut receiver.items,
        receiver.window,
        &utcb(from).items,
        tag,
        |selector| source.capability(selector),
        |selector, cap| insert(&mut table, &to.pd.account, selector, cap).is_ok(),
    );
}

/// Shows `ec`, or whoever works on its reply, in the UTCB of `viewer`.
pub fn look(viewer: &Ec, ec: Ref<Ec>) -> EcActivity {
    let Some((end, _)) = sched::end_of_chain(ec) else { return EcActivity::Runs };
    if end.kind != EcKind::Vcpu {
        export_fault(&end, FaultGroups::STATE, utcb(viewer));
    }
    match end.state.get() {
        State::Dead => EcActivity::Dead,
        State::Blocked => EcActivity::Waits,
        State::Idle => EcActivity::Idle,
        State::Ready if end == ec => EcActivity::Runs,
        State::Ready => EcActivity::Served,
    }
}

fn export_fault(ec: &Ec, groups: FaultGroups, utcb: &mut Utcb) {
    let frame = ec.regs();
    let mut state = FaultState::default();
    if groups.0 & FaultGroups::STATE.0 != 0 {
        state.gpr = frame.gpr;
        state.gpr.rsp = frame.rsp;
        state.rip = frame.rip;
        state.rflags = frame.rflags;
    }
    if groups.0 & FaultGroups::CAUSE.0 != 0 {
        state.vector = frame.vector;
        state.error = frame.error;
        state.address = if frame.vector == PAGE_FAULT { frame.gpr.rsp } else { 0 };
    }
    // SAFETY: the state is plain words and fits the UTCB's, as `abi` checks for the larger `VcpuState`.
    unsafe { utcb.words.as_mut_ptr().cast::<FaultState>().write(state) };
}

fn import_fault(ec: &Ec, groups: FaultGroups, utcb: &Utcb) {
    if groups.0 & FaultGroups::STATE.0 == 0 {
        return;
    }
    // SAFETY: as above; any bit pattern is valid.
    let state = unsafe { utcb.words.as_ptr().cast::<FaultState>().read() };
    let frame = ec.regs();
    frame.gpr = state.gpr;
    // IRET faults in ring 0 if they are not canonical.
    frame.rsp = state.gpr.rsp & LOWER_HALF;
    frame.rip = state.rip & LOWER_HALF;
    frame.rflags = arch::user_flags(state.rflags);
}
