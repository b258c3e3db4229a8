//! When a guest runs, and how it is called out.

use alloc::format;

use abi::cap::NULL;
use abi::hypercall::Status;
use abi::vcpu::{Exit, Groups, VcpuState};
use runtime::clock::now;
use runtime::ec::Ec;
use runtime::handler::Handler;
use runtime::hypercall;
use runtime::pd::Pd;
use runtime::protocol::startup::Share;
use runtime::sc::Sc;
use runtime::selector::FREE;
use runtime::sm::Sm;

use super::exits::vm;
use super::modes::{self, Mode, stub};
use super::vm::{CODE, MEMORY, Spaces, Vm};
use crate::processor::{is_tcg, patiently, slack};
use crate::report::{Bench, Check, Test};
use crate::{check, check_eq, code};

pub const TESTS: &[Test] = &[
    ("run.deadline", deadline),
    ("run.deadline-passed", |bench| patiently(|| deadline_passed(bench))),
    ("run.deadline-in-halt", |bench| patiently(|| deadline_while_stopped(bench))),
    ("run.recall", recall),
    ("run.recall-stopped", recall_stopped),
    ("run.time-slices", |bench| patiently(|| time_slices(bench))),
    ("run.endless-exceptions", endless_exceptions),
    ("run.no-portal", no_portal),
    ("run.many-without-portal", many_without_portal),
    ("run.dead-handler", dead_handler),
];

/// JMP to itself: the same bytes in every mode.
const SPIN: &[u8] = &[0xeb, 0xfe];

/// Prepares a guest that never leaves by itself. It has interrupts on: Bochs keeps external interrupts of the host back from a guest that
/// is entered with IF clear, which no processor does (SDM 3C 26.2), until the guest changes IF.
fn spinner(vm: &mut Vm, mode: Mode, code: &[u8]) -> Check {
    vm.load(mode, code)?;
    vm.state.rflags = 0x202;
    Ok(())
}

fn deadline(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    for (mode, us) in
        [(Mode::Real, 10), (Mode::Protected, 100), (Mode::Long, 1000), (Mode::Long, 5000)]
    {
        patiently(|| {
            spinner(&mut vm, mode, SPIN)?;
            let deadline = now() + bench.hz / 1_000_000 * us;
            vm.state.deadline = deadline;
            vm.expect(Groups::ALL, Exit::Recall)?;
            let end = now();
            check!(end >= deadline, "{us} us: {} ticks too early", deadline - end);
            check!(end - deadline < slack(bench.hz), "{us} us: {} ticks too late", end - deadline);
            Ok(())
        })?;
        check_eq!(vm.state.rip, CODE, "RIP");
        // One deadline, one recall.
        vm.resume(Groups::NONE)?;
        vm.patience = 5;
        check!(vm.wait().is_err(), "a second exit for one deadline");
        vm.patience = 100;
        vm.stop()?;
    }
    Ok(())
}

fn deadline_passed(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    for deadline in [1, now()] {
        spinner(&mut vm, Mode::Long, SPIN)?;
        vm.state.deadline = deadline;
        let start = now();
        vm.expect(Groups::ALL, Exit::Recall)?;
        check!(
            now() - start < slack(bench.hz) * 2,
            "a deadline in the past took {}",
            now() - start
        );
    }
    // A new one in place of the old: the old does not count.
    spinner(&mut vm, Mode::Long, SPIN)?;
    vm.state.deadline = now() + bench.hz / 1000;
    vm.expect(Groups::ALL, Exit::Recall)?;
    vm.state.deadline = now() + bench.hz / 200;
    let second = vm.state.deadline;
    vm.expect(Groups::DEADLINE, Exit::Recall)?;
    check!(now() >= second, "the second deadline came early");
    Ok(())
}

fn deadline_while_stopped(bench: &mut Bench<'_>) -> Check {
    // It passes while the handler has the virtual CPU: the recall waits for the guest.
    let mut vm = vm(bench)?;
    vm.load(Mode::Long, code!(64, "cpuid", "hlt"))?;
    let soon = slack(bench.hz) * 2;
    vm.state.deadline = now() + soon;
    vm.expect(Groups::ALL, Exit::Cpuid)?;
    let sleep = Sm::create(Pd::OWN, 0).map_err(|status| format!("{status:?}"))?;
    let _ = sleep.down_until(now() + soon * 3);
    vm.expect(Groups::DONE, Exit::Recall)?;
    check_eq!(vm.state.rip, CODE + 2, "RIP");
    vm.expect(Groups::NONE, Exit::Hlt)
}

