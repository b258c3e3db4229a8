//! Each CPU runs what it was given, and nothing that another may not have.

use alloc::vec::Vec;

use abi::cap::own;
use abi::hypercall::{EcActivity, Status};
use abi::utcb::{MsgTag, Utcb};
use runtime::handler::Handler;
use runtime::hypercall;
use runtime::pd::{Limits, Pd};
use runtime::protocol::startup::Share;
use runtime::selector::FREE;
use runtime::task::{Defaults, cpus, defaults};
use runtime::thread::Thread;

use super::domain::Domain;
use super::worker::{
    Counter, apic_ids, end, handler_on, nap, others, show, slice, spawn_on, until, workers,
};
use crate::kernel::threads::STACK;
use crate::report::{Bench, Check, Test};
use crate::{check, check_eq, format};

pub const TESTS: &[Test] = &[
    ("place.processors", processors),
    ("place.at-once", at_once),
    ("place.absent", absent),
    ("place.limits", limits),
    ("place.calls", calls),
    ("place.events", events),
];

/// Whether the threads of one CPU are all on one processor, and those of different ones are not.
fn processors(bench: &mut Bench<'_>) -> Check {
    let ids = apic_ids(bench)?;
    // For the table of tests, which knows how many there are.
    bench.say(format_args!("SMP cpus {}", ids.len()));
    check!(ids.len() > 1, "there is one CPU only");
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    sorted.dedup();
    check_eq!(sorted.len(), ids.len(), "different processors of {ids:?}");
    check_eq!(apic_ids(bench)?, ids, "the processors a second time");
    Ok(())
}

/// Threads that never rest, one on each CPU: all of them get on, and each has its CPU to itself.
fn at_once(bench: &mut Bench<'_>) -> Check {
    let counters: Vec<_> =
        cpus().map(|cpu| Counter::new(cpu, slice(bench, 2))).collect::<Result<_, _>>()?;
    for counter in &counters {
        counter.goes_on(bench)?;
    }
    let consumed = || counters.iter().map(|counter| counter.thread.sc.consumed().map_err(show));
    let counts = || counters.iter().map(Counter::count).collect::<Vec<_>>();
    for _ in 0..5 {
        let (start, count) = (runtime::clock::now(), counts());
        let before: Vec<u64> = consumed().collect::<Result<_, _>>()?;
        nap(bench, 20_000);
        let after: Vec<u64> = consumed().collect::<Result<_, _>>()?;
        let time = runtime::clock::now() - start;
        for (cpu, (before, after)) in before.into_iter().zip(after).enumerate() {
            let used = after - before;
            check!(used > time / 10 * 9 && used < time / 10 * 11, "CPU {cpu}: {used} of {time}");
        }
        for (cpu, (before, after)) in count.into_iter().zip(counts()).enumerate() {
            check!(after > before + 20, "CPU {cpu} counted from {before} to {after}");
        }
    }
    counters.into_iter().try_for_each(|counter| end(counter.thread))
}

fn absent(bench: &mut Bench<'_>) -> Check {
    let new = FREE.one().map_err(show)?;
    let first_absent = cpus().count() as u16;
    let utcb = 0x6000_0000_0000;
    for cpu in [first_absent, 63, 64, 255, 256, u16::MAX] {
        if cpu < first_absent {
            continue;
        }
        // SAFETY: it gets no time.
        let thread = unsafe { hypercall::create_thread(new, own::PD, (cpu, 0), (utcb, 0, 0)) };
        check_eq!(thread, Err(Status::BadCpu), "a thread on CPU {cpu}");
        // SAFETY: nobody calls it.
        let handler = unsafe { hypercall::create_handler(new, own::PD, (cpu, 0), (utcb, 0)) };
        check_eq!(handler, Err(Status::BadCpu), "a handler on CPU {cpu}");
    }
    let counter = Counter::new(0, slice(bench, 2))?;
    for cpu in [first_absent, 64, u16::MAX] {
        check_eq!(counter.thread.ec.move_to(cpu), Err(Status::BadCpu), "moving to CPU {cpu}");
    }
    counter.goes_on(bench)?;
    end(counter.thread)
}

