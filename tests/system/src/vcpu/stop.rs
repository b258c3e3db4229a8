//! Virtual CPUs that are stopped from outside, looked at, changed, and go on.

use abi::cap::Perms;
use abi::hypercall::{EcActivity, Status};
use abi::vcpu::{Event, Exit, Groups, VcpuState};
use runtime::clock::now;
use runtime::ec::Ec;
use runtime::selector::FREE;
use runtime::space::ObjectSpace;

use super::exits::vm;
use super::modes::{self, Mode, stub};
use super::vm::{CODE, Vm};
use crate::report::{Bench, Check, Test};
use crate::{check, check_eq, code, format};

pub const TESTS: &[Test] = &[
    ("stop.running", running),
    ("stop.in-an-exit", in_an_exit),
    ("stop.with-an-event", with_an_event),
    ("stop.deadline", deadline),
    ("stop.every-group", every_group),
    ("stop.refused", refused),
];

/// Lets the guest have the CPU for a while.
fn nap(bench: &Bench<'_>) {
    let pause = runtime::sm::Sm::create(runtime::pd::Pd::OWN, 0);
    let _ = pause.and_then(|pause| pause.down_until(bench.in_ms(2)));
}

/// A guest that counts in RAX for ever.
fn counter(vm: &mut Vm) -> Check {
    vm.load(Mode::Long, code!(64, "2: inc rax", "jmp 2b"))?;
    vm.state.rflags = 0x202;
    vm.resume(Groups::ALL)
}

fn stop(ec: Ec) -> Check {
    match ec.stop() {
        Ok(true) => Ok(()),
        other => Err(format!("stopping: {other:?}")),
    }
}

fn read(bench: &mut Bench<'_>, ec: Ec, groups: Groups) -> Result<VcpuState, alloc::string::String> {
    ec.read(bench.utcb, groups).map_err(|status| format!("reading: {status:?}"))
}

fn running(bench: &mut Bench<'_>) -> Check {
    const SEEN: Groups = Groups::ACDB.union(Groups::RIP);
    let mut vm = vm(bench)?;
    let ec = vm.vcpu;
    counter(&mut vm)?;
    nap(bench);
    stop(ec)?;
    stop(ec)?;
    let first = read(bench, ec, SEEN)?;
    check!(first.gpr.rax > 100, "it counts to {}", first.gpr.rax);
    check!((CODE..CODE + 5).contains(&first.rip), "RIP {:#x}", first.rip);
    nap(bench);
    let second = read(bench, ec, SEEN)?;
    check_eq!(second.gpr.rax, first.gpr.rax, "RAX while it stands still");
    let looked = ec.look(bench.utcb).map_err(|status| format!("looking: {status:?}"))?;
    check_eq!(looked.activity, EcActivity::Stopped, "what it does");
    // It goes on where it is told to.
    let mut state = second;
    state.gpr.rax = 1 << 40;
    ec.write(bench.utcb, Groups::ACDB, &state).map_err(|status| format!("writing: {status:?}"))?;
    ec.go().map_err(|status| format!("going on: {status:?}"))?;
    nap(bench);
    stop(ec)?;
    let third = read(bench, ec, SEEN)?;
    check!(third.gpr.rax > (1 << 40) + 100, "it went on from {:#x}", third.gpr.rax);
    ec.go().map_err(|status| format!("going on: {status:?}"))?;
    // As if nothing had been.
    vm.stop()?;
    check!(vm.state.gpr.rax >= third.gpr.rax, "RAX at the recall");
    Ok(())
}

/// While its exit is not answered it is not at rest; behind the answer it is.
fn in_an_exit(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    let ec = vm.vcpu;
    vm.start(Mode::Long, code!(64, "cpuid", "mov ebx, 7", "hlt"), Exit::Cpuid)?;
    for _ in 0..2 {
        check_eq!(ec.stop(), Ok(false), "stopping in an exit");
        check_eq!(ec.read(bench.utcb, Groups::RIP).err(), Some(Status::Busy), "reading");
    }
    vm.state.gpr.rax = 0x1234;
    vm.resume(Groups::ACDB | Groups::DONE)?;
    nap(bench);
    stop(ec)?;
    let state = read(bench, ec, Groups::ACDB.union(Groups::RIP))?;
    check_eq!(state.rip, CODE + 2, "RIP behind CPUID");
    check_eq!(state.gpr.rax, 0x1234, "the answer");
    ec.go().map_err(|status| format!("going on: {status:?}"))?;
    check_eq!(vm.wait()?, Exit::Hlt, "the next exit");
    check_eq!(vm.state.gpr.rbx, 7, "RBX");
    Ok(())
}