fn recall(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    spinner(&mut vm, Mode::Long, SPIN)?;
    vm.resume(Groups::ALL)?;
    vm.patience = 5;
    check!(vm.wait().is_err(), "a guest that spins has an exit");
    vm.patience = 100;
    for _ in 0..3 {
        vm.vcpu.recall().map_err(|status| format!("{status:?}"))?;
        // Twice is not more than once.
        vm.vcpu.recall().map_err(|status| format!("{status:?}"))?;
        check_eq!(vm.wait()?, Exit::Recall, "exit");
        check_eq!(vm.state.rip, CODE, "RIP");
        vm.resume(Groups::NONE)?;
        vm.patience = 3;
        check!(vm.wait().is_err(), "a second exit for one recall");
        vm.patience = 100;
    }
    vm.stop()
}

fn recall_stopped(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    vm.start(Mode::Long, code!(64, "cpuid", "hlt"), Exit::Cpuid)?;
    vm.vcpu.recall().map_err(|status| format!("{status:?}"))?;
    vm.expect(Groups::DONE, Exit::Recall)?;
    // Before the next instruction: the reply has taken effect, nothing else has happened.
    check_eq!(vm.state.rip, CODE + 2, "RIP");
    vm.expect(Groups::NONE, Exit::Hlt)
}

fn time_slices(bench: &mut Bench<'_>) -> Check {
    // Two guests that never rest share what the main thread leaves.
    let mut vms =
        [Vm::new(bench, 0, Spaces::default())?, Vm::new(bench, MEMORY, Spaces::default())?];
    for vm in &mut vms {
        spinner(vm, Mode::Long, code!(64, "2:", "inc rax", "jmp 2b"))?;
        vm.resume(Groups::ALL)?;
    }
    let sleep = Sm::create(Pd::OWN, 0).map_err(|status| format!("{status:?}"))?;
    let start = now();
    // Each has slices of 10 ms.
    let time = slack(bench.hz) * 160;
    let _ = sleep.down_until(start + time);
    let late = now() - start - time;
    let mut counts = [0; 2];
    for (vm, count) in vms.iter_mut().zip(&mut counts) {
        vm.stop()?;
        *count = vm.state.gpr.rax;
    }
    check!(late < slack(bench.hz) * 4, "{late} ticks late while guests ran");
    let [a, b] = counts;
    check!(a > 0 && b > 0 && a / b < 2 && b / a < 2, "the guests counted to {counts:?}");
    Ok(())
}

/// A virtual CPU whose handler has portals only for those exits.
fn partial(bench: &Bench<'_>, exits: &[Exit], events: Option<u32>) -> Result<(), Status> {
    let space = runtime::space::GuestSpace::create(Pd::OWN)?;
    let region = bench.memory.region(0, MEMORY).map_err(|_| Status::BadParam)?;
    space.grant(region, 0, abi::cap::MemRights::RWX)?;
    let mut defaults = runtime::task::defaults();
    defaults.events = events.unwrap_or(defaults.events);
    let handler = Handler::with(defaults, 16 * 1024, ())?;
    let portals = FREE.range(abi::vcpu::EXITS)?;
    for exit in exits {
        handler.portal_at(
            portals + *exit as u32,
            *exit as u64,
            0,
            |(), state: &mut VcpuState, exit, _| {
                if exit == Exit::Cpuid as u64 {
                    runtime::task::die();
                }
                *state = modes::state(Mode::Real);
                Groups::ALL
            },
        )?;
    }
    let vcpu = FREE.one()?;
    hypercall::create_vcpu(vcpu, Pd::OWN.selector(), (0, portals), (space.selector(), NULL, NULL))?;
    let share = Share { priority: bench.priority - 1, budget: bench.hz / 100, period: 0 };
    Sc::create(Pd::OWN, Ec::at(vcpu), share).map(|_| ())
}

