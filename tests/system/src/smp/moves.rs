//! Contexts that go from one CPU to another.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use abi::hypercall::{FOREVER, Status};
use abi::utcb::{MsgTag, Utcb};
use abi::vcpu::{Event, Exit, Groups};
use runtime::clock::now;
use runtime::ec::Ec;
use runtime::sm::Sm;
use runtime::task::cpus;
use runtime::thread::Thread;

use super::destroy::{counting_guest, guest_goes_on};
use super::vcpus::{read, stop_it, vm_on, write};
use super::worker::{
    Counter, Worker, apic_ids, end, far_pairs, handler_on, insist, nap, others, show, slice,
    spawn_on, until, workers,
};
use crate::kernel::threads::semaphore;
use crate::processor::{apic_id, slack};
use crate::report::{Bench, Check, Test};
use crate::vcpu::modes::{Mode, stub};
use crate::{check, check_eq, code, format};

pub const TESTS: &[Test] = &[
    ("move.oneself", oneself),
    ("move.running-thread", running_thread),
    ("move.waiting-thread", waiting_thread),
    ("move.deadline", deadline),
    ("move.thread-without-turn", without_turn),
    ("move.in-a-call", in_a_call),
    ("move.handler", handler),
    ("move.guest", guest),
    ("move.stopped-guest", stopped_guest),
    ("move.guest-deadline", guest_deadline),
];

const ROUNDS: usize = 20;

fn move_to(ec: Ec, cpu: u16) -> Check {
    insist(&format!("moving to CPU {cpu}"), || ec.move_to(cpu))
}

/// A thread goes round all CPUs, and is where it thinks it is.
fn oneself(bench: &mut Bench<'_>) -> Check {
    const STEPS: u64 = 5000;
    let ids = apic_ids(bench)?;
    static SELF: AtomicU32 = AtomicU32::new(0);
    SELF.store(0, Ordering::Relaxed);
    let (go, done) = (semaphore()?, semaphore()?);
    let wrong: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(0)));
    let thread = spawn_on(0, slice(bench, bench.priority - 1), move |_| {
        let _ = go.down();
        let own = Ec::at(SELF.load(Ordering::Relaxed));
        for step in 0..STEPS {
            let index = step as usize * 7 % ids.len();
            let moved = insist("moving", || own.move_to(index as u16));
            if moved.is_err() || ids.get(index) != Some(&apic_id()) {
                wrong.fetch_add(1, Ordering::Relaxed);
            }
        }
        let _ = done.up();
    })?;
    SELF.store(thread.ec.selector(), Ordering::Relaxed);
    go.up().map_err(show)?;
    done.down_until(bench.in_ms(20_000)).map_err(|status| format!("its end: {status:?}"))?;
    check_eq!(wrong.load(Ordering::Relaxed), 0, "steps of {STEPS} that led elsewhere");
    end(thread)
}

fn running_thread(bench: &mut Bench<'_>) -> Check {
    let ids = apic_ids(bench)?;
    let counter = Counter::new(0, slice(bench, 2))?;
    for round in 0..ROUNDS * ids.len() {
        counter.goes_on(bench)?;
        let cpu = (round * 3 + 1) % ids.len();
        move_to(counter.thread.ec, cpu as u16)?;
        counter.goes_on(bench)?;
        check_eq!(counter.at(), ids[cpu], "round {round}: the processor of CPU {cpu}");
        // Its time goes with it.
        let before = counter.thread.sc.consumed().map_err(show)?;
        until(bench, &format!("round {round}: using time on CPU {cpu}"), || {
            counter.thread.sc.consumed().is_ok_and(|after| after > before)
        })?;
    }
    end(counter.thread)
}

/// A thread that waits, once, and says where it woke and why.
struct Waiter {
    thread: Thread,
    sm: Sm,
    done: Sm,
    woke: &'static [AtomicU64; 3],
}

