//! Messages between contexts of one CPU: calls, events, replies.
//!
//! A handler is in one of two states: idle, or serving the one caller it is linked with. The links are both ways, `caller` and
//! `callee`; a context whose `callee` is not linked back waits for its turn (see [`crate::sched`]).

use abi::cap::{Perms, Selector};
use abi::fault::{FaultGroups, FaultState};
use abi::hypercall::{EcActivity, Status};
use abi::utcb::{MsgTag, Utcb};
use hypervisor_logic::ipc as transfer;

use crate::arch::cpu::{Cpu, cpu};
use crate::arch::{self, Resume};
use crate::hypercall::fail;
use crate::list;
use crate::object::ec::{Ec, Kind, Retry, State};
use crate::object::pd::{Pd, insert};
use crate::object::pt::Pt;
use crate::object::{Ref, lookup};
use crate::sched::{self, Next};

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

/// A message tag up to this is that of a short message: a few words, no items.
const SHORT: u64 = 4;

/// Copies a short message, and not a word more: what lies behind it may be another client's.
#[inline(always)]
fn copy_short(to: &Ec, from: &Ec, tag: u64) {
    let (to, from) = (&mut utcb(to).words, &utcb(from).words);
    if tag != 0 {
        to[0] = from[0];
        if tag != 1 {
            to[1] = from[1];
            if tag != 2 {
                to[2] = from[2];
                if tag != 3 {
                    to[3] = from[3];
                }
            }
        }
    }
}

/// Copies any message, and passes its items.
#[cold]
fn copy_long(to: &Ec, from: &Ec, tag: MsgTag) {
    transfer::copy_words(&mut utcb(to).words, &utcb(from).words, tag);
    if tag.items() != 0 {
        pass_items(from, to, tag);
    }
}

/// Links an idle handler with its caller and aims it at the portal.
#[inline(always)]
fn enter(cpu: &Cpu, caller: Ref<Ec>, pt: Ref<Pt>, tag: u64) -> Ref<Ec> {
    let handler = pt.handler.get();
    caller.callee.set(Some(handler));
    handler.caller.set(Some(caller));
    handler.state.set(State::Ready);
    let regs = handler.regs();
    regs.rip = pt.ip;
    regs.rsp = handler.entry_sp;
    regs.gpr.rdi = pt.id.get();
    regs.gpr.rsi = tag;
    regs.gpr.rax = 0;
    // It became idle by a hypercall, or is new: it resumes accordingly.
    sched::switch_to_thread(cpu, handler)
}

/// Hypercall `Call`. A short message to an idle handler goes through without a further call.
pub extern "C" fn call(ec: &Ec, tag: u64, word: u64, _: u64, _: u64, _: u64) -> *const Ec {
    let caller = Ref::of(ec);
    let Ok(pt) = lookup::<Pt>(&caller.pd, (word >> 32) as Selector, Perms::PT_CALL) else {
        return fail(caller, Status::BadCap);
    };
    let handler = pt.handler.get();
    if handler.state.get() != State::Idle || handler.cpu.get() != caller.cpu.get() || tag > SHORT {
        return call_slowly(caller, tag, (word >> 32) as Selector);
    }
    copy_short(&handler, &caller, tag);
    enter(cpu(), caller, pt, tag).as_ptr()
}

#[inline(never)]
fn call_slowly(caller: Ref<Ec>, tag: u64, selector: Selector) -> *const Ec {
    let cpu = cpu();
    sched::settle(cpu, call_again(cpu, caller, selector, tag)).as_ptr()
}

/// A call of any kind, also one that had to wait.
fn call_again(cpu: &Cpu, caller: Ref<Ec>, selector: Selector, tag: u64) -> Next {
    let Ok(pt) = lookup::<Pt>(&caller.pd, selector, Perms::PT_CALL) else {
        caller.set_result(Status::BadCap);
        return sched::switch_to(cpu, caller);
    };
    let handler = pt.handler.get();
    if handler.state.get() != State::Idle || handler.cpu.get() != caller.cpu.get() {
        return cannot_enter(cpu, caller, handler, Retry::Call(selector, tag));
    }
    let tag = MsgTag(tag);
    copy_long(&handler, &caller, tag);
    Some(enter(cpu, caller, pt, tag.0))
}

