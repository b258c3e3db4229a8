//! Virtual CPUs that are called out, stopped and changed from another CPU.

use abi::hypercall::{EcActivity, Status};
use abi::vcpu::{Event, Exit, Groups, VcpuState};
use runtime::clock::now;
use runtime::ec::Ec;

use super::destroy::{counting_guest, guest_count, guest_goes_on};
use super::worker::{insist, nap, on, others, show, slice};
use crate::report::{Bench, Check, Test};
use crate::vcpu::modes::{Mode, stub};
use crate::vcpu::vm::{CODE, Spaces, Vm};
use crate::{check, check_eq, code, format};

pub const TESTS: &[Test] = &[
    ("guest.recall", recall),
    ("guest.recall-in-an-exit", recall_in_an_exit),
    ("guest.stop", stop),
    ("guest.events", events),
    ("guest.deadline", deadline),
    ("guest.every-group", every_group),
];

const ROUNDS: u64 = 100;

pub fn stop_it(ec: Ec) -> Check {
    insist("stopping", || ec.stop())
}

/// Reads groups of a virtual CPU that was stopped, as soon as its CPU has let go of it.
pub fn read(
    bench: &mut Bench<'_>,
    ec: Ec,
    groups: Groups,
) -> Result<VcpuState, alloc::string::String> {
    let mut state = VcpuState::default();
    insist("reading", || match ec.read(bench.utcb, groups) {
        Ok(read) => {
            state = read;
            Ok(true)
        }
        Err(Status::Busy) => Ok(false),
        Err(status) => Err(status),
    })?;
    Ok(state)
}

pub fn write(bench: &mut Bench<'_>, ec: Ec, groups: Groups, state: &VcpuState) -> Check {
    insist("writing", || match ec.write(bench.utcb, groups, state) {
        Ok(()) => Ok(true),
        Err(Status::Busy) => Ok(false),
        Err(status) => Err(status),
    })
}

/// A virtual machine on `cpu`, stopped before its first instruction.
pub fn vm_on(bench: &Bench<'_>, cpu: u16) -> Result<Vm, alloc::string::String> {
    let share = slice(bench, bench.priority - 2);
    let mut vm = Vm::on(bench, 0, Spaces::default(), (on(cpu), share))?;
    vm.patience = 500;
    Ok(vm)
}

/// One exit for each call, and no exit without one.
fn recall(bench: &mut Bench<'_>) -> Check {
    for cpu in others() {
        let mut vm = counting_guest(bench, cpu)?;
        for round in 0..ROUNDS {
            nap(bench, round * 7 % 50);
            vm.vcpu.recall().map_err(show)?;
            let exit = vm.wait().map_err(|why| format!("CPU {cpu}, round {round}: {why}"))?;
            check_eq!(exit, Exit::Recall, "CPU {cpu}, round {round}: the exit");
            let count = guest_count(&vm);
            vm.resume(Groups::NONE)?;
            if round % 16 == 0 {
                vm.patience = 2;
                check!(vm.wait().is_err(), "CPU {cpu}, round {round}: a second exit");
                vm.patience = 500;
                check!(guest_count(&vm) > count, "CPU {cpu}, round {round}: it stands still");
            }
        }
        vm.end()?;
    }
    Ok(())
}

fn recall_in_an_exit(bench: &mut Bench<'_>) -> Check {
    for cpu in others() {
        let mut vm = vm_on(bench, cpu)?;
        for _ in 0..ROUNDS / 4 {
            vm.start(Mode::Long, code!(64, "cpuid", "hlt"), Exit::Cpuid)?;
            vm.vcpu.recall().map_err(show)?;
            vm.expect(Groups::DONE, Exit::Recall)?;
            check_eq!(vm.state.rip, CODE + 2, "CPU {cpu}: RIP");
            vm.expect(Groups::NONE, Exit::Hlt)?;
        }
        vm.end()?;
    }
    Ok(())
}

/// It stands still when that is said, has what it had, and goes on with what it is given.
fn stop(bench: &mut Bench<'_>) -> Check {
    const SEEN: Groups = Groups::ACDB.union(Groups::RIP);
    for cpu in others() {
        let vm = counting_guest(bench, cpu)?;
        let ec = vm.vcpu;
        let refused = ec.read(bench.utcb, Groups::RIP).err();
        check_eq!(refused, Some(Status::Busy), "CPU {cpu}: reading while it runs");
        for round in 0..ROUNDS {
            guest_goes_on(bench, &vm)?;
            stop_it(ec)?;
            let count = guest_count(&vm);
            let mut state = read(bench, ec, SEEN)?;
            check!(
                (CODE..CODE + 24).contains(&state.rip),
                "CPU {cpu}, round {round}: RIP {:#x}",
                state.rip
            );
            nap(bench, 100);
            check_eq!(guest_count(&vm), count, "CPU {cpu}, round {round}: it counts on");
            let looked = ec.look(bench.utcb).map_err(show)?.activity;
            check_eq!(looked, EcActivity::Stopped, "CPU {cpu}, round {round}: what it does");
            let rax = (round + 1) << 40;
            state.gpr.rax = rax;
            write(bench, ec, Groups::ACDB, &state)?;
            ec.go().map_err(show)?;
            guest_goes_on(bench, &vm)?;
            stop_it(ec)?;
            let state = read(bench, ec, SEEN)?;
            check_eq!(state.gpr.rax >> 40, round + 1, "CPU {cpu}, round {round}: RAX");
            check!(state.gpr.rax > rax, "CPU {cpu}, round {round}: RAX does not count");
            ec.go().map_err(show)?;
        }
        vm.end()?;
    }
    Ok(())
}

