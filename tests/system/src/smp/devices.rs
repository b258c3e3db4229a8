//! Devices that interrupt any CPU, and ports that are taken away on all of them.

use alloc::vec::Vec;

use abi::cap::{Perms, SpaceKind};
use abi::hypercall::{IntMode, Status};
use runtime::hypercall;
use runtime::interrupt::Interrupt;
use runtime::pd::Limits;
use runtime::port::outb;
use runtime::selector::FREE;
use runtime::sm::Sm;
use runtime::space::{ObjectSpace, PortSpace};
use runtime::task::cpus;

use super::domain::{Domain, Faults};
use super::worker::{end, nap, show, slice, spawn_on, until};
use crate::kernel::threads::semaphore;
use crate::report::{Bench, Check, Test};
use crate::{check, check_eq, code, format};

pub const TESTS: &[Test] = &[
    ("device.each-processor", each_processor),
    ("device.waiting-thread", waiting_thread),
    ("device.storm", storm),
    ("device.refusals", refusals),
    ("device.revoked-ports", revoked_ports),
];

/// Ticks of the 8254 in a second.
const PIT_HZ: u32 = 1_193_182;
/// Interrupts that may be untaken before a line is held back.
const FAR_BEHIND: u32 = 64;

/// Channel 0 of the 8254, and its interrupt, whose line it raises again and again without being asked.
struct Pit(Interrupt);

impl Pit {
    fn of(bench: &Bench<'_>) -> Result<Self, alloc::string::String> {
        match bench.interrupts.first() {
            Some((2, interrupt)) if bench.ports.is_some() => Ok(Self(*interrupt)),
            _ => Err("the manifest gives no interrupt 2, or no ports".into()),
        }
    }

    fn sm(&self) -> Sm {
        self.0.semaphore()
    }

    /// That often in a second (8254 data sheet, mode 2).
    fn start(&self, hz: u32) {
        let [low, high, ..] = (PIT_HZ / hz).to_le_bytes();
        outb(0x43, 0x34);
        outb(0x40, low);
        outb(0x40, high);
    }

    /// No more (mode 0: it waits for a count that is not written).
    fn stop(&self) {
        outb(0x43, 0x30);
    }

    /// How many interrupts were not taken yet; there are none afterwards.
    fn take(&self) -> u32 {
        (0..).take_while(|_| self.sm().down_until(0).is_ok()).count() as u32
    }
}

/// Its interrupts come whatever processor they are sent to.
fn each_processor(bench: &mut Bench<'_>) -> Check {
    let pit = Pit::of(bench)?;
    for cpu in cpus().chain(cpus()) {
        pit.0.assign(IntMode::ISA, cpu).map_err(show)?;
        pit.start(2000);
        for count in 0..20 {
            let come = pit.sm().down_until(bench.in_ms(500));
            check!(come.is_ok(), "interrupt {count} does not come by way of CPU {cpu}");
        }
        pit.stop();
        nap(bench, 200);
        pit.take();
        nap(bench, 2000);
        // QEMU lets it count to the end once more.
        check!(pit.take() <= 1, "interrupts of a device that stands still");
    }
    Ok(())
}

/// Whoever waits for it can be on another processor than the one that it is sent to, and may end at any time.
fn waiting_thread(bench: &mut Bench<'_>) -> Check {
    let pit = Pit::of(bench)?;
    for (cpu, to) in cpus().flat_map(|cpu| cpus().map(move |to| (cpu, to))) {
        pit.0.assign(IntMode::ISA, to).map_err(show)?;
        pit.start(5000);
        let (sm, counted) = (pit.sm(), semaphore()?);
        let thread = spawn_on(cpu, slice(bench, bench.priority - 1), move |_| {
            while sm.down().is_ok() {
                let _ = counted.up();
            }
        })?;
        for count in 0..10 {
            let come = counted.down_until(bench.in_ms(500));
            check!(come.is_ok(), "interrupt {count}, sent to CPU {to}, does not reach CPU {cpu}");
        }
        end(thread)?;
        // And the next one has it.
        let come = pit.sm().down_until(bench.in_ms(500));
        check!(come.is_ok(), "no interrupt after the end of a thread on CPU {cpu}");
        pit.stop();
        pit.take();
    }
    Ok(())
}

