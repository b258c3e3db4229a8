//! What one CPU wants of another while that is about to do something else.

use alloc::boxed::Box;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use abi::cap::{MemRights, Selector};
use abi::hypercall::EcOp;
use abi::utcb::{MsgTag, Utcb};
use abi::vcpu::{EXITS, Exit, Groups, VcpuState};
use runtime::clock::now;
use runtime::ec::Ec;
use runtime::hypercall;
use runtime::pd::Pd;
use runtime::protocol::startup::Share;
use runtime::pt::Pt;
use runtime::sc::Sc;
use runtime::selector::FREE;
use runtime::sm::Sm;
use runtime::thread::Thread;
use runtime::vcpu::VcpuBuilder;

use super::destroy::{counting_guest, guest_goes_on};
use super::vcpus::{read, stop_it, write};
use super::worker::{
    Counter, apic_ids, end, handler_on, insist, nap, on, others, show, slice, spawn_on, until,
};
use crate::kernel::threads::semaphore;
use crate::processor::slack;
use crate::report::{Bench, Check, Test};
use crate::vcpu::modes::Mode;
use crate::vcpu::vm::{MEMORY, Spaces, Vm};
use crate::{check, check_eq, code, format};

pub const TESTS: &[Test] = &[
    ("errand.withdrawn-stop", withdrawn_stop),
    ("errand.withdrawn-stop-in-exits", withdrawn_stop_in_exits),
    ("errand.withdrawn-move", withdrawn_move),
    ("errand.two-moves", two_moves),
    ("errand.time-of-others", time_of_others),
    ("errand.deadlines", deadlines),
    ("errand.memory-of-old", memory_of_old),
];

const ROUNDS: u64 = 100;

/// A stop that another CPU has not come to yet is withdrawn by a go: the guest does not stand still later.
fn withdrawn_stop(bench: &mut Bench<'_>) -> Check {
    for cpu in others() {
        let vm = counting_guest(bench, cpu)?;
        let mut withdrawn = 0;
        for round in 0..ROUNDS {
            nap(bench, round * 7 % 50);
            withdrawn += u64::from(!vm.vcpu.stop().map_err(show)?);
            vm.vcpu.go().map_err(show)?;
            guest_goes_on(bench, &vm).map_err(|why| format!("CPU {cpu}, round {round}: {why}"))?;
        }
        check!(withdrawn > 0, "CPU {cpu}: it stood still at once each time");
        vm.end()?;
    }
    Ok(())
}

/// Who is told that a context is on a CPU finds it there: a move to another one that was asked for before is withdrawn.
fn withdrawn_move(bench: &mut Bench<'_>) -> Check {
    for cpu in others() {
        let mut vm = counting_guest(bench, cpu)?;
        let mut withdrawn = 0;
        for round in 0..ROUNDS {
            nap(bench, round * 7 % 50);
            withdrawn += u64::from(!vm.vcpu.move_to(0).map_err(show)?);
            insist("moving back", || vm.vcpu.move_to(cpu))?;
            nap(bench, 100);
            // Its exit ends it if it is not where its handler is.
            vm.vcpu.recall().map_err(show)?;
            let exit = vm.wait().map_err(|why| format!("CPU {cpu}, round {round}: {why}"))?;
            check_eq!(exit, Exit::Recall, "CPU {cpu}, round {round}: the exit");
            vm.resume(Groups::NONE)?;
        }
        check!(withdrawn > 0, "CPU {cpu}: it was on the other CPU at once each time");
        vm.end()?;
    }
    Ok(())
}

/// A guest whose exits are answered after a look at another virtual CPU of the same CPU. That one is loaded then, until the answer loads
/// the guest's own again.
struct Looking {
    vm: Vm,
    vcpu: Ec,
    handler: Ec,
    sc: Sc,
    portals: Selector,
}

struct Look {
    start: VcpuState,
    at: Ec,
}