impl Waiter {
    fn new(bench: &Bench<'_>, cpu: u16, deadline: u64) -> Result<Self, alloc::string::String> {
        let (sm, waits, done) = (semaphore()?, semaphore()?, semaphore()?);
        let woke: &'static [AtomicU64; 3] = Box::leak(Box::new([const { AtomicU64::new(99) }; 3]));
        let thread = spawn_on(cpu, slice(bench, bench.priority - 1), move |_| {
            let _ = waits.up();
            let status = sm.down_until(deadline).err().unwrap_or(Status::Success);
            woke[2].store(now(), Ordering::Relaxed);
            woke[0].store(status as u64, Ordering::Relaxed);
            woke[1].store(apic_id().into(), Ordering::Relaxed);
            let _ = done.up();
        })?;
        waits.down_until(bench.in_ms(500)).map_err(show)?;
        nap(bench, 100);
        Ok(Self { thread, sm, done, woke })
    }

    /// It wakes with that status on that processor. Returns when that was.
    fn wakes(
        self,
        bench: &Bench<'_>,
        status: Status,
        id: u32,
    ) -> Result<u64, alloc::string::String> {
        self.done.down_until(bench.in_ms(500)).map_err(|status| format!("waking: {status:?}"))?;
        let [woke, at, when] = self.woke.each_ref().map(|word| word.load(Ordering::Relaxed));
        check_eq!((woke, at), (status as u64, u64::from(id)), "status and processor");
        end(self.thread)?;
        Ok(when)
    }
}

fn waiting_thread(bench: &mut Bench<'_>) -> Check {
    let ids = apic_ids(bench)?;
    for from in cpus() {
        for to in cpus() {
            for deadline in [FOREVER, bench.in_ms(1_000_000)] {
                let waiter = Waiter::new(bench, from, deadline)?;
                move_to(waiter.thread.ec, to)?;
                nap(bench, 50);
                waiter.sm.up().map_err(show)?;
                waiter
                    .wakes(bench, Status::Success, ids[usize::from(to)])
                    .map_err(|why| format!("from CPU {from} to {to}: {why}"))?;
            }
        }
    }
    Ok(())
}

/// What it waits for, it goes on waiting for: its deadline comes with it.
fn deadline(bench: &mut Bench<'_>) -> Check {
    let ids = apic_ids(bench)?;
    for from in cpus() {
        for to in cpus() {
            let deadline = bench.in_ms(3);
            let waiter = Waiter::new(bench, from, deadline)?;
            move_to(waiter.thread.ec, to)?;
            let woke = waiter
                .wakes(bench, Status::Timeout, ids[usize::from(to)])
                .map_err(|why| format!("from CPU {from} to {to}: {why}"))?;
            check!(woke >= deadline, "from CPU {from} to {to}: {} ticks early", deadline - woke);
            let late = woke - deadline;
            check!(late < 4 * slack(bench.hz), "from CPU {from} to {to}: {late} ticks late");
        }
    }
    Ok(())
}

/// A thread that could run, and never got its turn, gets it on another CPU.
fn without_turn(bench: &mut Bench<'_>) -> Check {
    for (from, to) in far_pairs().into_iter().filter(|(from, _)| *from != 0) {
        for _ in 0..ROUNDS {
            let above = Counter::new(from, slice(bench, 3))?;
            above.goes_on(bench)?;
            let below = Counter::new(from, slice(bench, 2))?;
            nap(bench, 300);
            check_eq!(below.count(), 0, "turns of a thread below another");
            move_to(below.thread.ec, to)?;
            below.goes_on(bench)?;
            above.goes_on(bench)?;
            // And back: there it has none again.
            move_to(below.thread.ec, from)?;
            below.stands_still(bench)?;
            end(above.thread)?;
            below.goes_on(bench)?;
            end(below.thread)?;
        }
    }
    Ok(())
}

/// A handler that waits in the middle of a call.
struct Slow {
    entered: Sm,
    go: Sm,
}