/// An event that was to be delivered is delivered afterwards, once; so is one that is written.
fn with_an_event(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    let ec = vm.vcpu;
    for mode in modes::ALL {
        for written in [false, true] {
            vm.start(mode, &[0xf4, 0x90, 0xf4], Exit::Hlt)?;
            check_eq!(ec.stop(), Ok(false), "stopping in an exit");
            vm.state.rflags = 0x202;
            vm.state.event = if written { Event::default() } else { Event::interrupt(0x40) };
            vm.resume(Groups::RFLAGS | Groups::EVENT | Groups::DONE)?;
            nap(bench);
            stop(ec)?;
            let mut state = read(bench, ec, Groups::EVENT)?;
            check_eq!(state.event.is_valid(), !written, "{mode:?}: an event waits");
            if written {
                state.event = Event::interrupt(0x40);
                let wrote = ec.write(bench.utcb, Groups::EVENT, &state);
                wrote.map_err(|status| format!("writing: {status:?}"))?;
            }
            ec.go().map_err(|status| format!("going on: {status:?}"))?;
            check_eq!(vm.wait()?, Exit::Hlt, "{mode:?}: the handler's exit");
            check_eq!(vm.state.rip, stub(0x40), "{mode:?}: the handler");
            vm.expect(Groups::DONE, Exit::Hlt)?;
            check_eq!(vm.state.rip, CODE + 2, "{mode:?}: HLT of the main program");
        }
    }
    Ok(())
}

/// A deadline that passes meanwhile is kept for later.
fn deadline(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    let ec = vm.vcpu;
    vm.load(Mode::Long, &[0xeb, 0xfe])?;
    vm.state.rflags = 0x202;
    vm.state.deadline = now() + bench.hz / 100;
    vm.resume(Groups::ALL)?;
    nap(bench);
    stop(ec)?;
    for _ in 0..5 {
        nap(bench);
    }
    check!(vm.wait().is_err(), "it left its guest while it was stopped");
    ec.go().map_err(|status| format!("going on: {status:?}"))?;
    check_eq!(vm.wait()?, Exit::Recall, "the exit afterwards");
    Ok(())
}

/// What is read is what the guest has, and can be written back: it goes on as if nothing had been.
fn every_group(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    let ec = vm.vcpu;
    counter(&mut vm)?;
    nap(bench);
    stop(ec)?;
    let all = Groups(Groups::ALL.0 & !Groups::QUAL.0);
    let before = read(bench, ec, all)?;
    let wrote = ec.write(bench.utcb, all, &before);
    wrote.map_err(|status| format!("writing: {status:?}"))?;
    let after = read(bench, ec, all)?;
    check_eq!(after, before, "the state after it was written back");
    // Everything that the virtual machine had is in it.
    check_eq!(after.cs, vm.state.cs, "CS");
    check_eq!(after.cr3, vm.state.cr3, "CR3");
    check_eq!(after.efer, vm.state.efer, "EFER");
    ec.go().map_err(|status| format!("going on: {status:?}"))?;
    nap(bench);
    vm.stop()?;
    check!(vm.state.gpr.rax > before.gpr.rax, "it does not count any more");
    Ok(())
}

fn refused(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    let ec = vm.vcpu;
    counter(&mut vm)?;
    for groups in [Groups::RIP, Groups::ALL] {
        check_eq!(ec.read(bench.utcb, groups).err(), Some(Status::Busy), "reading while it runs");
        let wrote = ec.write(bench.utcb, groups, &VcpuState::default());
        check_eq!(wrote, Err(Status::Busy), "writing while it runs");
    }
    // To let one go on that runs changes nothing.
    check_eq!(ec.go(), Ok(()), "going on");
    let weak = FREE.one().map_err(|status| format!("selector: {status:?}"))?;
    let all_but = Perms(!Perms::EC_CTRL.0);
    let granted = ObjectSpace::OWN.grant(ec.selector(), ObjectSpace::OWN, weak, all_but);
    granted.map_err(|status| format!("granting: {status:?}"))?;
    check_eq!(Ec::at(weak).stop(), Err(Status::BadCap), "without the permission");
    vm.stop()
}
