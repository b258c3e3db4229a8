//! The hostile virtual machine and its monitor, which answers every exit at once.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use abi::cap::MemRights;
use abi::hypercall::Status;
use abi::vcpu::{Event, Exit, Groups, VcpuState};
use runtime::memory::GuestMemory;
use runtime::pd::Pd;
use runtime::println;
use runtime::sm::Sm;
use runtime::space::{GuestSpace, MsrSpace};
use runtime::vcpu::VcpuBuilder;

use super::decode::DUE_TO_INSTRUCTIONS;
use super::judge::{self, Reason, Settings};
use super::mode::{self, HALTS, HLT, Mode, READ_ONLY, TABLES};
use super::operation::{CODE, DEVICES, OPERANDS, Operation, SLOT, SLOTS, operation};
use super::random::Random;
use super::tally::Tally;
use crate::processor::is_tcg;

/// Operations between two lines that tell how far it is.
const PROGRESS: u64 = 100_000;
/// RFLAGS.IF.
const INTERRUPTS: u64 = 1 << 9;

/// How it went.
pub type Result = core::result::Result<Tally, String>;

/// What the monitor and the thread that waits for it share.
pub struct Shared {
    /// Upped when it is over.
    pub over: Sm,
    /// How it went, then.
    pub result: runtime::lock::Lock<Option<Result>>,
}

/// The monitor.
pub struct Guest {
    shared: &'static Shared,
    random: Random,
    memory: GuestMemory,
    descriptors: [Vec<u8>; mode::ALL.len()],
    vectors: Vec<u8>,
    tables: Vec<u8>,
    mode: Mode,
    user: bool,
    slots: [Operation; SLOTS],
    /// The first slot that the guest has not come to.
    next: usize,
    settings: Settings,
    /// Whether the last exit was answered with nothing, so that it must come again.
    again: Option<(Exit, u64)>,
    tally: Tally,
    target: u64,
    /// How long it may run without an exit.
    patience: u64,
    tcg: bool,
}

fn show(status: Status) -> String {
    format!("{status:?}")
}

/// Lets a hostile guest run in `memory` until it has come to so many operations. It is over when [`Shared::over`] says so.
///
/// # Errors
/// Which hypercall failed.
pub fn start(
    memory: GuestMemory,
    msrs: Option<MsrSpace>,
    seed: u64,
    target: u64,
    hz: u64,
) -> core::result::Result<&'static Shared, String> {
    let space = GuestSpace::create(Pd::OWN).map_err(show)?;
    let part = |at, len, rights| {
        let region = memory.region(at, len).map_err(|_| "too little memory")?;
        space.grant(region, at, rights).map_err(show)
    };
    part(0, DEVICES, MemRights::RWX)?;
    for page in READ_ONLY {
        space.revoke(page, 0x1000, MemRights::W).map_err(show)?;
    }
    for page in HALTS {
        memory.fill(page, 0x1000, HLT).map_err(|_| "too little memory")?;
    }
    let over = Sm::create(Pd::OWN, 0).map_err(show)?;
    let shared: &'static Shared =
        Box::leak(Box::new(Shared { over, result: runtime::lock::Lock::new(None) }));
    let guest = Guest {
        shared,
        random: Random::new(seed),
        memory,
        descriptors: mode::ALL.map(mode::descriptors),
        vectors: mode::vectors(),
        tables: mode::tables(),
        mode: Mode::Real,
        user: false,
        slots: [Operation::NONE; SLOTS],
        next: SLOTS,
        settings: Settings { deadline: u64::MAX, first_deadline: u64::MAX, ..Settings::default() },
        again: None,
        tally: Tally::default(),
        target,
        patience: hz / 4000,
        tcg: is_tcg(),
    };
    let mut builder = VcpuBuilder::new(space, guest).map_err(show)?;
    if let Some(msrs) = msrs {
        builder = builder.msrs(msrs);
    }
    builder.otherwise(Groups::ALL, serve).run().map_err(show)?;
    Ok(shared)
}

