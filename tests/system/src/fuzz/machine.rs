//! Making a virtual CPU that runs: a dozen calls that have to fit together, which calls chosen one by one rarely do.

use core::sync::atomic::Ordering;

use abi::cap::{NULL, Selector, SpaceKind, own};
use abi::hypercall::{EcKind, Number, Status};
use abi::vcpu::{EXITS, Groups};

use super::layout::{
    ARENA, FIRST_HANDLER, MACHINE, MACHINES, MOST_MACHINES, MSRS, OTHER_UTCBS, PLAY, events, stack,
};
use super::walk::{Call, Walk};
use super::{guest, stubs};

/// Selectors of a machine, behind its portals.
const GUEST: Selector = EXITS;
const HANDLER: Selector = EXITS + 1;
const VCPU: Selector = EXITS + 2;
const SC: Selector = EXITS + 3;
const REGISTERS: Selector = EXITS + 4;
const PORTS: Selector = EXITS + 5;

const _: () = assert!(PORTS < MACHINE);

/// Makes one, as long as there may be more. Now and then a step is left out.
pub fn make(walk: &mut Walk<'_>) {
    let number = walk.control.machines.fetch_add(1, Ordering::Relaxed);
    if number >= MOST_MACHINES {
        return;
    }
    let base = MACHINES + MACHINE * number as Selector;
    let hz = walk.control.hz.load(Ordering::Relaxed);
    let priority = walk.control.max_priority.load(Ordering::Relaxed);
    let cpu = number % walk.control.cpus.load(Ordering::Relaxed).max(1);
    let slot = FIRST_HANDLER + number;
    let utcb = OTHER_UTCBS.0 + (OTHER_UTCBS.1 + number) * 4096;
    let sp = stack(slot);
    // SAFETY: the stack of a slot, above its stack pointer.
    unsafe {
        (sp as *mut u64).write_volatile(slot);
        (sp as *mut u64).add(1).write_volatile(utcb);
    }
    let mut step = |number, selector, arguments| -> Status {
        if walk.rng.once_in(200) {
            return Status::Success;
        }
        walk.make(Call::new(number, 0, selector, arguments))
    };
    let at = |selector: Selector| u64::from(base + selector);
    let (registers, ports) = (number & 1 != 0, number & 2 != 0);
    step(Number::CreateSpace, own::PD, [at(GUEST), SpaceKind::Guest as u64, 0, 0, 0]);
    for (first, count, rights) in guest::PARTS {
        let from = (ARENA >> 12) + PLAY.0 + first;
        let arguments = [at(GUEST), from, first, count, rights.0.into()];
        step(Number::Grant, own::MEMORY, arguments);
    }
    if registers {
        step(Number::CreateSpace, own::PD, [at(REGISTERS), SpaceKind::Msr as u64, 0, 0, 0]);
        for first in [0x174, 0x277, 0xc000_0080] {
            step(Number::Grant, MSRS, [at(REGISTERS), first, first, 8, 0]);
        }
    }
    if ports {
        step(Number::CreateSpace, own::PD, [at(PORTS), SpaceKind::Port as u64, 0, 0, 0]);
    }
    let word = EcKind::Handler as u64 | cpu << 8 | u64::from(events(cpu)) << 32;
    step(Number::CreateEc, own::PD, [at(HANDLER), word, utcb, sp, 0]);
    let ip = stubs::handler as *const () as u64;
    for exit in 0..EXITS {
        let arguments = [at(exit), at(HANDLER), ip, exit.into(), Groups::ALL.0];
        step(Number::CreatePt, own::PD, arguments);
    }
    let word = EcKind::Vcpu as u64 | cpu << 8 | u64::from(base) << 32;
    let msrs = if registers { at(REGISTERS) } else { NULL.into() };
    let ports = if ports { at(PORTS) } else { NULL.into() };
    step(Number::CreateEc, own::PD, [at(VCPU), word, at(GUEST), msrs, ports]);
    // Little time: emulators are slow with what such guests do.
    let share = [at(SC), at(VCPU), priority, hz / 50_000, hz / 500];
    step(Number::CreateSc, own::PD, share);
}
