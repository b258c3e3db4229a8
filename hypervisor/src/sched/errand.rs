//! What one CPU does for another.
//!
//! A context that runs, or whose registers are in the processor, can only be let go of by the CPU that it is on. Whoever wants that
//! leaves an errand there and asks again later, when it is done. The other CPU does it before its next decision: then
//! nothing is in progress there, and the context is as the errand finds it.

use super::timeout::Owner;
use super::{make_ready, request, unpark_end};
use crate::arch;
use crate::arch::cpu::Cpu;
use crate::list;
use crate::object::Ref;
use crate::object::ec::{Ec, State};

/// What is wanted of a context.
#[derive(Clone, Copy)]
pub enum Errand {
    /// That it stands still.
    Stop(Ref<Ec>),
    /// That it does not run any more.
    End(Ref<Ec>),
    /// That it goes to another CPU.
    Move(Ref<Ec>, Ref<Cpu>),
}

/// Whether its CPU has something of a context that it would have to let go of: it runs there, or its registers are in the processor.
pub fn is_held(ec: Ref<Ec>) -> bool {
    let cpu = ec.cpu.get();
    cpu.current.get() == ec || arch::vcpu::is_loaded(&cpu, &ec)
}

/// Whether that is another CPU than this one.
pub fn is_held_elsewhere(ec: Ref<Ec>) -> bool {
    !ec.cpu.get().is_here() && is_held(ec)
}

/// Leaves an errand with the CPU of a context, if that has none yet: else whoever wants it asks again. Returns whether it was left.
#[cold]
pub fn leave(errand: Errand) -> bool {
    let (Errand::Stop(ec) | Errand::End(ec) | Errand::Move(ec, _)) = errand;
    let cpu = ec.cpu.get();
    let vacant = cpu.errand.get().is_none();
    if vacant {
        cpu.errand.set(Some(errand));
    }
    request(&cpu);
    vacant
}

/// Whatever was asked of the CPU of a context about it is not wanted any more.
pub fn forget(ec: Ref<Ec>) {
    withdraw(ec, |_| true);
}

/// A context stays where it is, whoever asked its CPU before to move it.
pub fn stay(ec: Ref<Ec>) {
    withdraw(ec, |errand| matches!(errand, Errand::Move(..)));
}

fn withdraw(ec: Ref<Ec>, unwanted: impl Fn(Errand) -> bool) {
    let cpu = ec.cpu.get();
    if let Some(errand) = cpu.errand.get()
        && let Errand::Stop(other) | Errand::End(other) | Errand::Move(other, _) = errand
        && other == ec
        && unwanted(errand)
    {
        cpu.errand.set(None);
    }
}

/// Before a decision on `cpu`: does what it was asked for.
#[cold]
pub fn run(cpu: &Cpu, errand: Errand) {
    let (Errand::Stop(ec) | Errand::End(ec) | Errand::Move(ec, _)) = errand;
    let done = match errand {
        Errand::Stop(_) => arch::vcpu::stop(ec).is_ok(),
        Errand::End(_) => {
            stop_for_good(ec);
            true
        }
        Errand::Move(_, to) => is_free(ec) && may_go(ec, to),
    };
    if !done {
        return;
    }
    if cpu.current.get() == ec {
        cpu.idle();
    }
    arch::vcpu::unload(cpu, &ec);
    if let Errand::Move(_, to) = errand {
        relocate(ec, to);
    }
}

/// Whatever a context waits for, it does not go on, and the time that picks it waits for its end.
pub fn stop_for_good(ec: Ref<Ec>) {
    unpark_end(ec);
    list::leave(ec);
    if ec.callee.get().is_some_and(|callee| callee.caller.get() != Some(ec)) {
        // It has not got through to it: that one does not know it any more.
        ec.callee.set(None);
    }
    ec.cpu.get().timeouts.disarm(&ec.timeout);
    if ec.state.get() != State::Dead {
        ec.state.set(State::Ending);
    }
}

/// Whether a context neither calls nor is called: then all that belongs to it goes where it goes.
pub fn is_free(ec: Ref<Ec>) -> bool {
    ec.callee.get().is_none() && ec.caller.get().is_none() && ec.waiters.first().is_none()
}

/// Whether the domain of a context, and whoever pays for its time, may use a CPU.
pub fn may_go(ec: Ref<Ec>, to: Ref<Cpu>) -> bool {
    let payer = ec.sc.get().and_then(|sc| sc.header().payer.get());
    ec.pd.may_use(to.number) && payer.is_none_or(|payer| payer.may_use(to.number))
}

/// Whether the CPU of a context runs on its time: also for a chain of calls that another CPU has just cut.
pub fn is_paying(ec: Ref<Ec>) -> bool {
    ec.sc.get().is_some_and(|sc| ec.cpu.get().current_sc.get() == Some(sc))
}

/// Binds a context that is free, and that its CPU neither holds nor runs on the time of, to another one: with its time, and what it
/// waits for.
pub fn relocate(ec: Ref<Ec>, to: Ref<Cpu>) {
    // One that asked for the same, or something else, before its CPU had let go of it.
    forget(ec);
    ec.vcpu.svm.forget_tag();
    let from = ec.cpu.replace(to);
    ec.kernel_stack.set(to.stack_top);
    if let Some(deadline) = from.timeouts.take_out(&ec.timeout)
        && to.timeouts.arm(&ec.timeout, Owner::Ec(ec), deadline)
    {
        request(&to);
    }
    // Nobody else's time waits for it, so it is either its own or nobody's.
    if let Some(sc) = ec.sc.get()
        && ec.parked.first().is_none()
    {
        from.timeouts.disarm(&sc.refill);
        list::leave(sc);
        make_ready(sc);
    }
}