fn serve(guest: &mut Guest, state: &mut VcpuState, exit: Exit) -> Groups {
    match guest.serve(state, exit) {
        Ok(Some(groups)) => groups,
        Ok(None) => guest.end(Ok(guest.tally.clone())),
        Err(why) => {
            let slot = guest.slot_of(state).unwrap_or(guest.next);
            let operation = guest.slots.get(slot).copied().unwrap_or(Operation::NONE);
            println!(
                "burst {}, {:?} user {}, slot {slot}: {operation:x?}",
                guest.tally.bursts, guest.mode, guest.user
            );
            // A line of the log has 512 bytes.
            println!("{exit:?}: {why}");
            println!("rip {:x} {:x?} rflags {:x}", state.rip, state.cs, state.rflags);
            let VcpuState { cr0, cr2, cr3, cr4, efer, qual, event, .. } = state;
            println!("cr {cr0:x} {cr2:x} {cr3:x} {cr4:x} {efer:x} qual {qual:x?} {event:x?}");
            println!("{:x?} {:?}", state.gpr, guest.settings);
            guest.end(Err(format!("{exit:?}: {why}")))
        }
    }
}

impl Guest {
    /// Answers an exit. `None`: it has come to as many operations as it should.
    fn serve(
        &mut self,
        state: &mut VcpuState,
        exit: Exit,
    ) -> core::result::Result<Option<Groups>, String> {
        if let Some(count) = self.tally.exits.get_mut(exit as usize) {
            *count += 1;
        }
        if exit == Exit::Startup {
            if self.tally.bursts > 0 {
                return Err("a second time".into());
            }
            return Ok(Some(self.burst(state)));
        }
        let found = judge::judge(self.memory, exit, state, &self.settings)?;
        match found.reason {
            Reason::Known => {}
            Reason::Stale => self.tally.stale += 1,
            Reason::Refused => self.tally.refused += 1,
            Reason::Unknown => {
                return Err(format!("unexplained: {:02x?}", judge::code(self.memory, state)));
            }
        }
        if exit == Exit::Recall {
            self.settings.deadline = state.deadline;
            self.settings.first_deadline = state.deadline;
        }
        self.come_again(exit, state)?;
        let slot = self.slot_of(state);
        self.advance(slot);
        if self.tally.operations >= self.target {
            return Ok(None);
        }
        if self.next >= SLOTS {
            return Ok(Some(self.burst(state)));
        }
        let groups = self.reply(state, exit, slot, found.bits)?;
        Ok(Some(groups | self.deadline(state)))
    }

    /// After an answer that changes nothing the same exit comes at the same place, unless it is time for something else.
    fn come_again(&mut self, exit: Exit, state: &VcpuState) -> core::result::Result<(), String> {
        let Some((before, rip)) = self.again.take() else { return Ok(()) };
        let same = exit == Exit::Recall || (exit, state.rip) == (before, rip);
        if same || judge::is_stale(self.memory, state) {
            return Ok(());
        }
        Err(format!("after {before:?} at {rip:#x}, which was not answered"))
    }

    /// The slot in which the guest is.
    fn slot_of(&self, state: &VcpuState) -> Option<usize> {
        let slot = state.rip.checked_sub(CODE)? / SLOT;
        usize::try_from(slot).ok().filter(|&slot| slot < SLOTS && state.cs.base == 0)
    }

    /// Counts what the guest has come to. Where it is not in the code that it was given, that is one operation: the one that led it
    /// away.
    fn advance(&mut self, slot: Option<usize>) {
        let until = match slot {
            Some(slot) => slot + 1,
            None => self.next + 1,
        };
        let until = until.min(SLOTS);
        if until <= self.next {
            return;
        }
        for operation in self.slots.get(self.next..until).unwrap_or_default() {
            if let Some(count) = self.tally.classes.get_mut(operation.class as usize) {
                *count += 1;
            }
        }
        let before = self.tally.operations / PROGRESS;
        self.tally.operations += (until - self.next) as u64;
        self.tally.left += 1;
        self.next = until;
        if self.tally.operations / PROGRESS != before {
            println!("{} operations, {} exits", self.tally.operations, self.tally.all_exits());
        }
    }

