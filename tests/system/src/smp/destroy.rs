//! The end of objects that another CPU works with just then, in every state.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::cap::{Perms, own};
use abi::hypercall::{EcActivity, FOREVER, Status};
use abi::utcb::{MsgTag, Utcb};
use abi::vcpu::{Exit, Groups};
use runtime::clock::now;
use runtime::handler::Handler;
use runtime::hypercall;
use runtime::pd::{Limits, Pd};
use runtime::pt::Pt;
use runtime::selector::FREE;
use runtime::sm::Sm;
use runtime::space::ObjectSpace;
use runtime::task::cpus;

use super::domain::Domain;
use super::worker::{
    Counter, Worker, end, handler_on, insist, nap, on, others, show, slice, spawn_on, until,
    without_loss, workers,
};
use crate::kernel::threads::semaphore;
use crate::report::{Bench, Check, Test};
use crate::vcpu::modes::Mode;
use crate::vcpu::vm::{Spaces, Vm};
use crate::{check, check_eq, code, format};

pub const TESTS: &[Test] = &[
    ("end.running-thread", running_thread),
    ("end.waiting-thread", waiting_thread),
    ("end.serving-handler", serving_handler),
    ("end.calling-thread", calling_thread),
    ("end.waiting-caller", waiting_caller),
    ("end.guest", guest),
    ("end.guest-in-an-exit", guest_in_an_exit),
    ("end.stopped-guest", stopped_guest),
    ("end.time", time),
    ("end.semaphore", a_semaphore),
    ("end.domain", domain),
    ("end.domain-twice", domain_twice),
    ("end.each-other", each_other),
];

const ROUNDS: u64 = 8;

fn running_thread(bench: &mut Bench<'_>) -> Check {
    for cpu in others() {
        without_loss(ROUNDS, || {
            let counter = Counter::new(cpu, slice(bench, 2))?;
            counter.goes_on(bench)?;
            // SAFETY: it holds nothing.
            unsafe { counter.thread.ec.destroy() }.map_err(show)?;
            let last = counter.count();
            nap(bench, 300);
            check_eq!(counter.count(), last, "CPU {cpu}: what it counted afterwards");
            check_eq!(counter.thread.sc.consumed(), Err(Status::BadCap), "its time");
            FREE.give(counter.thread.ec.selector());
            FREE.give(counter.thread.sc.selector());
            Ok(())
        })?;
    }
    Ok(())
}

fn waiting_thread(bench: &mut Bench<'_>) -> Check {
    for cpu in others() {
        let sm = semaphore()?;
        without_loss(ROUNDS, || {
            for deadline in [FOREVER, bench.in_ms(3)] {
                let waits = semaphore()?;
                let thread = spawn_on(cpu, slice(bench, 2), move |_| {
                    let _ = waits.up();
                    let _ = sm.down_until(deadline);
                })?;
                waits.down_until(bench.in_ms(500)).map_err(show)?;
                nap(bench, 100);
                end(thread)?;
                sm.up().map_err(show)?;
                nap(bench, 100);
                check_eq!(sm.down_until(0), Ok(()), "CPU {cpu}: the up is for the next");
                // SAFETY: a semaphore is no memory.
                unsafe { hypercall::destroy(waits.selector()) }.map_err(show)?;
                FREE.give(waits.selector());
            }
            // Its deadline passes, and nothing happens.
            nap(bench, 3000);
            Ok(())
        })?;
    }
    Ok(())
}

/// A handler that is in the middle of a call for a while: it computes, or waits.
struct Server {
    handler: Handler<Busy>,
    portal: Pt,
    busy: Busy,
}

#[derive(Clone, Copy)]
struct Busy {
    entered: Sm,
    go: Sm,
    /// Whether it computes until it is let go.
    computes: bool,
}

fn server(cpu: u16, computes: bool) -> Result<Server, alloc::string::String> {
    let busy = Busy { entered: semaphore()?, go: semaphore()?, computes };
    let handler = handler_on(cpu, busy)?;
    let portal = handler.portal(0, 0, |busy: &mut Busy, _: &mut Utcb, _, _| {
        let _ = busy.entered.up();
        if busy.computes {
            while busy.go.down_until(0) == Err(Status::Timeout) {
                core::hint::spin_loop();
            }
        } else {
            let _ = busy.go.down();
        }
        MsgTag::new(0, 0)
    });
    Ok(Server { handler, portal: portal.map_err(show)?, busy })
}