/// A line that nobody serves is held back, and given back to whoever serves it again.
fn storm(bench: &mut Bench<'_>) -> Check {
    let pit = Pit::of(bench)?;
    for cpu in cpus() {
        pit.0.assign(IntMode::ISA, cpu).map_err(show)?;
        pit.start(20_000);
        // Five times as long as it takes until it is far behind.
        nap(bench, 16_000);
        pit.stop();
        let taken = pit.take();
        // One makes it be held back, and each take that finds it held back lets what has waited come.
        check!(
            (FAR_BEHIND..=FAR_BEHIND + 4).contains(&taken),
            "{taken} interrupts of a line that storms were let through to CPU {cpu}"
        );
        pit.start(2000);
        let come = pit.sm().down_until(bench.in_ms(500));
        check!(come.is_ok(), "the line does not come back after a storm on CPU {cpu}");
        pit.stop();
        nap(bench, 200);
        pit.take();
    }
    Ok(())
}

fn refusals(bench: &mut Bench<'_>) -> Check {
    let pit = Pit::of(bench)?;
    let last = cpus().count() as u16;
    for cpu in [last, 63, 64, u16::MAX] {
        check_eq!(pit.0.assign(IntMode::ISA, cpu), Err(Status::BadCpu), "to CPU {cpu}");
    }
    check_eq!(pit.0.assign(IntMode(4), 0), Err(Status::BadParam), "a mode that is none");
    let own = Interrupt::at(semaphore()?.selector());
    check_eq!(own.assign(IntMode::ISA, 0), Err(Status::BadParam), "no interrupt");
    let copy = FREE.one().map_err(show)?;
    let objects = ObjectSpace::OWN;
    objects.grant(pit.sm().selector(), objects, copy, Perms::SM_DOWN).map_err(show)?;
    let served = Interrupt::at(copy).assign(IntMode::ISA, 0);
    check_eq!(served, Err(Status::BadCap), "without the right to");
    check_eq!(pit.sm().up(), Err(Status::BadCap), "in the place of the device");
    objects.revoke(copy, 1).map_err(show)
}

/// Threads on all processors read a port, and none does after it was taken away.
fn revoked_ports(bench: &mut Bench<'_>) -> Check {
    const ROUNDS: u32 = 20;
    const PORT: u16 = 0x41;
    const GENERAL_PROTECTION: u64 = 13;
    let source = bench.ports.ok_or("the manifest gives no ports")?;
    let domain = Domain::new(bench, Limits { priority: 5, ..Limits::NONE })?;
    let ports = FREE.one().map_err(show)?;
    hypercall::create_space(ports, domain.pd.selector(), SpaceKind::Port).map_err(show)?;
    domain
        .set_code(code!(64, "2:", "in al, 0x41", "inc qword ptr [rsp]", "jmp 2b"))
        .map_err(show)?;
    let mut threads = Vec::new();
    // Those beside this one first: it has to go on.
    for cpu in cpus().filter(|cpu| *cpu != 0) {
        let (faults, index) = (Faults::new(cpu)?, u64::from(cpu));
        faults.take(domain).map_err(show)?;
        domain.thread(cpu, index).map_err(show)?;
        threads.push((faults, index));
    }
    source.grant(PORT, 1, PortSpace::at(ports)).map_err(show)?;
    for (_, index) in &threads {
        domain.run(*index, (2, bench.hz / 10_000)).map_err(show)?;
    }
    let counts = || threads.iter().map(|(_, index)| domain.count(*index)).collect::<Vec<_>>();
    for round in 0..ROUNDS {
        let before = counts();
        until(bench, "reading", || {
            counts().iter().zip(&before).all(|(now, before)| *now > before + 2)
        })?;
        nap(bench, u64::from(round * 7 % 50));
        // SAFETY: ports are no memory.
        unsafe { hypercall::revoke(ports, PORT.into(), 1, u64::MAX) }.map_err(show)?;
        let gone = counts();
        for (faults, index) in &threads {
            let fault = faults.wait(bench).map_err(|why| format!("CPU {index}: {why}"))?;
            check_eq!(fault, (GENERAL_PROTECTION, 0), "CPU {index}, round {round}: a fault");
        }
        for (index, (now, gone)) in counts().into_iter().zip(gone).enumerate() {
            // What was read before may be counted after.
            check!(now <= gone + 1, "thread {index}, round {round}: {} reads more", now - gone);
        }
        source.grant(PORT, 1, PortSpace::at(ports)).map_err(show)?;
        threads.iter().try_for_each(|(faults, _)| faults.answer())?;
    }
    domain.pd.destroy().map_err(show)?;
    threads.into_iter().try_for_each(|(faults, _)| faults.end())
}
