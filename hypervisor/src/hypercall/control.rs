//! Acting on objects.

use abi::cap::{Perms, Selector};
use abi::hypercall::{EcOp, FOREVER, IntMode, PdOp, SmOp, Status};
use abi::vcpu::Groups;

use super::{Args, Outcome, Values, fail};
use crate::arch::cpu::{self, Cpu};
use crate::arch::{self, interrupts};
use crate::object::ec::{Ec, State};
use crate::object::pd::Pd;
use crate::object::pt::Pt;
use crate::object::sc::Sc;
use crate::object::sm::Sm;
use crate::object::{Ref, lookup};
use crate::sched::errand::{self, Errand};
use crate::sched::timeout::Owner;
use crate::{ipc, sched};

/// Hypercall `CtrlSm`. What does not block or wake anybody is done without a call.
pub extern "C" fn sm(ec: &Ec, deadline: u64, word: u64, _: u64, _: u64, _: u64) -> *const Ec {
    let ec = Ref::of(ec);
    let (operation, selector) = ((word >> 8) as u8, (word >> 32) as Selector);
    // Two look-ups, so that each knows what it looks for when it is compiled.
    if operation == SmOp::Up as u8 {
        let Ok(sm) = lookup::<Sm>(&ec.pd, selector, Perms::SM_UP) else {
            return fail(ec, Status::BadCap);
        };
        if !sm.try_up() {
            return wake(ec, sm);
        }
    } else {
        let Ok(sm) = lookup::<Sm>(&ec.pd, selector, Perms::SM_DOWN) else {
            return fail(ec, Status::BadCap);
        };
        if operation != SmOp::Down as u8 || sm.interrupt.is_some() || !sm.try_down(false) {
            return down(ec, sm, operation, deadline);
        }
    }
    ec.set_result(Status::Success);
    ec.as_ptr()
}

/// Somebody waits.
#[inline(never)]
fn wake(ec: Ref<Ec>, sm: Ref<Sm>) -> *const Ec {
    ec.set_result(Status::Success);
    sm.up();
    sched::go_on(cpu::cpu(), ec).as_ptr()
}

/// All but a simple down that succeeds.
#[inline(never)]
fn down(ec: Ref<Ec>, sm: Ref<Sm>, operation: u8, deadline: u64) -> *const Ec {
    let all = operation == SmOp::DownAll as u8;
    if !all && operation != SmOp::Down as u8 {
        return fail(ec, Status::BadHypercall);
    }
    if let Some(interrupt) = sm.interrupt {
        interrupts::acknowledge(interrupt);
    }
    ec.set_result(Status::Success);
    if sm.try_down(all) {
        return ec.as_ptr();
    }
    if deadline != FOREVER && deadline <= arch::tsc() {
        return fail(ec, Status::Timeout);
    }
    let cpu = cpu::cpu();
    ec.state.set(State::Blocked);
    sm.queue.push_back(ec);
    if deadline != FOREVER {
        cpu.timeouts.arm(&ec.timeout, Owner::Ec(ec), deadline);
    }
    // Deciding programs the timer for the new deadline.
    sched::block(cpu, ec).as_ptr()
}

/// Hypercall `CtrlEc`.
pub fn ec(cpu: &Cpu, caller: Ref<Ec>, args: Args) -> Outcome {
    let ec = lookup::<Ec>(&caller.pd, args.selector, Perms::EC_CTRL)?;
    let operation = EcOp::from_abi(args.flags).ok_or(Status::BadHypercall)?;
    let groups = args.a2 & !Groups::DONE.0;
    match operation {
        EcOp::Look => {
            let activity = ipc::look(&caller, ec);
            return Ok(Values(Status::Success, activity as u64, ec.event_count.get()));
        }
        EcOp::Move => return move_to(caller, ec, args.a2),
        _ if !ec.kind.is_vcpu() => return Err(Status::BadParam),
        EcOp::Recall => arch::recall(ec),
        EcOp::Stop => arch::vcpu::stop(ec)?,
        EcOp::Go => arch::vcpu::go(ec),
        EcOp::Read => arch::vcpu::access(cpu, ec, false, groups, caller.utcb)?,
        EcOp::Write => arch::vcpu::access(cpu, ec, true, groups, caller.utcb)?,
    }
    Ok(Values::NONE)
}

/// Binds a context to another CPU.
fn move_to(caller: Ref<Ec>, ec: Ref<Ec>, number: u64) -> Outcome {
    let to = cpu::find(number).ok_or(Status::BadCpu)?;
    if !errand::may_go(ec, to) {
        return Err(Status::BadCpu);
    }
    if matches!(ec.state.get(), State::Dead | State::Ending) {
        return Err(Status::Aborted);
    }
    if ec.cpu.get() == to {
        errand::stay(ec);
        return Ok(Values::NONE);
    }
    if !errand::is_free(ec) {
        return Err(Status::Busy);
    }
    if errand::is_held(ec) || errand::is_paying(ec) {
        let left = errand::leave(Errand::Move(ec, to));
        // Who moves himself is there when this returns.
        return if left && ec == caller { Ok(Values::NONE) } else { Err(Status::Busy) };
    }
    errand::relocate(ec, to);
    Ok(Values::NONE)
}

/// Hypercall `CtrlSc`.
pub fn sc(caller: &Pd, args: Args) -> Outcome {
    let sc = lookup::<Sc>(caller, args.selector, Perms::SC_CTRL)?;
    let cpu = sc.ec.cpu.get();
    let running = cpu.current_sc.get() == Some(sc);
    let since = if running { arch::tsc().saturating_sub(cpu.since.get()) } else { 0 };
    Ok(Values(Status::Success, sc.consumed.get().wrapping_add(since), 0))
}

/// Hypercall `CtrlPt`.
pub fn pt(caller: &Pd, args: Args) -> Outcome {
    let pt = lookup::<Pt>(caller, args.selector, Perms::PT_CTRL)?;
    pt.configure(args.a2, args.a3);
    Ok(Values::NONE)
}

/// Hypercall `AssignInt`.
pub fn interrupt(caller: &Pd, args: Args) -> Outcome {
    let sm = lookup::<Sm>(caller, args.selector, Perms::SM_BIND)?;
    let interrupt = sm.interrupt.ok_or(Status::BadParam)?;
    let mode = u8::try_from(args.a2).ok().filter(|mode| *mode < 4).ok_or(Status::BadParam)?;
    let cpu = cpu::find(args.a3).filter(|cpu| caller.may_use(cpu.number)).ok_or(Status::BadCpu)?;
    interrupts::assign(interrupt, sm, IntMode(mode), &cpu)?;
    Ok(Values::NONE)
}

/// Hypercall `CtrlPd`.
pub fn pd(caller: Ref<Pd>, args: Args) -> Outcome {
    let pd = lookup::<Pd>(&caller, args.selector, Perms::PD_QUOTA)?;
    let pages = args.a2;
    if args.flags != PdOp::Read as u8 && pd.parent() != Some(caller) {
        return Err(Status::BadParam);
    }
    match args.flags {
        flags if flags == PdOp::Read as u8 => {}
        flags if flags == PdOp::Give as u8 => caller.account.transfer(&pd.account, pages)?,
        flags if flags == PdOp::Take as u8 => pd.account.transfer(&caller.account, pages)?,
        _ => return Err(Status::BadHypercall),
    }
    let (free, limit) = pd.account.level();
    Ok(Values(Status::Success, free, limit))
}