    /// New code, in a new mode.
    fn burst(&mut self, state: &mut VcpuState) -> Groups {
        self.tally.bursts += 1;
        let index = self.random.below(mode::ALL.len() as u32) as usize;
        self.mode = mode::ALL.get(index).copied().unwrap_or_default();
        self.user = self.mode != Mode::Real && self.random.once_in(5);
        for slot in 0..SLOTS {
            let operation = operation(self.mode, slot, self.tcg, &mut self.random);
            self.write(CODE + SLOT * slot as u64, &operation.bytes);
            if let Some(place) = self.slots.get_mut(slot) {
                *place = operation;
            }
        }
        // HLT, whatever comes behind the last slot.
        self.memory_fill(CODE + SLOT * SLOTS as u64, 0x100, HLT);
        let mut operands = [0; 0x108];
        for bytes in operands.chunks_exact_mut(8) {
            bytes.copy_from_slice(&self.random.interesting().to_le_bytes());
        }
        self.write(OPERANDS, &operands);
        // What the guest may have spoiled.
        self.write(0, &self.vectors);
        if let Some(descriptors) = self.descriptors.get(index) {
            self.write(0x2000, descriptors);
        }
        self.write(TABLES, &self.tables);
        self.next = 0;
        self.set();
        self.afresh(state) | self.deadline(state)
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        // It is all inside of the guest's memory.
        let _ = self.memory.write(at, bytes);
    }

    fn memory_fill(&self, at: u64, len: u64, byte: u8) {
        let _ = self.memory.fill(at, len, byte);
    }

    /// What the monitor wants to see in this burst.
    fn set(&mut self) {
        let random = &mut self.random;
        self.settings = Settings {
            exceptions: match random.below(4) {
                0 => 0,
                1 => random.next() as u32,
                _ => u32::MAX,
            },
            intercepts: random.below(8),
            cr0_mask: random.one_of(&[0, u64::MAX, 0xe000_0021]),
            cr4_mask: random.one_of(&[0, u64::MAX, 0x2020]),
            tsc_offset: random.next(),
            ..self.settings
        };
        if self.tcg {
            // QEMU leaves a guest's breakpoints armed, and ends itself when the delivery of an event meets one.
            self.settings.intercepts |= 4;
            // It does not restore its host's CR0 when it leaves a guest with EFER.LME but neither CR0.PG nor CR4.PAE.
            self.settings.cr0_mask |= 1 << 31;
            self.settings.cr4_mask |= 1 << 5;
        }
    }

    /// The state that a burst starts with, at the next slot.
    fn afresh(&mut self, state: &mut VcpuState) -> Groups {
        *state = mode::state(self.mode, self.user);
        if self.tcg {
            // QEMU takes the stack for an event that raises the privilege only from a task that is not busy, or ends itself.
            state.tr.attr &= !2;
        }
        state.rip = CODE + SLOT * self.next as u64;
        let rsp = state.gpr.rsp;
        for index in 0..16 {
            *state.gpr.reg_mut(index) = self.random.interesting();
        }
        if !self.random.once_in(8) {
            state.gpr.rsp = rsp;
        }
        state.rflags = 2 | INTERRUPTS | self.random.next() & 0x4_cd5 | 0x3000;
        if self.random.once_in(32) {
            // TF.
            state.rflags |= 1 << 8;
        }
        (state.exceptions, state.intercepts) = (self.settings.exceptions, self.settings.intercepts);
        (state.cr0_mask, state.cr4_mask) = (self.settings.cr0_mask, self.settings.cr4_mask);
        state.tsc_offset = self.settings.tsc_offset;
        state.deadline = self.settings.deadline;
        let address = |random: &mut Random| random.one_of(&[mode::STUBS, 0x8000, OPERANDS]);
        (state.sysenter_cs, state.star) = (0x08, 0x0010_0008_0000_0000 | 0x1b << 48);
        state.sysenter_esp = address(&mut self.random);
        // SYSENTER switches interrupts off (see `operation::harmless`): to a HLT with it.
        state.sysenter_eip = self.random.one_of(&[mode::STUBS, 0x8000]);
        (state.lstar, state.cstar) = (address(&mut self.random), address(&mut self.random));
        // All but IF, for the same reason.
        state.fmask = self.random.next() & 0x4_0dd5;
        self.tally.replies[4] += 1;
        Groups::ALL
    }

