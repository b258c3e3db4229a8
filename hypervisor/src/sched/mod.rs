//! Who runs next.
//!
//! A scheduling context belongs to one execution context for good. Who runs on it is found by following the calls of
//! that one: a caller's time is its handler's. If the handler at the end was called by somebody else, it runs
//! all the same, on the time of whoever needs it done (helping): so a low-priority caller in front cannot hold up a high-priority one
//! behind it for longer than its own call takes.

pub mod errand;
pub mod ready;
pub mod timeout;

use core::sync::atomic::{AtomicU64, Ordering};

use abi::hypercall::Status;
use hypervisor_logic::sched::BudgetState;

use crate::arch::cpu::Cpu;
use crate::arch::{self, Resume};
use crate::object::Ref;
use crate::object::ec::{Ec, Retry, State};
use crate::object::sc::Sc;
use crate::{ipc, list};
use timeout::Owner;

/// Who goes on. `None`: the running scheduling context was put away, so somebody has to decide anew, at the top and not from inside
/// a decision.
pub type Next = Option<Ref<Ec>>;

/// Longest chain of calls that is followed; of a longer one a call fails.
pub const MAX_CHAIN: usize = 64;

/// The least budget of a scheduling context, in time-stamp-counter ticks: 10 microseconds. With less, the decisions would take more
/// time than the work.
static LEAST_BUDGET: AtomicU64 = AtomicU64::new(0);

/// Tells how fast the time-stamp counter runs.
pub fn set_tsc_hz(hz: u64) {
    LEAST_BUDGET.store(hz / 100_000, Ordering::Relaxed);
}

/// The least budget of a scheduling context.
pub fn least_budget() -> u64 {
    LEAST_BUDGET.load(Ordering::Relaxed).max(1)
}

/// Makes a context that waited for a semaphore ready again; its hypercall returns `status`.
#[inline(always)]
pub fn wake(ec: Ref<Ec>, status: Status) {
    // The timer may now fire before anything is due, which does no harm.
    ec.cpu.get().timeouts.disarm(&ec.timeout);
    ec.state.set(State::Ready);
    ec.set_result(status);
    unpark(ec);
}

/// Makes whatever was parked on `ec` ready.
#[inline(always)]
pub fn unpark(ec: Ref<Ec>) {
    while let Some(sc) = ec.parked.pop() {
        make_ready(sc);
    }
}

/// Makes whatever was parked on `ec`, or where its calls lead, ready: one that is ending can have both.
pub fn unpark_end(ec: Ref<Ec>) {
    unpark(ec);
    if let Some((end, _)) = end_of_chain(ec) {
        unpark(end);
    }
}

/// Puts a scheduling context into the ready queue of its CPU, and asks for a new decision there if it outranks the running one.
#[inline(always)]
pub fn make_ready(sc: Ref<Sc>) {
    let cpu = sc.ec.cpu.get();
    cpu.ready.push_back(sc);
    let outranks = cpu.current_sc.get().is_none_or(|current| sc.priority > current.priority);
    if outranks {
        request(&cpu);
    }
}

/// A decision is due on `cpu`.
#[inline(always)]
pub fn request(cpu: &Cpu) {
    cpu.reschedule.set(true);
    cpu.kick();
}

/// The running context goes on, unless a decision is due.
#[inline(always)]
pub fn go_on(cpu: &Cpu, ec: Ref<Ec>) -> Ref<Ec> {
    if cpu.reschedule.get() { preempt(cpu) } else { ec }
}

/// Puts the running scheduling context back in front of its equals, and decides anew.
#[cold]
pub fn preempt(cpu: &Cpu) -> Ref<Ec> {
    let now = arch::tsc();
    put_back(cpu, now);
    dispatch_at(cpu, now)
}

/// Puts the running scheduling context back in front of its equals. The caller decides anew.
pub fn put_back(cpu: &Cpu, now: u64) {
    if let Some(sc) = leave(cpu, now) {
        cpu.ready.push_front(sc);
    }
}

/// Goes on with whom an operation named, or decides.
#[inline(always)]
pub fn settle(cpu: &Cpu, next: Next) -> Ref<Ec> {
    next.unwrap_or_else(|| dispatch(cpu))
}

/// Charges the running scheduling context for its time and takes it off the CPU.
#[inline(always)]
fn leave(cpu: &Cpu, now: u64) -> Option<Ref<Sc>> {
    let sc = cpu.current_sc.replace(None)?;
    let used = now.saturating_sub(cpu.since.get());
    sc.consumed.set(sc.consumed.get().wrapping_add(used));
    sc.budget().charge(used, now);
    Some(sc)
}

/// The running context cannot go on: parks its time on it, and decides anew.
#[inline(always)]
pub fn block(cpu: &Cpu, ec: Ref<Ec>) -> Ref<Ec> {
    let now = arch::tsc();
    let is_followed = |sc: Ref<Sc>| sc.ec == ec || end_of_chain(sc.ec).is_some();
    if cpu.reschedule.get() || !cpu.current_sc.get().is_some_and(is_followed) {
        // Another CPU may just have ended the call for which that time was here, or it is nested too deep for a later decision to find it.
        put_back(cpu, now);
    } else if let Some(sc) = leave(cpu, now) {
        ec.parked.push_back(sc);
    }
    dispatch_at(cpu, now)
}