/// The handler is dead, elsewhere, the caller itself, or busy.
#[cold]
fn cannot_enter(cpu: &Cpu, caller: Ref<Ec>, handler: Ref<Ec>, retry: Retry) -> Next {
    let status = if handler.state.get() == State::Dead || handler == caller {
        Status::Aborted
    } else if handler.cpu.get() != caller.cpu.get() {
        Status::BadCpu
    } else {
        caller.retry.set(retry);
        caller.callee.set(Some(handler));
        handler.waiters.push_back(caller);
        sched::put_back(cpu, arch::tsc());
        return None;
    };
    match retry {
        Retry::Event(_) => unhandled(cpu, caller, "nobody can serve its portal for this"),
        Retry::Call(..) | Retry::None => {
            caller.set_result(status);
            sched::switch_to(cpu, caller)
        }
    }
}

/// The calls that start at `ec` form a circle, or a chain that is too long: the call of the first one that waits for its callee fails, or
/// else of the last one to which they are followed; its callee finishes for nobody. If it is an event, that context ends.
#[cold]
pub fn give_up(ec: Ref<Ec>) {
    let mut caller = ec;
    for _ in 1..sched::MAX_CHAIN {
        match (caller.retry.get(), caller.callee.get()) {
            (Retry::None, Some(callee)) => caller = callee,
            _ => break,
        }
    }
    if let Some(callee) = caller.callee.get() {
        // Whoever helped does not come this way any more.
        sched::unpark_end(callee);
        if callee.caller.get() == Some(caller) {
            callee.caller.set(None);
        }
    }
    if let Retry::Event(_) = caller.retry.replace(Retry::None) {
        caller.in_event.set(true);
    }
    abort(caller);
}

/// Does again what a busy handler prevented.
pub fn retry(cpu: &Cpu, ec: Ref<Ec>, retry: Retry) -> Next {
    match retry {
        Retry::None => sched::switch_to(cpu, ec),
        Retry::Call(selector, tag) => call_again(cpu, ec, selector, tag),
        Retry::Event(selector) => event(cpu, ec, selector),
    }
}

/// Sends an event of `ec` (a VM exit, or an exception of a thread) to the portal at `selector`.
#[inline(always)]
pub fn event(cpu: &Cpu, ec: Ref<Ec>, selector: Selector) -> Next {
    let Ok(pt) = lookup::<Pt>(&ec.pd, selector, Perms::PT_EVENT) else {
        return unhandled(cpu, ec, "it has no portal for this");
    };
    let handler = pt.handler.get();
    if handler.state.get() != State::Idle || handler.cpu.get() != ec.cpu.get() {
        return cannot_enter(cpu, ec, handler, Retry::Event(selector));
    }
    ec.in_event.set(true);
    ec.event_count.set(ec.event_count.get().wrapping_add(1));
    if ec.kind.is_vcpu() {
        arch::export_state(cpu, &ec, pt.mover.get(), pt.groups.get(), handler.utcb);
    } else {
        export_fault(&ec, FaultGroups(pt.groups.get()), utcb(&handler));
    }
    Some(enter(cpu, ec, pt, pt.groups.get()))
}

/// Nobody takes an event: reports it and ends the context.
#[cold]
fn unhandled(cpu: &Cpu, ec: Ref<Ec>, why: &str) -> Next {
    arch::report_event(cpu, &ec, why);
    sched::kill(cpu, ec)
}