/// RFLAGS.IF.
const INTERRUPTS: u64 = 1 << 9;

/// An interrupt that is written while it stands still arrives once; the guest counts them.
fn events(bench: &mut Bench<'_>) -> Check {
    for cpu in others() {
        let mut vm = vm_on(bench, cpu)?;
        // The stub of vector 0x40 halts, and goes back to the loop behind that.
        vm.load(Mode::Long, code!(64, "2:", "inc rax", "jmp 2b"))?;
        vm.state.rflags = 0x202;
        vm.resume(Groups::ALL)?;
        let ec = vm.vcpu;
        for round in 0..ROUNDS {
            nap(bench, round * 7 % 50);
            stop_it(ec)?;
            // Before it has come back from the stub of the last round it takes no interrupt.
            while read(bench, ec, Groups::RFLAGS)?.rflags & INTERRUPTS == 0 {
                ec.go().map_err(show)?;
                nap(bench, 5);
                stop_it(ec)?;
            }
            let mut state = read(bench, ec, Groups::EVENT)?;
            check!(!state.event.is_valid(), "CPU {cpu}, round {round}: an event from nowhere");
            state.event = Event::interrupt(0x40);
            write(bench, ec, Groups::EVENT, &state)?;
            let again = read(bench, ec, Groups::EVENT)?;
            check_eq!(again.event, state.event, "CPU {cpu}, round {round}: the event");
            ec.go().map_err(show)?;
            let exit = vm.wait().map_err(|why| format!("CPU {cpu}, round {round}: {why}"))?;
            check_eq!(exit, Exit::Hlt, "CPU {cpu}, round {round}: the exit");
            check_eq!(vm.state.rip, stub(0x40), "CPU {cpu}, round {round}: the handler");
            vm.resume(Groups::DONE)?;
        }
        vm.stop()?;
        vm.end()?;
    }
    Ok(())
}

/// A deadline that passes while it stands still is kept for later, and comes once.
fn deadline(bench: &mut Bench<'_>) -> Check {
    for cpu in others() {
        let mut vm = vm_on(bench, cpu)?;
        vm.load(Mode::Long, code!(64, "2:", "inc rax", "jmp 2b"))?;
        vm.state.rflags = 0x202;
        vm.state.deadline = now() + bench.hz / 1000;
        vm.resume(Groups::ALL)?;
        let ec = vm.vcpu;
        for round in 0..ROUNDS / 4 {
            // Before, at and behind the deadline.
            nap(bench, 900 + round * 10);
            // It is at rest soon, unless its exit is there already, which nobody answers meanwhile.
            let mut at_rest = false;
            for _ in 0..100 {
                at_rest = ec.stop().map_err(show)?;
                if at_rest {
                    break;
                }
                nap(bench, 20);
            }
            if at_rest {
                nap(bench, 1500);
                ec.go().map_err(show)?;
            }
            let exit = vm.wait().map_err(|why| format!("CPU {cpu}, round {round}: {why}"))?;
            check_eq!(exit, Exit::Recall, "CPU {cpu}, round {round}: the exit");
            if !at_rest {
                // Asked while the exit was not answered: it stands still behind the answer.
                ec.go().map_err(show)?;
            }
            vm.state.deadline = now() + bench.hz / 1000;
            vm.resume(Groups::DEADLINE)?;
        }
        vm.end()?;
    }
    Ok(())
}

/// What is read can be written back, and it goes on as if nothing had been.
fn every_group(bench: &mut Bench<'_>) -> Check {
    for cpu in others() {
        let vm = counting_guest(bench, cpu)?;
        let ec = vm.vcpu;
        let all = Groups(Groups::ALL.0 & !Groups::QUAL.0);
        for _ in 0..ROUNDS / 4 {
            stop_it(ec)?;
            let before = read(bench, ec, all)?;
            write(bench, ec, all, &before)?;
            let after = read(bench, ec, all)?;
            check_eq!(after, before, "CPU {cpu}: the state after it was written back");
            ec.go().map_err(show)?;
            guest_goes_on(bench, &vm)?;
        }
        vm.end()?;
    }
    Ok(())
}
