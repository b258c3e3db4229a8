//! Device interrupts: from a vector to a semaphore.

use core::sync::atomic::Ordering;

use abi::hypercall::{IntMode, Status};

use super::cpu::Cpu;
use super::{ioapic, lapic, timer};
use crate::log::RING;
use crate::object::Ref;
use crate::object::sm::Sm;
use crate::sched;
use crate::sync::Guarded;

/// First vector for device interrupts; interrupt `n` has vector `FIRST + n`.
const FIRST: u8 = 0x30;
/// Interrupts that are supported.
pub const MAX: u32 = 0xc0;
/// Vector with which another CPU makes this one enter the kernel.
pub const KICK: u8 = 0xfd;
/// Vector of the local APIC's spurious interrupt.
const SPURIOUS: u8 = 0xff;

#[derive(Clone, Copy)]
struct Line {
    sm: Ref<Sm>,
    level: bool,
    waiting: bool,
}

/// The lines that somebody wants, by their interrupts.
static LINES: [Guarded<Option<Line>>; MAX as usize] = [const { Guarded::new(None) }; MAX as usize];

fn line(interrupt: u32) -> Option<&'static Guarded<Option<Line>>> {
    LINES.get(interrupt as usize)
}

/// Binds an interrupt to its semaphore and lets it through, to `cpu`.
pub fn assign(interrupt: u32, sm: Ref<Sm>, mode: IntMode, cpu: &Cpu) -> Result<(), Status> {
    // An I/O APIC has eight bits for it, of which all ones mean everybody.
    let apic = u8::try_from(cpu.apic).ok().filter(|apic| *apic != u8::MAX).ok_or(Status::BadCpu)?;
    let level = mode.0 & IntMode::LEVEL.0 != 0;
    let low = mode.0 & IntMode::ACTIVE_LOW.0 != 0;
    let vector =
        u8::try_from(interrupt).ok().and_then(|n| n.checked_add(FIRST)).ok_or(Status::BadParam)?;
    line(interrupt).ok_or(Status::BadParam)?.set(Some(Line { sm, level, waiting: false }));
    let routed = ioapic::route(interrupt, vector, apic.into(), level, low);
    routed.then_some(()).ok_or(Status::BadParam)
}

/// Nobody wants an interrupt any more.
pub fn release(interrupt: u32) {
    if line(interrupt).and_then(|line| line.replace(None)).is_some() {
        ioapic::mask(interrupt, true);
    }
}

/// The thread that serves an interrupt is ready for the next one.
pub fn acknowledge(interrupt: u32) {
    if let Some(cell) = line(interrupt)
        && let Some(line @ Line { waiting: true, .. }) = cell.get()
    {
        cell.set(Some(Line { waiting: false, ..line }));
        ioapic::mask(interrupt, false);
    }
}

/// An interrupt has come.
pub fn handle(cpu: &Cpu, vector: u8) {
    match vector {
        timer::VECTOR => {
            cpu.timer.fired();
            lapic::eoi();
            sched::tick(cpu);
        }
        // To enter the kernel was all: what is to be done is in the state of the CPU or of its context.
        KICK => lapic::eoi(),
        // The spurious interrupt must not be acknowledged (SDM 3A 11.9). A device's that has its vector must.
        SPURIOUS if lapic::read(lapic::ISR_LAST) >> 31 == 0 => unwanted(),
        _ => device(u32::from(vector.wrapping_sub(FIRST))),
    }
}

/// A device's interrupt has come.
fn device(interrupt: u32) {
    let cell = line(interrupt);
    let Some((cell, line)) = cell.and_then(|cell| Some((cell, cell.get()?))) else {
        ioapic::mask(interrupt, true);
        lapic::eoi();
        return unwanted();
    };
    // A level-triggered line is held back until its thread has served the device, another one if its thread is far behind.
    let storms = !line.level && line.sm.is_behind();
    if storms {
        RING.storms.fetch_add(1, Ordering::Relaxed);
    }
    if line.level || storms {
        cell.set(Some(Line { waiting: true, ..line }));
        ioapic::mask(interrupt, true);
    }
    lapic::eoi();
    line.sm.up();
}

/// Nobody wanted an interrupt.
#[cold]
fn unwanted() {
    RING.spurious.fetch_add(1, Ordering::Relaxed);
}