fn others_go_on(bench: &mut Bench<'_>) -> Check {
    let sleep = Sm::create(Pd::OWN, 0).map_err(|status| format!("{status:?}"))?;
    let _ = sleep.down_until(bench.in_ms(3));
    let mut vm = Vm::new(bench, MEMORY, Spaces::default())?;
    vm.start(Mode::Long, code!(64, "hlt"), Exit::Hlt)
}

/// The delivery of #DB touches what a breakpoint watches, and so raises #DB, for ever. Deadlines are kept all the same.
fn endless_exceptions(bench: &mut Bench<'_>) -> Check {
    const DEBUG_GATE: u64 = 0x3010;
    const TASK_STATE: u64 = 0x9000;
    const FIRST_STACK: u64 = TASK_STATE + 0x24;
    const STACK_TOP: u64 = 0xa000;
    // Local and global, on writes, of eight bytes.
    const WATCH_WRITES: u64 = 0b11 | 0b1001 << 16 | 0x400;
    if is_tcg() {
        // QEMU itself crashes when the delivery of an event touches what a breakpoint watches.
        return Ok(());
    }
    let mut vm = vm(bench)?;
    vm.load(Mode::Long, code!(64, "int3", "2: jmp 2b"))?;
    // The gates of #DB and #BP change to the first interrupt stack, so that each frame lies where the last one was.
    for gate in [DEBUG_GATE, DEBUG_GATE + 0x20] {
        vm.poke(gate + 4, &[1])?;
    }
    vm.poke(FIRST_STACK, &STACK_TOP.to_le_bytes())?;
    vm.state.tr.base = TASK_STATE;
    vm.state.tr.limit = 0x67;
    vm.state.dr[0] = STACK_TOP - 8;
    vm.state.dr7 = WATCH_WRITES;
    vm.state.rflags = 0x202;
    vm.state.deadline = now() + bench.hz / 1000;
    vm.expect(Groups::ALL, Exit::Recall)?;
    check_eq!(vm.state.dr6 & 0xf, 1, "the breakpoint in DR6");
    check_eq!(vm.state.rip, stub(1), "the handler of #DB");
    others_go_on(bench)
}

fn no_portal(bench: &mut Bench<'_>) -> Check {
    let mut code = [0xf4; 16];
    code[0..2].copy_from_slice(&[0x0f, 0xa2]);
    for exits in [&[][..], &[Exit::Startup]] {
        bench.memory.write(CODE, &code).map_err(|_| "outside of memory")?;
        partial(bench, exits, None).map_err(|status| format!("{status:?}"))?;
        others_go_on(bench)?;
    }
    Ok(())
}

/// They all die one after the other, in one go, before anything else runs.
fn many_without_portal(bench: &mut Bench<'_>) -> Check {
    const MANY: usize = 100;
    let space = runtime::space::GuestSpace::create(Pd::OWN).map_err(|s| format!("{s:?}"))?;
    let nobody = FREE.range(abi::vcpu::EXITS).map_err(|s| format!("{s:?}"))?;
    let share = Share { priority: bench.priority - 1, budget: bench.hz / 100, period: 0 };
    for number in 0..MANY {
        let make = || {
            let vcpu = FREE.one()?;
            let spaces = (space.selector(), NULL, NULL);
            hypercall::create_vcpu(vcpu, Pd::OWN.selector(), (0, nobody), spaces)?;
            Sc::create(Pd::OWN, Ec::at(vcpu), share).map(|_| ())
        };
        make().map_err(|status: Status| format!("virtual CPU {number}: {status:?}"))?;
    }
    others_go_on(bench)?;
    // The root task shows within half a second what the kernel has said of each, and that takes time from those who come next.
    let rest = Sm::create(Pd::OWN, 0).map_err(|status| format!("{status:?}"))?;
    let _ = rest.down_until(bench.in_ms(1500));
    Ok(())
}

fn dead_handler(bench: &mut Bench<'_>) -> Check {
    // The handler dies over an exit: so does the virtual CPU, and nobody else.
    bench.memory.write(CODE, &[0x0f, 0xa2, 0xf4]).map_err(|_| "outside of memory")?;
    let nobody = FREE.range(32).map_err(|status| format!("{status:?}"))?;
    partial(bench, &[Exit::Startup, Exit::Cpuid], Some(nobody))
        .map_err(|status| format!("{status:?}"))?;
    others_go_on(bench)
}