/// Hypercall `Reply`: answers the caller, if there is one, and waits for the next. The usual answers to a call and to an exit
/// go through without a further call.
pub extern "C" fn reply(ec: &Ec, tag: u64, _: u64, _: u64, _: u64, _: u64) -> *const Ec {
    let (cpu, handler) = (cpu(), Ref::of(ec));
    let Some(caller) = handler.caller.get() else { return reply_slowly(handler, tag) };
    if cpu.helping.get() {
        return reply_slowly(handler, tag);
    }
    if caller.kind.is_vcpu() {
        if !arch::complete_instruction(cpu, &caller, tag, handler.utcb) {
            return reply_slowly(handler, tag);
        }
        unlink(handler, caller);
        cpu.current.set(caller);
        return caller.as_ptr();
    }
    if caller.in_event.get() || tag > SHORT {
        return reply_slowly(handler, tag);
    }
    unlink(handler, caller);
    copy_short(&caller, &handler, tag);
    answered(caller, tag);
    sched::switch_to_thread(cpu, caller).as_ptr()
}

#[inline(always)]
fn unlink(handler: Ref<Ec>, caller: Ref<Ec>) {
    handler.state.set(State::Idle);
    handler.caller.set(None);
    caller.callee.set(None);
    caller.in_event.set(false);
}

#[inline(always)]
fn answered(caller: Ref<Ec>, tag: u64) {
    let gpr = &mut caller.regs().gpr;
    gpr.rax = Status::Success as u64;
    gpr.rsi = tag;
}

/// A reply of any kind.
#[inline(never)]
fn reply_slowly(handler: Ref<Ec>, tag: u64) -> *const Ec {
    let cpu = cpu();
    if handler.kind != Kind::Handler {
        return fail(handler, Status::BadHypercall);
    }
    let Some(caller) = handler.caller.get() else {
        handler.state.set(State::Idle);
        // Its caller has ended meanwhile. Whoever helped gets through to it now, and whose time was left goes on.
        return sched::preempt(cpu).as_ptr();
    };
    let in_event = caller.in_event.get();
    unlink(handler, caller);
    if caller.kind.is_vcpu() {
        if !cpu.helping.get() && arch::complete_late(cpu, &caller, tag, handler.utcb) {
            cpu.current.set(caller);
            return caller.as_ptr();
        }
        arch::import_state(cpu, &caller, tag, handler.utcb);
    } else if in_event {
        import_fault(&caller, FaultGroups(tag), utcb(&handler));
    } else {
        let tag = MsgTag(tag);
        copy_long(&caller, &handler, tag);
        answered(caller, tag.0);
    }
    if cpu.helping.get() {
        return sched::preempt(cpu).as_ptr();
    }
    sched::settle(cpu, sched::switch_to(cpu, caller)).as_ptr()
}

/// The handler of `first` died: its call returns an error. If it was an event instead, that context dies as well,
/// and so on up the chain. Returns the context that can go on, if one is left.
pub fn abort(first: Ref<Ec>) -> Option<Ref<Ec>> {
    let mut next = Some(first);
    while let Some(ec) = next {
        ec.callee.set(None);
        list::leave(ec);
        if !ec.in_event.replace(false) {
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
    // A server in another domain is none of the viewer's business.
    if !end.kind.is_vcpu() && end.pd == ec.pd {
        export_fault(&end, FaultGroups::STATE, utcb(viewer));
    }
    match end.state.get() {
        State::Dead | State::Ending => EcActivity::Dead,
        State::Blocked => EcActivity::Waits,
        State::Stopped => EcActivity::Stopped,
        State::Idle => EcActivity::Idle,
        State::Ready if end == ec => EcActivity::Runs,
        State::Ready => EcActivity::Served,
    }
}

fn export_fault(ec: &Ec, groups: FaultGroups, utcb: &mut Utcb) {
    // It may run, or be about to wait for the lock, on another CPU: what is seen then is neither here nor there.
    // SAFETY: numbers in an object that stays.
    let frame = unsafe { ec.frame.as_ptr().read_volatile() };
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