impl Looking {
    fn new(bench: &Bench<'_>, cpu: u16, at: Ec) -> Result<Self, alloc::string::String> {
        let share = slice(bench, bench.priority - 2);
        // Its memory is what is needed; its own virtual CPU never runs.
        let mut vm = Vm::on(bench, MEMORY, Spaces::default(), (on(cpu), share))?;
        vm.load(Mode::Long, code!(64, "2:", "cpuid", "jmp 2b"))?;
        let start = VcpuState { rflags: 0x202, ..vm.state };
        let handler = handler_on(cpu, Look { start, at })?;
        let (ec, portals) = (handler.ec(), FREE.range(EXITS).map_err(show)?);
        let vcpu = VcpuBuilder::at(vm.space, handler, portals)
            .on(Exit::Startup, Groups::NONE, |look: &mut Look, state| {
                *state = look.start;
                Groups::ALL
            })
            .on(Exit::Cpuid, Groups::RIP, |look: &mut Look, state| {
                let next = state.rip + 2;
                // It is in this message page that it would be, if it stands still at the time.
                let _ = hypercall::ctrl_ec(look.at.selector(), EcOp::Read, Groups::RFLAGS.0);
                // SAFETY: the kernel has written to it meanwhile.
                unsafe { (&raw mut state.rip).write_volatile(next) };
                Groups::RIP
            })
            .otherwise(Groups::NONE, |_: &mut Look, _: &mut VcpuState, _| -> Groups {
                runtime::park()
            })
            .create()
            .map_err(show)?;
        let sc = Sc::create(Pd::OWN, vcpu, share).map_err(show)?;
        Ok(Self { vm, vcpu, handler: ec, sc, portals })
    }

    fn end(self) -> Check {
        for ec in [self.vcpu, self.handler] {
            // SAFETY: a virtual CPU, and a handler that holds nothing.
            unsafe { ec.destroy() }.map_err(show)?;
            FREE.give(ec.selector());
        }
        for portal in self.portals..self.portals + EXITS {
            // SAFETY: a portal is no memory.
            unsafe { hypercall::destroy(portal) }.map_err(show)?;
            FREE.give(portal);
        }
        FREE.give(self.sc.selector());
        self.vm.end()
    }
}

/// Of two moves, the second one counts, also where the first one's CPU has let go of the context in between without having come to the
/// errand. That takes a third CPU to be seen.
fn two_moves(bench: &mut Bench<'_>) -> Check {
    let cpus = others();
    let (Some(&home), Some(&far)) = (cpus.first(), cpus.last()) else { return Ok(()) };
    if home == far {
        return Ok(());
    }
    let mut vm = counting_guest(bench, 0)?;
    stop_it(vm.vcpu)?;
    let looking = Looking::new(bench, home, vm.vcpu)?;
    let mut at_once = 0;
    // Until it was so at least once, which is a matter of how the emulator takes turns.
    for round in 0..30 * ROUNDS {
        if at_once > 0 && round >= 3 * ROUNDS {
            break;
        }
        insist("moving there", || vm.vcpu.move_to(home))?;
        nap(bench, 20 + round * 7 % 50);
        let first = vm.vcpu.move_to(far).map_err(show)?;
        let second = vm.vcpu.move_to(0).map_err(show)?;
        at_once += u64::from(!first && second);
        if !second {
            insist("moving away", || vm.vcpu.move_to(0))?;
        }
        nap(bench, 50);
        // Its exit ends it if it is not where its handler is.
        vm.vcpu.recall().map_err(show)?;
        vm.vcpu.go().map_err(show)?;
        let exit = vm.wait().map_err(|why| format!("round {round}: {why}"))?;
        check_eq!(exit, Exit::Recall, "round {round}: the exit");
        vm.resume(Groups::NONE)?;
        // Its handler is on this CPU: only who waits lets it answer.
        guest_goes_on(bench, &vm)?;
        stop_it(vm.vcpu)?;
    }
    check!(at_once > 0, "the first move was done at once each time, or the second one was not");
    looking.end()?;
    vm.end()
}