/// Neither side of a call can move.
fn in_a_call(bench: &mut Bench<'_>) -> Check {
    for (home, away) in far_pairs() {
        let (entered, go) = (semaphore()?, semaphore()?);
        let handler = handler_on(home, Slow { entered, go })?;
        let portal = handler
            .portal(0, 0, |slow: &mut Slow, _: &mut Utcb, _, _| {
                let _ = slow.entered.up();
                let _ = slow.go.down();
                MsgTag::new(0, 0)
            })
            .map_err(show)?;
        let worker = Worker::new(bench, home)?;
        for _ in 0..ROUNDS {
            worker.start(move |_| {
                let _ = portal.signal();
            })?;
            entered.down_until(bench.in_ms(500)).map_err(show)?;
            for (name, ec) in [("caller", worker.thread.ec), ("handler", handler.ec())] {
                check_eq!(ec.move_to(away), Ok(false), "moving the {name}");
            }
            go.up().map_err(show)?;
            worker.finish(bench, "the call")?;
            for ec in [worker.thread.ec, handler.ec()] {
                move_to(ec, away)?;
            }
            // They still find each other.
            go.up().map_err(show)?;
            let called = worker.ask(bench, "a call", move |_| portal.signal())?;
            check_eq!(called, Ok(()), "a call on CPU {away}");
            entered.down_until(0).map_err(show)?;
            for ec in [worker.thread.ec, handler.ec()] {
                move_to(ec, home)?;
            }
        }
        end(worker.thread)?;
        // SAFETY: nobody calls it.
        unsafe { handler.ec().destroy() }.map_err(show)?;
    }
    Ok(())
}

fn handler(bench: &mut Bench<'_>) -> Check {
    let workers = workers(bench)?;
    let handler = handler_on(0, 0_u64)?;
    let portal = handler
        .portal(0, 0, |_: &mut u64, utcb: &mut Utcb, _, _| {
            utcb.words[0] = apic_id().into();
            MsgTag::new(1, 0)
        })
        .map_err(show)?;
    let ids = apic_ids(bench)?;
    for _ in 0..4 {
        for at in cpus() {
            move_to(handler.ec(), at)?;
            for (caller, worker) in cpus().zip(&workers) {
                let answer = worker.ask(bench, "a call", move |utcb| {
                    portal.call(utcb, MsgTag::new(0, 0)).map(|_| utcb.words[0])
                })?;
                let expected = if caller == at {
                    Ok(u64::from(ids[usize::from(at)]))
                } else {
                    Err(Status::BadCpu)
                };
                check_eq!(answer, expected, "a call from CPU {caller} to {at}");
            }
        }
    }
    workers.into_iter().try_for_each(|worker| end(worker.thread))
}

/// A virtual CPU moves while its guest runs, and its handler after it.
fn guest(bench: &mut Bench<'_>) -> Check {
    let vm = counting_guest(bench, 0)?;
    for round in 0..ROUNDS {
        for to in others().into_iter().chain([0]) {
            guest_goes_on(bench, &vm)?;
            let before = vm.sc.consumed().map_err(show)?;
            move_to(vm.vcpu, to)?;
            move_to(vm.handler, to)?;
            guest_goes_on(bench, &vm)?;
            let after = vm.sc.consumed().map_err(show)?;
            check!(after > before, "round {round}: its time did not come along to CPU {to}");
        }
    }
    let mut vm = vm;
    vm.vcpu.recall().map_err(show)?;
    check_eq!(vm.wait()?, Exit::Recall, "the exit");
    vm.end()
}