/// A domain cannot have a CPU that it was not given.
fn limits(bench: &mut Bench<'_>) -> Check {
    let share = slice(bench, 2);
    for allowed in cpus() {
        let domain = Domain::new(bench, Limits { priority: 2, cpus: 1 << allowed })?;
        for cpu in cpus() {
            let thread = domain.thread(cpu, cpu.into());
            if cpu != allowed {
                check_eq!(thread.err(), Some(Status::BadCpu), "CPU {cpu} of {allowed} only");
                continue;
            }
            let ec = thread.map_err(show)?;
            for elsewhere in cpus().filter(|elsewhere| *elsewhere != allowed) {
                check_eq!(ec.move_to(elsewhere), Err(Status::BadCpu), "moving to {elsewhere}");
            }
            check_eq!(ec.move_to(allowed), Ok(true), "moving to where it is");
        }
        // Nor its child, whatever that was promised.
        let child = domain.pd.create_pd_within(20, Limits::NONE).map_err(show)?;
        let new = FREE.one().map_err(show)?;
        let elsewhere = cpus().find(|cpu| *cpu != allowed).unwrap_or(0);
        // SAFETY: it gets no time; the domain has no memory of this task's.
        let made = unsafe {
            hypercall::create_thread(new, child.selector(), (elsewhere, 0), (0x6000_0000, 0, 0))
        };
        check_eq!(made, Err(Status::BadCpu), "a child's thread");
        // It cannot pay for time of another CPU, even if the thread is somebody else's.
        let counter = Counter::new(elsewhere, share)?;
        let sc = counter.thread.sc.selector();
        // SAFETY: a scheduling context is no memory.
        unsafe { hypercall::destroy(sc) }.map_err(show)?;
        let time = (share.priority, share.budget, share.period);
        let ec = counter.thread.ec.selector();
        let paid = hypercall::create_sc(sc, domain.pd.selector(), ec, time);
        check_eq!(paid, Err(Status::BadCpu), "paying for CPU {elsewhere}");
        hypercall::create_sc(sc, own::PD, ec, time).map_err(show)?;
        counter.goes_on(bench)?;
        end(counter.thread)?;
        // What it pays for keeps the thread where it may pay.
        let counter = Counter::new(allowed, share)?;
        let sc = counter.thread.sc.selector();
        // SAFETY: as above.
        unsafe { hypercall::destroy(sc) }.map_err(show)?;
        hypercall::create_sc(sc, domain.pd.selector(), counter.thread.ec.selector(), time)
            .map_err(show)?;
        counter.goes_on(bench)?;
        let moved = counter.thread.ec.move_to(elsewhere);
        check_eq!(moved, Err(Status::BadCpu), "moving away from who pays");
        end(counter.thread)?;
        domain.pd.destroy().map_err(show)?;
    }
    // No CPU at all.
    let none = Pd::OWN.create_pd_within(20, Limits { priority: 2, cpus: 0 });
    let Ok(none) = none else { return Ok(()) };
    let new = FREE.one().map_err(show)?;
    // SAFETY: it gets no time.
    let made =
        unsafe { hypercall::create_thread(new, none.selector(), (0, 0), (0x6000_0000, 0, 0)) };
    check_eq!(made, Err(Status::BadCpu), "a thread of a domain without CPUs");
    none.destroy().map_err(show)
}

/// A call stays on its CPU.
fn calls(bench: &mut Bench<'_>) -> Check {
    let workers = workers(bench)?;
    for cpu in cpus() {
        let handler = handler_on(cpu, 0_u64)?;
        let portal = handler
            .portal(7, 0, |served: &mut u64, utcb: &mut Utcb, id, _| {
                *served += 1;
                utcb.words[0] = id + *served;
                MsgTag::new(1, 0)
            })
            .map_err(show)?;
        let mut served = 0;
        for (caller, worker) in cpus().zip(&workers) {
            let answer = worker.ask(bench, "a call", move |utcb| {
                portal.call(utcb, MsgTag::new(0, 0)).map(|_| utcb.words[0])
            })?;
            if caller == cpu {
                served += 1;
                check_eq!(answer, Ok(7 + served), "a call on CPU {cpu}");
            } else {
                check_eq!(answer, Err(Status::BadCpu), "a call from CPU {caller} to {cpu}");
            }
        }
        // SAFETY: nobody calls it.
        unsafe { handler.ec().destroy() }.map_err(show)?;
    }
    workers.into_iter().try_for_each(|worker| end(worker.thread))
}

/// A fault goes to a handler on its CPU; with the portals of another the thread ends, and nothing else happens.
fn events(bench: &mut Bench<'_>) -> Check {
    for cpu in cpus() {
        for at in cpus() {
            let taken = crate::kernel::threads::semaphore()?;
            let handler: Handler<_> = handler_on(at, taken)?;
            let portals = FREE.range(32).map_err(show)?;
            for vector in 0..32 {
                let serve = |taken: &mut runtime::sm::Sm, _: &mut abi::fault::FaultState, _, _| {
                    let _ = taken.up();
                    runtime::park()
                };
                handler.portal_at(portals + vector, 0, 0, serve).map_err(show)?;
            }
            let place = Defaults { events: portals, ..defaults().on(cpu) };
            let share: Share = slice(bench, bench.priority - 1);
            let thread = Thread::spawn_with(place, STACK, share, |_| runtime::task::die());
            let thread = thread.map_err(show)?;
            if cpu == at {
                taken
                    .down_until(bench.in_ms(500))
                    .map_err(|status| format!("the fault on CPU {cpu} is not taken: {status:?}"))?;
            } else {
                let utcb = &mut *bench.utcb;
                let mut dead = false;
                for _ in 0..1000 {
                    let looked = thread.ec.look(utcb).map_err(show)?;
                    dead = looked.activity == EcActivity::Dead;
                    if dead {
                        break;
                    }
                    let _ = taken.down_until(runtime::clock::now() + bench.hz / 10_000);
                }
                check!(dead, "CPU {cpu}, portals on {at}: the thread is still there");
                check_eq!(taken.down_until(0), Err(Status::Timeout), "a fault elsewhere");
            }
            end(thread)?;
            // SAFETY: its caller is gone.
            unsafe { handler.ec().destroy() }.map_err(show)?;
        }
    }
    // And everybody goes on.
    for cpu in others() {
        let counter = Counter::new(cpu, slice(bench, 2))?;
        counter.goes_on(bench)?;
        end(counter.thread)?;
        let flag = crate::kernel::threads::semaphore()?;
        let thread = spawn_on(cpu, slice(bench, 2), move |_| {
            let _ = flag.up();
        })?;
        until(bench, "a thread's turn", || flag.down_until(0).is_ok())?;
        end(thread)?;
    }
    Ok(())
}