/// Follows the calls of a context down to the one that can do something.
#[inline(always)]
pub fn end_of_chain(start: Ref<Ec>) -> Option<(Ref<Ec>, bool)> {
    let mut ec = start;
    let mut helping = false;
    for _ in 0..MAX_CHAIN {
        let Some(callee) = ec.callee.get() else { return Some((ec, helping)) };
        if callee.caller.get() != Some(ec) {
            // `ec` has not got through to its callee: it can now, or it helps.
            if callee.state.get() == State::Idle || callee.state.get() == State::Dead {
                return Some((ec, helping));
            }
            helping = true;
        }
        ec = callee;
    }
    None
}

/// Picks the scheduling context to run and the execution context to run on it.
pub fn dispatch(cpu: &Cpu) -> Ref<Ec> {
    dispatch_at(cpu, arch::tsc())
}

#[inline(never)]
fn dispatch_at(cpu: &Cpu, mut now: u64) -> Ref<Ec> {
    loop {
        cpu.reschedule.set(false);
        if let Some(errand) = cpu.errand.replace(None) {
            errand::run(cpu, errand);
        }
        let Some(sc) = cpu.ready.pop() else {
            cpu.current_sc.set(None);
            program_timer(cpu, u64::MAX);
            return cpu.idle();
        };
        let slice_end = match sc.budget().state(now) {
            BudgetState::Depleted(until) => {
                cpu.timeouts.arm(&sc.refill, Owner::Sc(sc), until);
                continue;
            }
            BudgetState::RotateEqual => {
                cpu.ready.push_back(sc);
                continue;
            }
            BudgetState::Run(until) => until,
        };
        let Some((ec, helping)) = end_of_chain(sc.ec) else {
            ipc::give_up(sc.ec);
            cpu.ready.push_back(sc);
            continue;
        };
        match ec.state.get() {
            State::Ready => {}
            State::Blocked | State::Stopped | State::Idle | State::Ending => {
                ec.parked.push_back(sc);
                continue;
            }
            State::Dead => continue,
        }
        cpu.current_sc.set(Some(sc));
        cpu.helping.set(helping);
        cpu.since.set(now);
        program_timer(cpu, slice_end);
        let next = match ec.retry.replace(Retry::None) {
            Retry::None => switch_to(cpu, ec),
            retry => {
                ec.callee.set(None);
                list::leave(ec);
                ipc::retry(cpu, ec, retry)
            }
        };
        match next {
            Some(next) if !cpu.reschedule.get() => return next,
            Some(_) => put_back(cpu, now),
            // That time is charged: it is not the next one's as well.
            None => now = arch::tsc(),
        }
    }
}

/// Makes a thread or handler the one that the exit path resumes.
#[inline(always)]
pub fn switch_to_thread(cpu: &Cpu, ec: Ref<Ec>) -> Ref<Ec> {
    cpu.current.set(ec);
    arch::space::load(cpu, ec)
}

/// Makes `ec` the one that the exit path resumes.
#[inline(always)]
pub fn switch_to(cpu: &Cpu, ec: Ref<Ec>) -> Next {
    cpu.current.set(ec);
    arch::load_context(cpu, ec)
}

/// Programs the timer for the earliest of the timeouts and `slice_end`.
#[inline(always)]
fn program_timer(cpu: &Cpu, slice_end: u64) {
    cpu.slice_end.set(slice_end);
    cpu.timer.program(slice_end.min(cpu.timeouts.next()));
}

/// Programs the timer anew after the timeouts have changed.
pub fn refresh_timer(cpu: &Cpu) {
    cpu.timer.program(cpu.slice_end.get().min(cpu.timeouts.next()));
}

/// The timer fired: does some of what is due, and asks for a decision if the running budget is used up.
pub fn tick(cpu: &Cpu) {
    /// How many timeouts are served with interrupts off.
    const AT_ONCE: usize = 8;
    let now = arch::tsc();
    for _ in 0..AT_ONCE {
        let Some(owner) = cpu.timeouts.expired(now) else { break };
        match owner {
            Owner::Sc(sc) => make_ready(sc),
            Owner::Ec(ec) if ec.state.get() == State::Blocked => {
                list::leave(ec);
                wake(ec, Status::Timeout);
            }
            Owner::Ec(ec) => arch::deadline_passed(ec),
        }
    }
    if now >= cpu.slice_end.get() {
        // Preempting charges the time, and deciding puts it behind its equals or lets it wait.
        cpu.reschedule.set(true);
        // Until that decision, which programs the timer, it is not to come again and again.
        cpu.slice_end.set(u64::MAX);
    }
    // If more is due, its time is past and the timer fires as soon as interrupts are on.
    refresh_timer(cpu);
}

/// Ends a context that nobody can help: it never runs again. Its caller gets an error and goes on, on the time that paid; time that
/// only helped goes back to its owner. Whose owner is dead is dropped when it is picked.
pub fn kill(cpu: &Cpu, ec: Ref<Ec>) -> Next {
    ec.state.set(State::Dead);
    ec.resume.set(Resume::never());
    let survivor = ec.caller.replace(None).and_then(ipc::abort);
    if let Some(caller) = survivor
        && !cpu.helping.get()
    {
        return switch_to(cpu, caller);
    }
    put_back(cpu, arch::tsc());
    None
}