/// Everything that it has comes along: registers of all kinds, and what is pending.
fn stopped_guest(bench: &mut Bench<'_>) -> Check {
    const VALUE: u64 = 0x1122_3344_5566_7788;
    let code = code!(
        64,
        "fninit",
        "mov [0x9000], rbx",
        "fild qword ptr [0x9000]",
        "movq xmm0, rbx",
        "movq xmm15, rbx",
        "mov dword ptr [0x9008], 0x3f80",
        "ldmxcsr [0x9008]",
        "mov r8, rbx",
        "mov r15, rbx",
        "mov dr1, rbx",
        "sti",
        "2:",
        "inc rax",
        "mov [0x9010], rax",
        "test ecx, ecx",
        "jz 2b",
        "fistp qword ptr [0x9000]",
        "mov rax, [0x9000]",
        "movq rcx, xmm0",
        "movq rdx, xmm15",
        "stmxcsr [0x9008]",
        "mov esi, [0x9008]",
        "mov rdi, dr1",
        "hlt",
    );
    for (from, to) in far_pairs() {
        for event in [false, true] {
            let mut vm = vm_on(bench, from)?;
            vm.load(Mode::Long, code)?;
            vm.state.gpr.rbx = VALUE;
            vm.state.gpr.rcx = 0;
            vm.resume(Groups::ALL)?;
            until(bench, "the guest's counting", || vm.peek_u64(0x9010).is_ok_and(|n| n > 3))?;
            // There and back and there, so that what one CPU remembers is of no use.
            for cpu in [to, from, to] {
                stop_it(vm.vcpu)?;
                let before = read(bench, vm.vcpu, Groups::ACDB)?;
                move_to(vm.vcpu, cpu)?;
                move_to(vm.handler, cpu)?;
                let after = read(bench, vm.vcpu, Groups::ACDB)?;
                check_eq!(after.gpr.rax, before.gpr.rax, "RAX on CPU {cpu}");
                vm.vcpu.go().map_err(show)?;
                let count = vm.peek_u64(0x9010)?;
                until(bench, "counting", || vm.peek_u64(0x9010).is_ok_and(|n| n > count + 2))?;
            }
            stop_it(vm.vcpu)?;
            let mut state = read(bench, vm.vcpu, Groups::ACDB.union(Groups::EVENT))?;
            state.gpr.rcx = 1;
            state.event = if event { Event::interrupt(0x40) } else { Event::default() };
            write(bench, vm.vcpu, Groups::ACDB.union(Groups::EVENT), &state)?;
            move_to(vm.vcpu, from)?;
            move_to(vm.handler, from)?;
            vm.vcpu.go().map_err(show)?;
            if event {
                check_eq!(vm.wait()?, Exit::Hlt, "the exit of the event's handler");
                check_eq!(vm.state.rip, stub(0x40), "the event's handler");
                vm.resume(Groups::DONE)?;
            }
            check_eq!(vm.wait()?, Exit::Hlt, "the last exit");
            let gpr = &vm.state.gpr;
            check_eq!((gpr.rax, gpr.rcx, gpr.rdx), (VALUE, VALUE, VALUE), "FPU registers");
            check_eq!(gpr.rsi, 0x3f80, "MXCSR");
            check_eq!((gpr.r8, gpr.r15), (VALUE, VALUE), "R8 and R15");
            check_eq!(gpr.rdi, VALUE, "DR1");
            vm.end()?;
        }
    }
    Ok(())
}

/// Its deadline comes along, whether it stands still meanwhile or not.
fn guest_deadline(bench: &mut Bench<'_>) -> Check {
    for (from, to) in far_pairs() {
        for stopped in [false, true] {
            for _ in 0..ROUNDS / 4 {
                let mut vm = vm_on(bench, from)?;
                vm.load(Mode::Long, code!(64, "2:", "inc rax", "jmp 2b"))?;
                vm.state.rflags = 0x202;
                let deadline = bench.in_ms(5);
                vm.state.deadline = deadline;
                vm.resume(Groups::ALL)?;
                nap(bench, 200);
                if stopped {
                    stop_it(vm.vcpu)?;
                }
                move_to(vm.vcpu, to)?;
                move_to(vm.handler, to)?;
                if stopped {
                    vm.vcpu.go().map_err(show)?;
                }
                check_eq!(vm.wait()?, Exit::Recall, "the exit");
                let woke = now();
                check!(woke >= deadline, "{} ticks early", deadline - woke);
                let late = woke - deadline;
                check!(late < 4 * slack(bench.hz), "{late} ticks late");
                vm.end()?;
            }
        }
    }
    Ok(())
}