impl Server {
    fn end(self) -> Check {
        for sm in [self.busy.entered, self.busy.go] {
            // SAFETY: a semaphore is no memory.
            unsafe { hypercall::destroy(sm.selector()) }.map_err(show)?;
            FREE.give(sm.selector());
        }
        // SAFETY: a portal is no memory.
        unsafe { hypercall::destroy(self.portal.selector()) }.map_err(show)?;
        FREE.give(self.portal.selector());
        Ok(())
    }
}

/// Its caller is told, whether it computes or waits.
fn serving_handler(bench: &mut Bench<'_>) -> Check {
    for cpu in others() {
        let worker = Worker::new(bench, cpu)?;
        for computes in [true, false] {
            without_loss(ROUNDS, || {
                let server = server(cpu, computes)?;
                let (portal, told) = (server.portal, told());
                worker.start(move |_| tell(told, portal.signal()))?;
                server.busy.entered.down_until(bench.in_ms(500)).map_err(show)?;
                nap(bench, 60);
                // SAFETY: it holds nothing.
                unsafe { server.handler.ec().destroy() }.map_err(show)?;
                FREE.give(server.handler.ec().selector());
                worker.finish(bench, "the call")?;
                let status = told.load(Ordering::Relaxed);
                check_eq!(status, Status::Aborted as u64, "CPU {cpu}: what the caller was told");
                let later = worker.ask(bench, "a later call", move |_| portal.signal())?;
                check_eq!(later, Err(Status::Aborted), "CPU {cpu}: a later call");
                server.end()
            })?;
        }
        end(worker.thread)?;
    }
    Ok(())
}

/// What a worker that is about to wait was told.
const BEGUN: u64 = 98;

fn told() -> &'static AtomicU64 {
    Box::leak(Box::new(AtomicU64::new(99)))
}

fn tell(told: &AtomicU64, status: Result<(), Status>) {
    told.store(status.err().unwrap_or(Status::Success) as u64, Ordering::Relaxed);
}

/// A thread that waits for a busy handler is ended, but not to the end; then the handler is. Its time must not find what takes the
/// handler's place: here threads that have no time.
fn waiting_caller(bench: &mut Bench<'_>) -> Check {
    const COPIES: u32 = 100;
    const SUCCESSORS: usize = 8;
    for cpu in others() {
        let server = server(cpu, false)?;
        let portal = server.portal;
        let call = move |_: &mut Utcb| {
            let _ = portal.signal();
        };
        let served = spawn_on(cpu, slice(bench, 2), call)?;
        server.busy.entered.down_until(bench.in_ms(500)).map_err(show)?;
        let waiting = spawn_on(cpu, slice(bench, 2), call)?;
        nap(bench, 200);
        // More capabilities than one call takes away.
        let (objects, copies) = (ObjectSpace::OWN, FREE.range(COPIES).map_err(show)?);
        for copy in copies..copies + COPIES {
            objects.grant(waiting.sc.selector(), objects, copy, Perms::ALL).map_err(show)?;
        }
        // Nobody below it decides what to do until the end of this.
        let above = Counter::new(cpu, slice(bench, 5))?;
        above.goes_on(bench)?;
        // SAFETY: it holds nothing.
        let once = unsafe { hypercall::destroy_once(waiting.ec.selector()) };
        check_eq!(once, Err(Status::Partial), "the first of many calls");
        // SAFETY: as above.
        unsafe { server.handler.ec().destroy() }.map_err(show)?;
        let mut successors = Vec::new();
        for _ in 0..SUCCESSORS {
            let successor = Counter::new(cpu, slice(bench, 2))?;
            // SAFETY: time is no memory.
            unsafe { hypercall::destroy(successor.thread.sc.selector()) }.map_err(show)?;
            successors.push(successor);
        }
        end(above.thread)?;
        nap(bench, 3000);
        for successor in successors {
            check_eq!(successor.count(), 0, "CPU {cpu}: what a thread without time counted");
            end(successor.thread)?;
        }
        end(waiting)?;
        end(served)?;
        FREE.give(server.handler.ec().selector());
        server.end()?;
    }
    Ok(())
}

