//! Interrupt messages that nobody expects: any vector, to any CPU.
//!
//! Whoever can program a device's messages can send these, and no interrupt remapping stops them. Those that are interrupts must be
//! counted, and change nothing else.

mod ahci;

use alloc::string::String;
use core::ops::Range;

use runtime::clock::now;
use runtime::sm::Sm;
use runtime::task::cpus;

use crate::kernel::threads::semaphore;
use crate::report::{Bench, Check, Test};
use crate::smp::destroy::{counting_guest, guest_goes_on};
use crate::smp::worker::{Counter, apic_ids, end, show, slice, spawn_on};
use crate::{check, format};
use ahci::Ahci;

/// All of them.
pub const TESTS: &[Test] = &[
    ("stray.idle", idle),
    ("stray.thread", thread),
    ("stray.guest", guest),
    ("stray.storm", storm),
    ("stray.nmi", nmi),
];

/// All vectors but those that local APICs refuse (SDM 3A 11.5.2).
const VECTORS: Range<u32> = 16..256;
/// What makes a message an NMI (SDM 3A 11.11.2).
const NMI: Range<u32> = 0x400..0x401;

/// A thread that answers when its processor's timer interrupts.
struct Echo {
    ask: Sm,
    answer: Sm,
}

impl Echo {
    fn on(bench: &Bench<'_>, cpu: u16) -> Result<Self, String> {
        let (ask, answer, never) = (semaphore()?, semaphore()?, semaphore()?);
        let delay = bench.hz / 100_000;
        spawn_on(cpu, slice(bench, bench.priority - 1), move |_| {
            while ask.down().is_ok() {
                let _ = never.down_until(now() + delay);
                let _ = answer.up();
            }
        })?;
        Ok(Self { ask, answer })
    }

    fn answers(&self, bench: &Bench<'_>) -> Check {
        self.ask.up().map_err(show)?;
        let come = self.answer.down_until(bench.in_ms(500));
        check!(come.is_ok(), "the timer does not interrupt any more");
        Ok(())
    }
}

/// So many messages of each kind to each CPU. What goes on there meanwhile `begin` begins and `end` ends.
fn send<T>(
    bench: &Bench<'_>,
    (kinds, count): (Range<u32>, u32),
    begin: impl Fn(u16) -> Result<T, String>,
    end: impl Fn(T) -> Check,
) -> Check {
    let device = Ahci::new()?;
    for (cpu, apic) in cpus().zip(apic_ids(bench)?) {
        let (echo, other) = (Echo::on(bench, cpu)?, begin(cpu)?);
        for kind in kinds.clone() {
            device.aim(apic, kind);
            (0..count).for_each(|_| device.send());
            echo.answers(bench).map_err(|why| format!("CPU {cpu}, message {kind:#x}: {why}"))?;
        }
        end(other).map_err(|why| format!("CPU {cpu}: {why}"))?;
    }
    Ok(())
}

/// The CPU waits for interrupts.
fn idle(bench: &mut Bench<'_>) -> Check {
    send(bench, (VECTORS, 1), |_| Ok(()), |()| Ok(()))
}

/// A thread runs there.
fn thread(bench: &mut Bench<'_>) -> Check {
    let begin = |cpu| Counter::new(cpu, slice(bench, 2));
    send(bench, (VECTORS, 1), begin, |counter| {
        counter.goes_on(bench)?;
        end(counter.thread)
    })
}

/// A guest runs there.
fn guest(bench: &mut Bench<'_>) -> Check {
    beside_a_guest(bench, (VECTORS, 1))
}

fn beside_a_guest(bench: &Bench<'_>, messages: (Range<u32>, u32)) -> Check {
    let begin = |cpu| counting_guest(bench, cpu);
    send(bench, messages, begin, |vm| {
        guest_goes_on(bench, &vm)?;
        vm.end()
    })
}

/// Many at once.
fn storm(bench: &mut Bench<'_>) -> Check {
    send(bench, (VECTORS, 100), |_| Ok(()), |()| Ok(()))
}

/// NMIs, of which a guest notices nothing.
fn nmi(bench: &mut Bench<'_>) -> Check {
    beside_a_guest(bench, (NMI, 1000))
}