/// The same where the other CPU is on its way to the handler of an exit when it is asked for the stop.
fn withdrawn_stop_in_exits(bench: &mut Bench<'_>) -> Check {
    for cpu in others() {
        let vm = counting_guest(bench, cpu)?;
        stop_it(vm.vcpu)?;
        let looking = Looking::new(bench, cpu, vm.vcpu)?;
        for round in 0..3 * ROUNDS {
            nap(bench, round * 7 % 50);
            looking.vcpu.stop().map_err(show)?;
            looking.vcpu.go().map_err(show)?;
            let before = looking.vcpu.look(bench.utcb).map_err(show)?.events;
            let deadline = bench.in_ms(2000);
            while looking.vcpu.look(bench.utcb).map_err(show)?.events < before + 3 {
                check!(now() < deadline, "CPU {cpu}, round {round}: it stands still");
                nap(bench, 20);
            }
        }
        looking.end()?;
        vm.end()?;
    }
    Ok(())
}

/// A handler that makes hypercalls without end, until it is told to answer.
struct Restless {
    entered: Sm,
    upped: Sm,
    enough: &'static AtomicBool,
}

/// A thread calls a handler, which calls another one. The first one ends while the second one computes on the thread's time: the thread
/// is free then, and moves, but its time is in use until the CPU that it was on decides.
fn time_of_others(bench: &mut Bench<'_>) -> Check {
    let ids = apic_ids(bench)?;
    for home in others() {
        for round in 0..ROUNDS / 2 {
            let what = format!("CPU {home}, round {round}");
            let restless = Restless {
                entered: semaphore()?,
                upped: semaphore()?,
                enough: Box::leak(Box::new(AtomicBool::new(false))),
            };
            let (entered, upped, enough) = (restless.entered, restless.upped, restless.enough);
            let inner = handler_on(home, restless)?;
            let deep = inner
                .portal(0, 0, |restless: &mut Restless, _: &mut Utcb, _, _| {
                    let _ = restless.entered.up();
                    while !restless.enough.load(Ordering::Relaxed) {
                        let _ = restless.upped.up();
                    }
                    MsgTag::new(0, 0)
                })
                .map_err(show)?;
            let outer = handler_on(home, deep)?;
            let portal = outer
                .portal(0, 0, |deep: &mut Pt, _: &mut Utcb, _, _| {
                    let _ = deep.signal();
                    MsgTag::new(0, 0)
                })
                .map_err(show)?;
            let counter = Counter::after(home, slice(bench, 2), move || {
                let _ = portal.signal();
            })?;
            entered.down_until(bench.in_ms(500)).map_err(show)?;
            nap(bench, 10 + round * 7 % 50);
            // SAFETY: it holds nothing.
            unsafe { outer.ec().destroy() }.map_err(show)?;
            insist("moving", || counter.thread.ec.move_to(0))?;
            for _ in 0..5 {
                counter.goes_on(bench).map_err(|why| format!("{what}: {why}"))?;
                check_eq!(counter.at(), ids[0], "{what}: its processor");
            }
            end(counter.thread)?;
            enough.store(true, Ordering::Relaxed);
            // SAFETY: nobody calls it any more.
            unsafe { inner.ec().destroy() }.map_err(show)?;
            for selector in
                [deep.selector(), portal.selector(), entered.selector(), upped.selector()]
            {
                // SAFETY: portals and semaphores are no memory.
                unsafe { hypercall::destroy(selector) }.map_err(show)?;
                FREE.give(selector);
            }
            for ec in [inner.ec(), outer.ec()] {
                FREE.give(ec.selector());
            }
        }
    }
    Ok(())
}

/// A thread that counts how often it is interrupted.
struct Interrupted {
    thread: Thread,
    times: &'static AtomicU64,
}