    /// Something must call the guest out if it never leaves by itself.
    fn deadline(&mut self, state: &mut VcpuState) -> Groups {
        let now = runtime::clock::now();
        if self.settings.deadline != u64::MAX && self.settings.deadline > now + self.patience / 4 {
            return Groups::NONE;
        }
        self.settings.deadline = now + self.patience;
        self.settings.first_deadline = self.settings.first_deadline.min(self.settings.deadline);
        state.deadline = self.settings.deadline;
        Groups::DEADLINE
    }

    /// What to answer.
    fn reply(
        &mut self,
        state: &mut VcpuState,
        exit: Exit,
        slot: Option<usize>,
        bits: u32,
    ) -> core::result::Result<Groups, String> {
        let here = slot.and_then(|slot| self.slots.get(slot).map(|operation| (slot, *operation)));
        let Some((slot, operation)) = here else { return Ok(self.afresh(state)) };
        let lost = matches!(exit, Exit::BadState | Exit::TripleFault | Exit::TaskSwitch)
            || bits != self.mode.bits();
        if lost || self.random.once_in(16) {
            return Ok(self.afresh(state));
        }
        // Bochs holds the host's interrupts back from a guest that is entered with interrupts off.
        state.rflags |= INTERRUPTS;
        let start = CODE + SLOT * slot as u64 + u64::from(operation.at);
        let strict = operation.len != 0 && state.rip == start && self.is_as_made(slot, &operation);
        let instruction = DUE_TO_INSTRUCTIONS >> exit as u32 & 1 != 0;
        if strict && instruction && state.inst_len != 0 {
            if state.inst_len != u64::from(operation.len) {
                return Err(format!("{} bytes, but it has {}", state.inst_len, operation.len));
            }
            self.tally.lengths += 1;
        }
        match self.random.below(8) {
            0..=3 if strict && instruction => {
                state.inst_len = operation.len.into();
                self.tally.replies[0] += 1;
                let result = self.random.next();
                (state.gpr.rax, state.gpr.rdx) = (result & 0xffff_ffff, result >> 32);
                Ok(Groups::DONE | Groups::RFLAGS | Groups::ACDB)
            }
            4 => {
                state.event = self.event(state);
                state.blocking = 0;
                self.tally.replies[2] += 1;
                Ok(Groups::EVENT | Groups::BLOCKING | Groups::RFLAGS)
            }
            5 if exit != Exit::Recall && instruction => {
                self.again = Some((exit, state.rip));
                self.tally.replies[3] += 1;
                Ok(Groups::RFLAGS)
            }
            _ => {
                state.rip = CODE + SLOT * self.next as u64;
                state.event = Event::NONE;
                state.blocking = 0;
                self.tally.replies[1] += 1;
                for index in 0..4 {
                    *state.gpr.reg_mut(index) = self.random.interesting();
                }
                Ok(Groups::RIP | Groups::RFLAGS | Groups::EVENT | Groups::BLOCKING | Groups::ACDB)
            }
        }
    }

    /// Whether the slot is as it was made, to the end of the operation.
    fn is_as_made(&self, slot: usize, operation: &Operation) -> bool {
        let mut bytes = [0; SLOT as usize];
        let at = CODE + SLOT * slot as u64;
        self.memory.read(at, &mut bytes).is_ok() && bytes == operation.bytes
    }

    /// An event for the guest.
    fn event(&mut self, state: &VcpuState) -> Event {
        let protected = state.cr0 & 1 != 0;
        let error = |code| if protected { Some(code) } else { None };
        match self.random.below(5) {
            0 => Event::exception(13, error(0)),
            1 => Event::exception(6, None),
            2 => Event::exception(14, error(2)),
            3 => Event::interrupt(self.random.next() as u8 | 0x20),
            _ => Event::nmi(),
        }
    }

    /// It is over.
    fn end(&self, result: Result) -> ! {
        *self.shared.result.lock() = Some(result);
        let _ = self.shared.over.up();
        runtime::park()
    }
}
