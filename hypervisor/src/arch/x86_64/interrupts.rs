//! Device interrupts: from a vector to a semaphore.

use core::sync::atomic::Ordering;

use abi::hypercall::{IntMode, Status};
use spin::Mutex;

use super::cpu::Cpu;
use super::{ioapic, lapic, timer};
use crate::log::RING;
use crate::object::Ref;
use crate::object::sm::Sm;
use crate::sched;

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

static LINES: Mutex<[Option<Line>; MAX as usize]> = Mutex::new([None; MAX as usize]);

/// Binds an interrupt to its semaphore and lets it through, to `cpu`.
pub fn assign(interrupt: u32, sm: Ref<Sm>, mode: IntMode, cpu: &Cpu) -> Result<(), Status> {
    // An I/O APIC has eight bits for it, of which all ones mean everybody.
    let apic = u8::try_from(cpu.apic).ok().filter(|apic| *apic != u8::MAX).ok_or(Status::BadCpu)?;
    let level = mode.0 & IntMode::LEVEL.0 != 0;
    let low = mode.0 & IntMode::ACTIVE_LOW.0 != 0;
    let vector =
        u8::try_from(interrupt).ok().and_then(|n| n.checked_add(FIRST)).ok_or(Status::BadParam)?;
    {
        let mut lines = LINES.lock();
        let line = lines.get_mut(interrupt as usize).ok_or(Status::BadParam)?;
        *line = Some(Line { sm, level, waiting: false });
    }
    if ioapic::route(interrupt, vector, apic.into(), level, low) {
        Ok(())
    } else {
        Err(Status::BadParam)
    }
}

/// Nobody wants an interrupt any more.
pub fn release(interrupt: u32) {
    if let Some(line) = LINES.lock().get_mut(interrupt as usize)
        && line.take().is_some()
    {
        ioapic::mask(interrupt, true);
    }
}

/// The thread that serves an interrupt is ready for the next one.
pub fn acknowledge(interrupt: u32) {
    let mut lines = LINES.lock();
    if let Some(Some(line)) = lines.get_mut(interrupt as usize)
        && line.waiting
    {
        line.waiting = false;
        drop(lines);
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
        KICK => {
            lapic::eoi();
            // It has something for this CPU to do, or to look at.
            cpu.reschedule.set(true);
        }
        // The spurious interrupt must not be acknowledged (SDM 3A 11.9).
        SPURIOUS => unwanted(),
        _ => {
            let interrupt = u32::from(vector.wrapping_sub(FIRST));
            let mut lines = LINES.lock();
            let line = match lines.get_mut(interrupt as usize) {
                Some(Some(line)) => {
                    // A level-triggered line is held back until its thread has served the device, another one if its thread is
                    // far behind.
                    let storms = !line.level && line.sm.is_behind();
                    if storms {
                        RING.storms.fetch_add(1, Ordering::Relaxed);
                    }
                    if line.level || storms {
                        line.waiting = true;
                        ioapic::mask(interrupt, true);
                    }
                    Some(line.sm)
                }
                _ => {
                    ioapic::mask(interrupt, true);
                    None
                }
            };
            drop(lines);
            lapic::eoi();
            match line {
                Some(sm) => sm.up(),
                None => unwanted(),
            }
        }
    }
}

/// Nobody wanted an interrupt.
#[cold]
fn unwanted() {
    RING.spurious.fetch_add(1, Ordering::Relaxed);
}
