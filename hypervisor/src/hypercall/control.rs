//! Acting on objects.

use abi::cap::Perms;
use abi::hypercall::{EcKind, EcOp, FOREVER, IntMode, PdOp, SmOp, Status};

use super::{Args, Outcome, Values};
use crate::arch::cpu::Cpu;
use crate::arch::{self, interrupts};
use crate::object::ec::{Ec, State};
use crate::object::pd::Pd;
use crate::object::pt::Pt;
use crate::object::sc::Sc;
use crate::object::sm::Sm;
use crate::object::{Ref, lookup};
use crate::sched::timeout::Owner;
use crate::{ipc, sched};

/// Hypercall `CtrlSm`.
#[inline(always)]
pub fn semaphore(cpu: &Cpu, ec: Ref<Ec>, args: Args) -> Ref<Ec> {
    let up = args.flags == SmOp::Up as u8;
    let need = if up { Perms::SM_UP } else { Perms::SM_DOWN };
    let sm = match lookup::<Sm>(&ec.pd, args.selector, need) {
        Ok(sm) => sm,
        Err(status) => {
            ec.set_result(status);
            return ec;
        }
    };
    ec.set_result(Status::Success);
    if up {
        sm.up();
        return sched::go_on(cpu, ec);
    }
    let all = args.flags == SmOp::DownAll as u8;
    if !all && args.flags != SmOp::Down as u8 {
        ec.set_result(Status::BadHypercall);
        return ec;
    }
    if let Some(interrupt) = sm.interrupt.get() {
        interrupts::acknowledge(interrupt);
    }
    if sm.try_down(all) { ec } else { wait(cpu, ec, sm, args.a2) }
}

/// Waits for a semaphore until `deadline`.
fn wait(cpu: &Cpu, ec: Ref<Ec>, sm: Ref<Sm>, deadline: u64) -> Ref<Ec> {
    if deadline <= arch::tsc() {
        ec.set_result(Status::Timeout);
        return ec;
    }
    ec.state.set(State::Blocked);
    sm.enqueue(ec);
    if deadline != FOREVER {
        cpu.timeouts.arm(&ec.timeout, Owner::Ec(ec), deadline);
    }
    // Deciding programs the timer for the new deadline.
    sched::block(cpu, Some(ec))
}

/// Hypercall `CtrlEc`.
pub fn ec(caller: Ref<Ec>, args: Args) -> Outcome {
    let ec = lookup::<Ec>(&caller.pd, args.selector, Perms::EC_CTRL)?;
    match args.flags {
        flags if flags == EcOp::Recall as u8 => {
            if ec.kind != EcKind::Vcpu {
                return Err(Status::BadParam);
            }
            arch::recall(ec);
            Ok(Values::NONE)
        }
        flags if flags == EcOp::Look as u8 => {
            let activity = ipc::look(&caller, ec);
            Ok(Values(Status::Success, activity as u64, ec.event_count.get()))
        }
        _ => Err(Status::BadHypercall),
    }
}

/// Hypercall `CtrlSc`.
pub fn sc(cpu: &Cpu, caller: &Pd, args: Args) -> Outcome {
    let sc = lookup::<Sc>(caller, args.selector, Perms::SC_CTRL)?;
    let running = cpu.current_sc.get() == Some(sc);
    let since = if running { arch::tsc().wrapping_sub(cpu.since.get()) } else { 0 };
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
    let interrupt = sm.interrupt.get().ok_or(Status::BadParam)?;
    let mode = u8::try_from(args.a2).ok().filter(|mode| *mode < 4).ok_or(Status::BadParam)?;
    if args.a3 != 0 {
        return Err(Status::BadCpu);
    }
    interrupts::assign(interrupt, sm, IntMode(mode))?;
    Ok(Values::NONE)
}

/// Hypercall `CtrlPd`.
pub fn pd(caller: Ref<Pd>, args: Args) -> Outcome {
    let pd = lookup::<Pd>(&caller, args.selector, Perms::PD_QUOTA)?;
    let pages = args.a2;
    if args.flags != PdOp::Read as u8 && !pd.is_child_of(caller) {
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
