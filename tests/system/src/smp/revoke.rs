//! What is taken away is gone on all CPUs when the hypercall returns.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::cap::{MemRights, Perms};
use abi::hypercall::Status;
use abi::vcpu::{Exit, Groups};
use runtime::hypercall;
use runtime::pd::{Limits, Pd};
use runtime::selector::FREE;
use runtime::sm::Sm;
use runtime::space::{MsrSpace, ObjectSpace, PortSpace};
use runtime::task::cpus;

use super::domain::{DATA, Domain, Faults};
use super::worker::{Worker, end, nap, on, others, show, slice, until};
use crate::kernel::threads::semaphore;
use crate::report::{Bench, Check, Test};
use crate::vcpu::modes::Mode;
use crate::vcpu::vm::{Spaces, Vm};
use crate::{check, check_eq, code, format};

pub const TESTS: &[Test] = &[
    ("revoke.memory", memory),
    ("revoke.write-right", write_right),
    ("revoke.all-at-once", all_at_once),
    ("revoke.guest-memory", guest_memory),
    ("revoke.guest-registers", guest_registers),
    ("revoke.guest-ports", guest_ports),
    ("revoke.capability", capability),
];

const ROUNDS: u32 = 30;

/// A thread on another CPU counts in a page that is taken away.
fn take_away(bench: &Bench<'_>, cpu: u16, rights: MemRights) -> Check {
    let faults = Faults::new(cpu)?;
    let domain = Domain::new(bench, Limits { priority: 5, cpus: 1 << cpu })?;
    faults.take(domain).map_err(show)?;
    let counts = || domain.count(0);
    domain.thread(cpu, 0).map_err(show)?;
    domain.run(0, (2, bench.hz / 10_000)).map_err(show)?;
    for round in 0..ROUNDS {
        let before = counts();
        until(bench, "counting", || counts() > before + 2)?;
        // At different moments of what it does.
        nap(bench, u64::from(round * 7 % 50));
        domain.unmap_data(rights).map_err(show)?;
        let gone = counts();
        let fault = faults.wait(bench).map_err(|why| format!("CPU {cpu}: {why}"))?;
        check_eq!(fault, (14, DATA), "CPU {cpu}, round {round}: vector and address");
        check_eq!(counts(), gone, "CPU {cpu}, round {round}: what it wrote afterwards");
        domain.map_data().map_err(show)?;
        faults.answer()?;
    }
    check!(faults.quiet(), "a fault too many");
    domain.pd.destroy().map_err(show)?;
    faults.end()
}

fn memory(bench: &mut Bench<'_>) -> Check {
    others().into_iter().try_for_each(|cpu| take_away(bench, cpu, MemRights::RWX))
}

fn write_right(bench: &mut Bench<'_>) -> Check {
    others().into_iter().try_for_each(|cpu| take_away(bench, cpu, MemRights::W))
}

/// Threads of one domain on all CPUs but this one lose their page together.
fn all_at_once(bench: &mut Bench<'_>) -> Check {
    let domain = Domain::new(bench, Limits { priority: 5, ..Limits::NONE })?;
    let mut threads = Vec::new();
    for cpu in others() {
        let (faults, index) = (Faults::new(cpu)?, u64::from(cpu));
        faults.take(domain).map_err(show)?;
        domain.thread(cpu, index).map_err(show)?;
        threads.push((faults, index));
    }
    for (_, index) in &threads {
        domain.run(*index, (2, bench.hz / 10_000)).map_err(show)?;
    }
    let counts = || threads.iter().map(|(_, index)| domain.count(*index)).collect::<Vec<_>>();
    for round in 0..ROUNDS {
        let before = counts();
        until(bench, "counting", || {
            counts().iter().zip(&before).all(|(now, before)| *now > before + 2)
        })?;
        domain.unmap_data(MemRights::RWX).map_err(show)?;
        let gone = counts();
        for (faults, index) in &threads {
            let (vector, address) = faults.wait(bench)?;
            check_eq!((vector, address), (14, DATA + 8 * index), "round {round}: a fault");
        }
        check_eq!(counts(), gone, "round {round}: what they wrote afterwards");
        domain.map_data().map_err(show)?;
        threads.iter().try_for_each(|(faults, _)| faults.answer())?;
    }
    domain.pd.destroy().map_err(show)?;
    threads.into_iter().try_for_each(|(faults, _)| faults.end())
}

/// A guest on another CPU writes to a page that is taken away, without an exit in between.
fn guest_memory(bench: &mut Bench<'_>) -> Check {
    const PAGE: u64 = 0x2_0000;
    for cpu in others() {
        for rights in [MemRights::W, MemRights::RWX] {
            let share = slice(bench, bench.priority - 2);
            let mut vm = Vm::on(bench, 0, Spaces::default(), (on(cpu), share))?;
            let code = code!(64, "mov rdi, 0x20000", "2:", "inc qword ptr [rdi]", "jmp 2b");
            vm.load(Mode::Long, code)?;
            vm.poke(PAGE, &[0; 8])?;
            vm.state.rflags = 0x202;
            vm.resume(Groups::ALL)?;
            for round in 0..ROUNDS {
                let before = vm.peek_u64(PAGE)?;
                until(bench, "counting", || vm.peek_u64(PAGE).is_ok_and(|now| now > before + 2))?;
                nap(bench, u64::from(round * 7 % 50));
                vm.unmap(PAGE, 0x1000, rights)?;
                let gone = vm.peek_u64(PAGE)?;
                vm.patience = 500;
                let exit = vm.wait();
                vm.map(PAGE, 0x1000, MemRights::RWX)?;
                let exit = exit.map_err(|why| format!("CPU {cpu}, round {round}: {why}"))?;
                check_eq!(exit, Exit::Memory, "CPU {cpu}, round {round}: the exit");
                check_eq!(vm.state.qual[1], PAGE, "its address");
                check_eq!(vm.peek_u64(PAGE)?, gone, "CPU {cpu}, round {round}: written afterwards");
                vm.resume(Groups::NONE)?;
            }
            vm.end()?;
        }
    }
    Ok(())
}

