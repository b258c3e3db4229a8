//! The thread that makes calls: choosing one, making it, and looking at how it ended.
//!
//! This runs in the domain under test, on memory that it may take away from itself at any call. It uses nothing but its stack, the
//! arena and constants; when one of them is gone it faults, and the supervisor puts it back to its start.

use core::sync::atomic::Ordering;

use abi::cap::{Selector, own};
use abi::hypercall::{EcOp, Number, Status, pack};
use abi::utcb::Utcb;

use super::control::{Control, NUMBERS, STATUSES, VIOLATION, Walker};
use super::layout::{ARENA, MOST_MACHINES, POOL, SLOTS};
use super::rng::Rng;
use super::{choose, machine};
use crate::kernel::raw::{self, Arguments};
use crate::processor::apic_id;

/// Calls of a walker from one machine to the next.
const MACHINE_EVERY: u64 = 1500;

/// A call: RAX and the arguments.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// RAX.
    pub word: u64,
    /// RDI, RSI, R8, R9, R10.
    pub arguments: Arguments,
}

impl Call {
    /// A call as its reference has it.
    pub const fn new(number: Number, flags: u8, selector: Selector, arguments: Arguments) -> Self {
        Self { word: pack(number, flags, selector), arguments }
    }

    /// Its number, if it has one.
    pub const fn number(&self) -> Option<Number> {
        Number::from_abi(self.word as u8)
    }

    /// Its flags.
    pub const fn flags(&self) -> u8 {
        (self.word >> 8) as u8
    }

    /// The selector of the object acted on.
    pub const fn selector(&self) -> Selector {
        (self.word >> 32) as Selector
    }
}

/// A thread in the middle of its work.
pub struct Walk<'a> {
    /// Its random numbers.
    pub rng: Rng,
    /// The page shared with the supervisor.
    pub control: &'a Control,
    /// Its message page.
    pub utcb: &'a mut Utcb,
    walker: &'a Walker,
}

/// Where a thread starts, and starts again after it has faulted.
pub extern "C" fn walk(slot: u64, utcb: *mut Utcb) -> ! {
    // SAFETY: the supervisor maps the page there, and maps it again whenever it is missing. It consists of atomics.
    let control = unsafe { &*(ARENA as *const Control) };
    let walker = &control.walkers[slot as usize % SLOTS];
    // SAFETY: the supervisor put the address of this thread's message page there, or another thread that of its own: then they
    // disturb each other, which is what they are there for.
    let utcb = unsafe { &mut *utcb };
    let rng = Rng::resume(walker.random.load(Ordering::Relaxed));
    let mut walk = Walk { rng, control, utcb, walker };
    while control.stop.load(Ordering::Relaxed) == 0 {
        walk.step();
    }
    // SAFETY: what is on this stack is not needed again.
    unsafe { super::stubs::quit() };
    loop {
        core::hint::spin_loop();
    }
}

impl Walk<'_> {
    fn step(&mut self) {
        let made = self.control.machines.load(Ordering::Relaxed);
        if made < MOST_MACHINES && self.walker.calls.load(Ordering::Relaxed) >= made * MACHINE_EVERY
        {
            machine::make(self);
        }
        if self.rng.once_in(256) {
            self.must_work();
        }
        if self.rng.once_in(8) {
            choose::message(self);
        }
        let call = choose::call(self);
        self.make(call);
    }

    /// Makes a call and takes note of how it ended.
    pub fn make(&mut self, call: Call) -> Status {
        // After a fault in this call, the walk goes on behind it.
        self.walker.random.store(self.rng.next(), Ordering::Relaxed);
        let calls = self.walker.calls.load(Ordering::Relaxed);
        self.walker.calls.store(calls.wrapping_add(1), Ordering::Relaxed);
        // Which CPU that is just now.
        if let Some(calls) = self.control.on_cpu.get(apic_id() as usize) {
            calls.fetch_add(1, Ordering::Relaxed);
        }
        let flags = choose::flags(&mut self.rng);
        // SAFETY: whatever it does to this domain's memory, nothing outside of the domain is lost, and the supervisor mends it.
        let left = unsafe { raw::with_flags(call.word, call.arguments, flags) };
        let (status, values) = (left.gpr[0], [left.gpr[7], left.gpr[6]]);
        self.count(&call, status);
        if !plausible(self.control, &call, status, values) {
            self.violated(&call, status, values);
        }
        let status = Status::from_abi(status);
        choose::learn(self, &call, status);
        status
    }

    fn count(&self, call: &Call, status: u64) {
        let number = call.number().map_or(NUMBERS - 1, |number| number as usize);
        let status = (status as usize).min(STATUSES - 1);
        self.control.tally[number][status].fetch_add(1, Ordering::Relaxed);
    }

    /// The first one stays.
    fn violated(&self, call: &Call, status: u64, values: [u64; 2]) {
        let words = &self.control.violation;
        if words[0].load(Ordering::Relaxed) == VIOLATION {
            return;
        }
        let found = [call.word].into_iter().chain(call.arguments).chain([status]).chain(values);
        for (word, value) in words[1..].iter().zip(found) {
            word.store(value, Ordering::Relaxed);
        }
        words[0].store(VIOLATION, Ordering::Relaxed);
    }

    /// Something that works unless this thread has taken its own capabilities away: then a fault brings them back.
    fn must_work(&mut self) {
        let read = |selector| Call::new(Number::CtrlPd, 0, selector, [0; 5]);
        let nothing = |selector| Call::new(Number::Revoke, 0, selector, [0; 5]);
        let calls = [read(own::PD), nothing(own::OBJECTS), nothing(own::MEMORY)];
        for call in calls {
            if self.make(call) == Status::BadCap {
                // SAFETY: the fault's handler starts this thread again.
                unsafe { super::stubs::fault() };
            }
        }
    }

    /// A selector of the pool.
    pub fn pool(&mut self) -> Selector {
        POOL.0 + self.rng.below(POOL.1.into()) as Selector
    }
}

/// Whether a call can have ended like that.
fn plausible(control: &Control, call: &Call, status: u64, values: [u64; 2]) -> bool {
    let done = status == Status::Success as u64;
    let [_, _, a3, a4, a5] = call.arguments;
    let max_priority = control.max_priority.load(Ordering::Relaxed);
    let least_budget = control.hz.load(Ordering::Relaxed) / 100_000;
    let cpus = control.cpus.load(Ordering::Relaxed);
    let counted = done || status == Status::Partial as u64;
    match call.number() {
        None => status == Status::BadHypercall as u64,
        Some(_) if status >= STATUSES as u64 - 1 => false,
        // Only a handler comes here without an error, and it does not come back.
        Some(Number::Reply) => status == Status::BadHypercall as u64,
        // There is no interrupt that this domain has.
        Some(Number::AssignInt) => {
            matches!(Status::from_abi(status), Status::BadCap | Status::BadParam)
        }
        Some(Number::CreateSc) => {
            !done || (a3 <= max_priority && a4 >= least_budget && (a5 == 0 || a4 <= a5))
        }
        Some(Number::CreateEc) => !done || call.arguments[1] >> 8 & 0xffff < cpus,
        Some(Number::CtrlEc) => {
            !done || call.flags() != EcOp::Move as u8 || call.arguments[1] < cpus
        }
        Some(Number::CtrlPd) => !done || values[0] <= values[1],
        Some(Number::Grant | Number::Revoke) => !counted || values[0] <= a4,
        Some(_) => true,
    }
}