/// The handler finishes for nobody, and serves the next.
fn calling_thread(bench: &mut Bench<'_>) -> Check {
    for cpu in others() {
        let worker = Worker::new(bench, cpu)?;
        for computes in [true, false] {
            without_loss(ROUNDS, || {
                let server = server(cpu, computes)?;
                let portal = server.portal;
                let caller = spawn_on(cpu, slice(bench, 2), move |_| {
                    let _ = portal.signal();
                })?;
                server.busy.entered.down_until(bench.in_ms(500)).map_err(show)?;
                nap(bench, 60);
                end(caller)?;
                for _ in 0..2 {
                    server.busy.go.up().map_err(show)?;
                }
                let next = worker.ask(bench, "the next call", move |_| portal.signal())?;
                check_eq!(next, Ok(()), "CPU {cpu}: the next call");
                // SAFETY: nobody calls it.
                unsafe { server.handler.ec().destroy() }.map_err(show)?;
                FREE.give(server.handler.ec().selector());
                server.end()
            })?;
        }
        end(worker.thread)?;
    }
    Ok(())
}

/// A virtual machine on `cpu` that counts in its memory.
pub fn counting_guest(bench: &Bench<'_>, cpu: u16) -> Result<Vm, alloc::string::String> {
    let share = slice(bench, bench.priority - 2);
    let mut vm = Vm::on(bench, 0, Spaces::default(), (on(cpu), share))?;
    vm.patience = 500;
    let code = code!(64, "mov rdi, 0x9000", "2:", "inc qword ptr [rdi]", "inc rax", "jmp 2b");
    vm.load(Mode::Long, code)?;
    // Bochs keeps interrupts of the host back otherwise.
    vm.state.rflags = 0x202;
    vm.resume(Groups::ALL)?;
    guest_goes_on(bench, &vm)?;
    Ok(vm)
}

pub fn guest_count(vm: &Vm) -> u64 {
    vm.peek_u64(crate::vcpu::vm::DATA).unwrap_or(0)
}

pub fn guest_goes_on(bench: &Bench<'_>, vm: &Vm) -> Check {
    let before = guest_count(vm);
    until(bench, "the guest's counting", || guest_count(vm) > before + 2)
}

fn guest_is_gone(bench: &Bench<'_>, vm: &Vm) -> Check {
    let last = guest_count(vm);
    nap(bench, 300);
    check_eq!(guest_count(vm), last, "what the guest counted afterwards");
    check_eq!(vm.vcpu.recall(), Err(Status::BadCap), "its capability");
    Ok(())
}

fn guest(bench: &mut Bench<'_>) -> Check {
    for cpu in others() {
        guests_without_loss(|| {
            let vm = counting_guest(bench, cpu)?;
            // SAFETY: a virtual CPU has no memory of this task's.
            unsafe { vm.vcpu.destroy() }.map_err(show)?;
            guest_is_gone(bench, &vm)?;
            vm.end_rest()
        })?;
    }
    Ok(())
}

/// Virtual machines take many selectors, and the table of those grows by a page for some of them.
fn guests_without_loss(mut once: impl FnMut() -> Check) -> Check {
    let free = || Pd::OWN.quota().map(|quota| quota.free).map_err(show);
    once()?;
    let before = free()?;
    for _ in 0..ROUNDS {
        once()?;
    }
    let lost = before - free()?.min(before);
    // A round that lost anything would lose a page at least.
    check!(lost < ROUNDS, "{lost} pages are lost in {ROUNDS} rounds");
    Ok(())
}

/// While its handler has it; that finishes for nobody.
fn guest_in_an_exit(bench: &mut Bench<'_>) -> Check {
    for cpu in others() {
        let mut vm = counting_guest(bench, cpu)?;
        vm.start(Mode::Long, code!(64, "cpuid", "hlt"), Exit::Cpuid)?;
        // SAFETY: a virtual CPU has no memory of this task's.
        unsafe { vm.vcpu.destroy() }.map_err(show)?;
        guest_is_gone(bench, &vm)?;
        vm.resume(Groups::DONE)?;
        check!(vm.wait().is_err(), "CPU {cpu}: an exit of a guest that is gone");
        vm.end_rest()?;
    }
    Ok(())
}

fn stopped_guest(bench: &mut Bench<'_>) -> Check {
    for cpu in others() {
        guests_without_loss(|| {
            let vm = counting_guest(bench, cpu)?;
            insist("stopping", || vm.vcpu.stop())?;
            // SAFETY: a virtual CPU has no memory of this task's.
            unsafe { vm.vcpu.destroy() }.map_err(show)?;
            guest_is_gone(bench, &vm)?;
            vm.end_rest()
        })?;
    }
    Ok(())
}