impl Interrupted {
    fn new(cpu: u16, share: Share) -> Result<Self, alloc::string::String> {
        let times: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(0)));
        let thread = spawn_on(cpu, share, move |_| {
            loop {
                until_interrupted();
                times.fetch_add(1, Ordering::Relaxed);
            }
        })?;
        Ok(Self { thread, times })
    }

    fn times(&self) -> u64 {
        self.times.load(Ordering::Relaxed)
    }
}

/// An IRET to ring 3 clears a null selector in a data segment register (SDM 2A, IRET; APM 3, IRET): 3 does not stay there. In 64-bit
/// mode nothing else depends on ES.
fn until_interrupted() {
    // SAFETY: no memory is accessed, and ES is not used.
    unsafe {
        asm!(
            "mov es, {mark:e}",
            "2:",
            "pause",
            "mov {seen:e}, es",
            "cmp {seen:e}, 3",
            "je 2b",
            mark = in(reg) 3_u64,
            seen = out(reg) _,
            options(nomem, nostack),
        );
    }
}

/// How often something is done that must not interrupt another CPU.
const REQUESTS: u64 = 200;
/// How often that may be interrupted meanwhile by something else.
const STRAY: u64 = REQUESTS / 10;

/// A deadline that is set from far for a guest that stands still interrupts nobody, and is kept.
fn deadlines(bench: &mut Bench<'_>) -> Check {
    for cpu in others() {
        let share = Share { priority: 2, budget: bench.hz, period: 0 };
        let other = Interrupted::new(cpu, share)?;
        let mut vm = counting_guest(bench, cpu)?;
        let ec = vm.vcpu;
        stop_it(ec)?;
        let mut state = read(bench, ec, Groups::DEADLINE)?;
        // To be woken is an interrupt: the counting works.
        until(bench, "an interrupt", || other.times() > 0)?;
        let before = other.times();
        for round in 0..REQUESTS {
            state.deadline = bench.in_ms(10_000) - round;
            write(bench, ec, Groups::DEADLINE, &state)?;
            nap(bench, 5);
        }
        let times = other.times() - before;
        check!(times < STRAY, "CPU {cpu}: {times} interrupts by {REQUESTS} deadlines");
        for _ in 0..10 {
            let deadline = bench.in_ms(2);
            state.deadline = deadline;
            write(bench, ec, Groups::DEADLINE, &state)?;
            ec.go().map_err(show)?;
            check_eq!(vm.wait()?, Exit::Recall, "CPU {cpu}: the exit");
            let came = now();
            check!(came >= deadline, "CPU {cpu}: {} ticks early", deadline - came);
            check!(
                came - deadline < 4 * slack(bench.hz),
                "CPU {cpu}: {} ticks late",
                came - deadline
            );
            vm.resume(Groups::NONE)?;
            guest_goes_on(bench, &vm)?;
            stop_it(ec)?;
            state = read(bench, ec, Groups::DEADLINE)?;
            check_eq!(state.deadline, u64::MAX, "CPU {cpu}: the deadline afterwards");
        }
        vm.end()?;
        end(other.thread)?;
    }
    Ok(())
}

/// A CPU that a guest has left is not interrupted for ever when memory is taken away from that.
fn memory_of_old(bench: &mut Bench<'_>) -> Check {
    const PAGE: u64 = 0x2_0000;
    for cpu in others() {
        let share = Share { priority: 2, budget: bench.hz, period: 0 };
        let other = Interrupted::new(cpu, share)?;
        let vm = counting_guest(bench, cpu)?;
        stop_it(vm.vcpu)?;
        read(bench, vm.vcpu, Groups::RIP)?;
        until(bench, "an interrupt", || other.times() > 0)?;
        let before = other.times();
        for _ in 0..REQUESTS {
            vm.unmap(PAGE, 0x1000, MemRights::RWX)?;
            vm.map(PAGE, 0x1000, MemRights::RWX)?;
            nap(bench, 5);
        }
        let times = other.times() - before;
        check!(times < STRAY, "CPU {cpu}: {times} interrupts by {REQUESTS} pages");
        vm.end()?;
        end(other.thread)?;
    }
    Ok(())
}
