//! Hypercalls: from registers to kernel objects.

mod control;
mod create;
mod end;
mod grant;

pub use create::release;

use abi::cap::Selector;
use abi::hypercall::{Number, Status};

use crate::arch::cpu::{Cpu, cpu};
use crate::ipc;
use crate::mem::pool;
use crate::object::Ref;
use crate::object::ec::Ec;
use crate::sched;

/// The arguments of a hypercall.
#[derive(Clone, Copy)]
pub struct Args {
    /// Flags from RAX.
    pub flags: u8,
    /// Selector from RAX.
    pub selector: Selector,
    /// RDI.
    pub a1: u64,
    /// RSI.
    pub a2: u64,
    /// R8.
    pub a3: u64,
    /// R9.
    pub a4: u64,
    /// R10.
    pub a5: u64,
}

/// What a hypercall that does not switch returns.
type Outcome = Result<Values, Status>;

/// A success: status, RDI, RSI.
struct Values(Status, u64, u64);

impl Values {
    /// Done, with nothing to return.
    const NONE: Self = Self(Status::Success, 0, 0);

    /// `done` of `count` is done.
    const fn progress(done: u64, count: u64) -> Self {
        Self(if done < count { Status::Partial } else { Status::Success }, done, 0)
    }
}

/// A selector in an argument: 64 bits of which too many may be set.
fn selector(argument: u64) -> Result<Selector, Status> {
    Selector::try_from(argument).map_err(|_| Status::BadCap)
}

/// A hypercall as the SYSENTER stub calls it, for the running context: RSI, RAX, RDI, R8, R9; R10 is in the context's frame.
/// Returns the context to resume.
type Entry = extern "C" fn(&Ec, u64, u64, u64, u64, u64) -> *const Ec;

/// The hypercalls by number.
#[allow(clippy::indexing_slicing, reason = "computed by the compiler, which would refuse it")]
pub static TABLE: [Entry; Number::Destroy as usize + 1] = {
    let mut table: [Entry; Number::Destroy as usize + 1] = [other; Number::Destroy as usize + 1];
    // Those that are called most have a way of their own.
    table[Number::Call as usize] = ipc::call;
    table[Number::Reply as usize] = ipc::reply;
    table[Number::CtrlSm as usize] = control::sm;
    table[Number::Destroy as usize] = end::destroy;
    table
};

/// There is no hypercall with that number.
pub extern "C" fn unknown(ec: &Ec) -> *const Ec {
    fail(Ref::of(ec), Status::BadHypercall)
}

/// The hypercall returns an error, and nothing has happened.
#[cold]
pub fn fail(ec: Ref<Ec>, status: Status) -> *const Ec {
    ec.set_result(status);
    ec.as_ptr()
}

/// All that do not concern messages or semaphores.
extern "C" fn other(ec: &Ec, a2: u64, word: u64, a1: u64, a3: u64, a4: u64) -> *const Ec {
    let (cpu, ec) = (cpu(), Ref::of(ec));
    let a5 = ec.regs().gpr.r10;
    let selector = (word >> 32) as Selector;
    let args = Args { flags: (word >> 8) as u8, selector, a1, a2, a3, a4, a5 };
    finish(cpu, ec, perform(cpu, ec, Number::from_abi(word as u8), args)).as_ptr()
}

fn perform(cpu: &Cpu, ec: Ref<Ec>, number: Option<Number>, args: Args) -> Outcome {
    let pd = &*ec.pd;
    match number.ok_or(Status::BadHypercall)? {
        Number::CreatePd => create::pd(cpu, pd, args),
        Number::CreateSpace => create::space(cpu, pd, args),
        Number::CreateEc => create::ec(cpu, pd, args),
        Number::CreateSc => create::sc(cpu, pd, args),
        Number::CreatePt => create::pt(cpu, pd, args),
        Number::CreateSm => create::sm(cpu, pd, args),
        Number::Grant => grant::grant(pd, args),
        Number::Revoke => grant::revoke(cpu, pd, args),
        Number::CtrlEc => control::ec(cpu, ec, args),
        Number::CtrlSc => control::sc(pd, args),
        Number::CtrlPt => control::pt(pd, args),
        Number::AssignInt => control::interrupt(pd, args),
        Number::CtrlPd => control::pd(ec.pd, args),
        Number::Call | Number::Reply | Number::CtrlSm | Number::Destroy => {
            Err(Status::BadHypercall)
        }
    }
}

/// Sets the results and lets the caller go on, or whoever outranks it now.
fn finish(cpu: &Cpu, ec: Ref<Ec>, outcome: Outcome) -> Ref<Ec> {
    let gpr = &mut ec.regs().gpr;
    (gpr.rax, gpr.rdi, gpr.rsi) = match outcome {
        Ok(Values(status, first, second)) => (status as u64, first, second),
        Err(status) => (status as u64, 0, 0),
    };
    // Of what was made in vain: no processor knows of it.
    pool::reclaim();
    sched::go_on(cpu, ec)
}