/// A thread without time stands still, and goes on with new.
fn time(bench: &mut Bench<'_>) -> Check {
    for cpu in others() {
        let share = slice(bench, 2);
        let counter = Counter::new(cpu, share)?;
        let (ec, sc) = (counter.thread.ec.selector(), counter.thread.sc.selector());
        without_loss(ROUNDS, || {
            counter.goes_on(bench)?;
            // SAFETY: a scheduling context is no memory.
            unsafe { hypercall::destroy(sc) }.map_err(show)?;
            counter.stands_still(bench)?;
            let time = (share.priority, share.budget, share.period);
            hypercall::create_sc(sc, own::PD, ec, time).map_err(show)
        })?;
        counter.goes_on(bench)?;
        end(counter.thread)?;
    }
    Ok(())
}

fn a_semaphore(bench: &mut Bench<'_>) -> Check {
    let workers = workers(bench)?;
    without_loss(ROUNDS, || {
        let sm = semaphore()?;
        let mut all = alloc::vec::Vec::new();
        for worker in &workers {
            let told = told();
            worker.start(move |_| {
                told.store(BEGUN, Ordering::Relaxed);
                tell(told, sm.down());
            })?;
            all.push(told);
        }
        for (worker, told) in workers.iter().zip(&all) {
            let deadline = bench.in_ms(2000);
            while told.load(Ordering::Relaxed) != BEGUN
                || worker.thread.ec.look(bench.utcb).map_err(show)?.activity != EcActivity::Waits
            {
                check!(now() < deadline, "a worker does not wait");
                nap(bench, 50);
            }
        }
        // SAFETY: a semaphore is no memory.
        unsafe { hypercall::destroy(sm.selector()) }.map_err(show)?;
        FREE.give(sm.selector());
        for (cpu, (worker, told)) in workers.iter().zip(all).enumerate() {
            worker.finish(bench, "a wait")?;
            let told = told.load(Ordering::Relaxed);
            check_eq!(told, Status::Aborted as u64, "what CPU {cpu} was told");
        }
        Ok(())
    })?;
    workers.into_iter().try_for_each(|worker| end(worker.thread))
}

/// A domain whose threads run on all CPUs, this one included.
fn domain(bench: &mut Bench<'_>) -> Check {
    let mut kept: Option<Domain> = None;
    without_loss(2 * ROUNDS, || {
        let limits = Limits { priority: 3, ..Limits::NONE };
        let domain = match kept {
            Some(domain) => domain.again(limits).map_err(show)?,
            None => Domain::new(bench, limits)?,
        };
        kept = Some(domain);
        for cpu in cpus() {
            domain.thread(cpu, cpu.into()).map_err(show)?;
            domain.run(cpu.into(), (2, bench.hz / 10_000)).map_err(show)?;
        }
        let counts = || cpus().map(|cpu| domain.count(cpu.into())).collect::<alloc::vec::Vec<_>>();
        until(bench, "counting", || counts().iter().all(|count| *count > 2))?;
        domain.pd.destroy().map_err(show)?;
        let last = counts();
        nap(bench, 300);
        check_eq!(counts(), last, "what was counted afterwards");
        Ok(())
    })
}

/// Two CPUs end the same domain, and each other's: one of them does it, and the other is told that it is gone.
fn domain_twice(bench: &mut Bench<'_>) -> Check {
    let (first, last) = (0_u16, cpus().last().unwrap_or(0));
    let pair = [Worker::new(bench, first)?, Worker::new(bench, last)?];
    let limits = Limits { priority: 3, ..Limits::NONE };
    let made = [0, 1].map(|number| Domain::numbered(bench.memory, limits, number));
    let mut domains = made.into_iter().collect::<Result<alloc::vec::Vec<_>, _>>().map_err(show)?;
    let free = || Pd::OWN.quota().map(|quota| quota.free).map_err(show);
    let budget = bench.hz / 10_000;
    let mut before = 0;
    for round in 0..40 {
        if round == 1 {
            before = free()?;
        }
        if round > 0 {
            for domain in &mut domains {
                *domain = domain.again(limits).map_err(show)?;
            }
        }
        for domain in &domains {
            for (index, cpu) in (0..).zip([first, last]) {
                domain.thread(cpu, index).map_err(show)?;
                domain.run(index, (2, budget)).map_err(show)?;
            }
        }
        // In even rounds each its own one and then the other's, in odd rounds both begin with the same.
        let answers: &'static [AtomicU64; 4] =
            Box::leak(Box::new([const { AtomicU64::new(99) }; 4]));
        for (number, worker) in pair.iter().enumerate() {
            let mut order = [(0, domains[0].pd), (1, domains[1].pd)];
            if round % 2 == 0 && number == 1 {
                order.reverse();
            }
            worker.start(move |_| {
                for (which, pd) in order {
                    tell(&answers[2 * number + which], pd.destroy());
                }
            })?;
        }
        for worker in &pair {
            worker.finish(bench, "destroying")?;
        }
        for which in 0..2 {
            let told = [&answers[which], &answers[2 + which]].map(|a| a.load(Ordering::Relaxed));
            let sound =
                |status: u64| status == Status::Success as u64 || status == Status::BadCap as u64;
            check!(told.into_iter().all(sound), "round {round}: {told:?}");
            check!(told.contains(&(Status::Success as u64)), "round {round}: nobody has done it");
            check_eq!(domains[which].pd.quota().err(), Some(Status::BadCap), "it is still there");
        }
    }
    let after = free()?;
    check!(after >= before, "{} pages are lost", before - after);
    pair.into_iter().try_for_each(|worker| end(worker.thread))
}