/// What a guest on another CPU does without an exit is taken away, by `take`, and given back, by `give`: it is a part of `code`, which counts
/// how often it was done.
fn guest_loses(
    bench: &Bench<'_>,
    spaces: Spaces,
    (code, exit): (&[u8], Exit),
    take: impl Fn() -> Result<(), Status>,
    give: impl Fn() -> Result<(), Status>,
) -> Check {
    const COUNT: u64 = 0x2_0000;
    for cpu in others() {
        give().map_err(show)?;
        let share = slice(bench, bench.priority - 2);
        let mut vm = Vm::on(bench, 0, spaces, (on(cpu), share))?;
        vm.load(Mode::Long, code)?;
        vm.poke(COUNT, &[0; 8])?;
        vm.state.rflags = 0x202;
        vm.resume(Groups::ALL)?;
        for round in 0..ROUNDS {
            let before = vm.peek_u64(COUNT)?;
            until(bench, "counting", || vm.peek_u64(COUNT).is_ok_and(|now| now > before + 2))?;
            nap(bench, u64::from(round * 7 % 50));
            take().map_err(show)?;
            let gone = vm.peek_u64(COUNT)?;
            vm.patience = 500;
            let stopped = vm.wait().map_err(|why| format!("CPU {cpu}, round {round}: {why}"))?;
            check_eq!(stopped, exit, "CPU {cpu}, round {round}: the exit");
            let more = vm.peek_u64(COUNT)? - gone;
            // What was done before may be counted after.
            check!(more <= 1, "CPU {cpu}, round {round}: {more} times more");
            give().map_err(show)?;
            vm.resume(Groups::NONE)?;
        }
        vm.end()?;
    }
    Ok(())
}

/// A register.
fn guest_registers(bench: &mut Bench<'_>) -> Check {
    const FS_BASE: u32 = 0xc000_0100;
    let source = bench.msrs.ok_or("the task was given no registers")?;
    let msrs = MsrSpace::create(Pd::OWN).map_err(show)?;
    let code = code!(
        64,
        "mov edi, 0x20000",
        "mov ecx, 0xc0000100",
        "2:",
        "rdmsr",
        "inc qword ptr [rdi]",
        "jmp 2b",
    );
    // SAFETY: registers are no memory.
    let take = || unsafe { hypercall::revoke(msrs.selector(), FS_BASE.into(), 1, u64::MAX) };
    let give = || source.grant(FS_BASE, 1, msrs);
    let spaces = Spaces { msrs: Some(msrs), ports: None };
    guest_loses(bench, spaces, (code, Exit::MsrRead), take, give)?;
    // SAFETY: as above.
    unsafe { hypercall::destroy(msrs.selector()) }.map_err(show)
}

/// A port. The domain of the guest's monitor has a port space of its own already.
fn guest_ports(bench: &mut Bench<'_>) -> Check {
    const PORT: u16 = 0x41;
    let source = bench.ports.ok_or("the manifest gives no ports")?;
    let ports = PortSpace::create(Pd::OWN).map_err(show)?;
    let code = code!(64, "mov edi, 0x20000", "2:", "in al, 0x41", "inc qword ptr [rdi]", "jmp 2b");
    // SAFETY: ports are no memory.
    let take = || unsafe { hypercall::revoke(ports.selector(), PORT.into(), 1, u64::MAX) };
    let give = || source.grant(PORT, 1, ports);
    let spaces = Spaces { msrs: None, ports: Some(ports) };
    guest_loses(bench, spaces, (code, Exit::Port), take, give)?;
    // SAFETY: as above.
    unsafe { hypercall::destroy(ports.selector()) }.map_err(show)
}

/// A thread on another CPU uses a capability that is taken away.
fn capability(bench: &mut Bench<'_>) -> Check {
    for cpu in cpus() {
        let worker = Worker::new(bench, cpu)?;
        let sm = semaphore()?;
        let copy = FREE.one().map_err(show)?;
        for round in 0..ROUNDS {
            let own = ObjectSpace::OWN;
            own.grant(sm.selector(), own, copy, Perms::ALL).map_err(show)?;
            let used: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(0)));
            let copied = Sm::at(copy);
            worker.start(move |_| {
                let refused = loop {
                    match copied.up() {
                        Ok(()) => used.fetch_add(1, Ordering::Relaxed),
                        Err(status) => break status,
                    };
                    core::hint::spin_loop();
                };
                let right = refused == Status::BadCap;
                used.fetch_or(if right { 1 << 62 } else { 1 << 63 }, Ordering::Relaxed);
            })?;
            until(bench, "use", || used.load(Ordering::Relaxed) > 2)?;
            own.revoke(copy, 1).map_err(show)?;
            // The count is now all that there will be: the thread may have yet to count the last one.
            let mut ups = 0;
            while sm.down_until(0).is_ok() {
                ups += 1;
            }
            worker.finish(bench, "the last use")?;
            let used = used.load(Ordering::Relaxed);
            check_eq!(used >> 62, 1, "CPU {cpu}, round {round}: the last status");
            check_eq!(used & !(3 << 62), ups, "CPU {cpu}, round {round}: ups");
            check_eq!(sm.down_until(0), Err(Status::Timeout), "an up afterwards");
        }
        end(worker.thread)?;
    }
    Ok(())
}