/// Two domains, each with a child and with a thread on a CPU of its own, end each other's children at the same time, and then each other:
/// the children are gone, whoever is left of the two can be ended from above, and all that they had comes back.
fn each_other(bench: &mut Bench<'_>) -> Check {
    /// Where a domain has the capability of what it is to destroy.
    const VICTIM: u32 = 20;
    const CHILD: u64 = 150;
    let pair = [0_u16, cpus().last().unwrap_or(0)];
    let limits = Limits { priority: 3, ..Limits::NONE };
    let share = (2, bench.hz / 10_000);
    let free = || Pd::OWN.quota().map(|quota| quota.free).map_err(show);
    let mut kept: Option<[Domain; 4]> = None;
    let mut before = 0;
    for round in 0..40 {
        if round == 2 {
            before = free()?;
        }
        let make = |number: usize, parent: Pd| match kept {
            None => Domain::below(parent, bench.memory, limits, number as u64),
            Some(domains) => domains[number].again(limits),
        };
        let (first, second) = (make(0, Pd::OWN).map_err(show)?, make(1, Pd::OWN).map_err(show)?);
        first.pd.give(CHILD).and(second.pd.give(CHILD)).map_err(show)?;
        let its = make(2, first.pd).map_err(show)?;
        let the_others = make(3, second.pd).map_err(show)?;
        kept = Some([first, second, its, the_others]);
        for child in [its, the_others] {
            for (index, cpu) in (0..).zip(pair) {
                child.thread(cpu, index).map_err(show)?;
                child.run(index, share).map_err(show)?;
            }
        }
        let children = round % 2 == 0;
        let own = ObjectSpace::OWN;
        let victims = if children { [the_others, its] } else { [second, first] };
        let mut threads = alloc::vec::Vec::new();
        for ((domain, victim), cpu) in [first, second].into_iter().zip(victims).zip(pair) {
            own.grant(victim.pd.selector(), domain.objects, VICTIM, Perms::ALL).map_err(show)?;
            threads.push(domain.destroyer(cpu, 0, VICTIM).map_err(show)?);
            domain.run(0, share).map_err(show)?;
        }
        let counting = || its.count(0) > 2 && the_others.count(1) > 2;
        until(bench, "counting", counting)?;
        for domain in if round % 4 < 2 { [first, second] } else { [second, first] } {
            domain.begin().map_err(show)?;
        }
        if children {
            until(bench, "the end of the children", || {
                [first, second].iter().all(|domain| domain.outcome().is_some())
            })?;
            for (domain, child) in [(first, its), (second, the_others)] {
                check_eq!(domain.outcome(), Some(Status::Success as u64), "round {round}");
                check_eq!(child.pd.quota().err(), Some(Status::BadCap), "round {round}: a child");
            }
        } else {
            // Whether one has ended the other, or both are only half gone, is a matter of who was first where.
            until(bench, "the end of one of them", || {
                threads.iter().any(|ec| ec.recall() == Err(Status::BadCap))
            })?;
            let outcomes = [first.outcome(), second.outcome()];
            let sound = |outcome: &Option<u64>| {
                outcome.is_none_or(|status| status == Status::Success as u64)
            };
            check!(outcomes.iter().all(sound), "round {round}: {outcomes:?}");
        }
        for domain in [first, second] {
            match domain.pd.destroy() {
                Ok(()) | Err(Status::BadCap) => {}
                Err(status) => return Err(format!("round {round}: the rest: {status:?}")),
            }
        }
        let counts = [its.count(0), the_others.count(1)];
        nap(bench, 100);
        check_eq!([its.count(0), the_others.count(1)], counts, "round {round}: counted afterwards");
    }
    let after = free()?;
    check!(after >= before, "{} pages are lost", before - after);
    Ok(())
}
