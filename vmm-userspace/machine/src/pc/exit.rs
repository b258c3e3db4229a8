//! What each exit does.

use abi::vcpu::{ControlAccess, Event, Exit, Groups, MemoryAccess, PortAccess, VcpuState};
use devices::lapic::{self, Gp};
use emulate::{End, Hint, Report};

use super::{
    Clock, Outcome, Pc, Stop,
    board::Request,
    groups::{EMULATE, portal_groups},
    mmio::SystemBus,
    ports::claimed,
};
use crate::{
    control,
    memory::GuestMemory,
    msr::{Context, Refusal, index},
};

const IF: u64 = 1 << 9;
/// Guest time from a recall to the next at least, in nanoseconds.
const RECALL_GAP_NS: u64 = 5_000;
/// The instruction is done and nothing else has changed.
const DONE: Outcome = Outcome::Continue(Groups::DONE);
const ACDB_DONE: Groups = Groups::ACDB.union(Groups::DONE);

impl Pc {
    /// Handles an exit. `have` = the groups that the portal delivered.
    ///
    /// With a constant `exit` only that exit's code remains.
    #[inline(always)]
    pub fn exit(
        &mut self,
        exit: Exit,
        have: Groups,
        state: &mut VcpuState,
        memory: &mut impl GuestMemory,
        clock: &impl Clock,
    ) -> Outcome {
        match exit {
            Exit::Cpuid => self.cpuid(state),
            Exit::Port => self.port(have, state, memory, clock),
            Exit::Memory => self.memory(have, state, memory, clock),
            Exit::MsrRead => self.msr_read(have, state, clock),
            Exit::MsrWrite => self.msr_write(have, state, clock),
            Exit::Hlt => self.halt(state, clock),
            Exit::InterruptWindow => Outcome::Continue(self.inject_interrupt(state)),
            Exit::NmiWindow => Outcome::Continue(self.inject_nmi(state)),
            Exit::Recall => self.recall(state, clock),
            Exit::Control => self.control(state, memory),
            Exit::Xsetbv => self.xsetbv(state),
            // Caches keep themselves coherent; PAUSE is a hint.
            Exit::CacheInvalidate | Exit::Pause => DONE,
            // CPUID offers none of these.
            Exit::Hypercall | Exit::Virtualization | Exit::Mwait => raise(state, 6, None),
            Exit::Rdpmc => raise(state, 13, Some(0)),
            Exit::Init => Outcome::Continue(Groups::NONE),
            Exit::Startup => Outcome::Continue(self.start(state, clock)),
            Exit::TripleFault => Outcome::Stop(Stop::TripleFault),
            Exit::BadState => Outcome::Stop(Stop::BadState(state.qual[0])),
            Exit::Exception
            | Exit::Debug
            | Exit::DescriptorTable
            | Exit::Invlpg
            | Exit::Rdtsc
            | Exit::TaskSwitch
            | Exit::Other => Outcome::Stop(Stop::Unhandled(exit, state.qual[0])),
        }
    }

    #[inline(always)]
    fn cpuid(&mut self, state: &mut VcpuState) -> Outcome {
        let gpr = &mut state.gpr;
        let [a, b, c, d] = self.cpuid.lookup(gpr.rax as u32, gpr.rcx as u32);
        (gpr.rax, gpr.rbx, gpr.rcx, gpr.rdx) = (a.into(), b.into(), c.into(), d.into());
        Outcome::Continue(ACDB_DONE)
    }

    #[inline(always)]
    fn port(
        &mut self,
        have: Groups,
        state: &mut VcpuState,
        memory: &mut impl GuestMemory,
        clock: &impl Clock,
    ) -> Outcome {
        let access = PortAccess(state.qual[0]);
        if access.is_string() {
            return self.port_string(have, state, memory, clock);
        }
        let (port, size) = (access.port(), access.size());
        if access.is_in() {
            return self.port_in(port, size, state, clock);
        }
        if size == 1 {
            if port == devices::debug_port::PORT {
                self.board.port_write(port, 1, state.gpr.rax as u32, clock);
                return DONE;
            }
            if !claimed(port) {
                return DONE;
            }
        }
        self.port_out(port, size, state, clock)
    }

    fn port_in(
        &mut self,
        port: u16,
        size: u8,
        state: &mut VcpuState,
        clock: &impl Clock,
    ) -> Outcome {
        let value = u64::from(self.board.port_read(port, size, clock));
        let rax = &mut state.gpr.rax;
        *rax = match size {
            1 => *rax & !0xff | value & 0xff,
            2 => *rax & !0xffff | value & 0xffff,
            _ => value,
        };
        self.finish(ACDB_DONE, state, clock)
    }

    fn port_out(
        &mut self,
        port: u16,
        size: u8,
        state: &mut VcpuState,
        clock: &impl Clock,
    ) -> Outcome {
        self.board.port_write(port, size, state.gpr.rax as u32, clock);
        self.finish(Groups::DONE, state, clock)
    }

    #[cold]
    fn port_string(
        &mut self,
        have: Groups,
        state: &mut VcpuState,
        memory: &mut impl GuestMemory,
        clock: &impl Clock,
    ) -> Outcome {
        if !have.contains(EMULATE) {
            return Outcome::Need(EMULATE);
        }
        self.emulate(state, memory, clock, None)
    }

    fn memory(
        &mut self,
        have: Groups,
        state: &mut VcpuState,
        memory: &mut impl GuestMemory,
        clock: &impl Clock,
    ) -> Outcome {
        let [access, gpa, linear] = state.qual;
        if access & MemoryAccess::FETCH != 0 {
            return if have.contains(Groups::ALL) {
                Outcome::Stop(Stop::FetchOutsideRam(gpa))
            } else {
                Outcome::Need(Groups::ALL)
            };
        }
        let known = MemoryAccess::LINEAR_VALID | MemoryAccess::FINAL;
        let hint = (access & known == known).then_some(Hint { linear, gpa });
        if !have.contains(EMULATE) {
            // Without the data segments only a simple MOV can be carried out.
            let Some(hint) = hint else { return Outcome::Need(EMULATE) };
            let mut bus = self.bus(memory, clock);
            return match emulate::emulate_simple(state, &mut bus, hint) {
                Some(report) => self.emulated(report, state, clock),
                None => Outcome::Need(EMULATE),
            };
        }
        self.emulate(state, memory, clock, hint)
    }

    fn emulate(
        &mut self,
        state: &mut VcpuState,
        memory: &mut impl GuestMemory,
        clock: &impl Clock,
        hint: Option<Hint>,
    ) -> Outcome {
        let mut bus = self.bus(memory, clock);
        let report = emulate::emulate(state, &mut bus, hint);
        self.emulated(report, state, clock)
    }

    fn bus<'a, M: GuestMemory, C: Clock>(
        &'a mut self,
        memory: &'a mut M,
        clock: &'a C,
    ) -> SystemBus<'a, M, C> {
        SystemBus {
            tsc_offset: self.msrs.tsc_offset(),
            physical_bits: self.limits.physical_bits,
            board: &mut self.board,
            memory,
            clock,
        }
    }

    #[inline]
    fn emulated(&mut self, report: Report, state: &mut VcpuState, clock: &impl Clock) -> Outcome {
        let groups = match report.end {
            // `inst_len` is that of the decoded instruction: no processor tells it at a memory exit.
            End::Done => report.groups | Groups::DONE,
            End::Again => report.groups,
            End::Fault(fault) => report.groups | fault.raise(state),
            End::Unsupported(bytes) => {
                return Outcome::Stop(Stop::Instruction(bytes, state.qual[1]));
            }
        };
        self.finish(groups, state, clock)
    }

    #[inline]
    fn msr_read(&mut self, have: Groups, state: &mut VcpuState, clock: &impl Clock) -> Outcome {
        let register = state.gpr.rcx as u32;
        let guest = self.guest_clock(clock);
        let mut context = Context { state, have, lapic: &mut self.board.lapic, clock: guest };
        match self.msrs.read(&mut context, register) {
            Ok(value) => {
                self.board.attention |= lapic::owns_msr(register);
                (state.gpr.rax, state.gpr.rdx) = (value & 0xffff_ffff, value >> 32);
                self.finish(ACDB_DONE, state, clock)
            }
            Err(refusal) => refuse(refusal, have, state),
        }
    }

    #[inline]
    fn msr_write(&mut self, have: Groups, state: &mut VcpuState, clock: &impl Clock) -> Outcome {
        let register = state.gpr.rcx as u32;
        let value = state.gpr.rdx << 32 | state.gpr.rax & 0xffff_ffff;
        let guest = self.guest_clock(clock);
        let mut context = Context { state, have, lapic: &mut self.board.lapic, clock: guest };
        match self.msrs.write(&mut context, register, value) {
            Ok(written) => {
                self.board.apply(written.effects);
                if register == lapic::IA32_APIC_BASE {
                    self.cpuid.set_apic(self.board.lapic.mode() != lapic::Mode::Disabled);
                }
                // The counter moved: the deadlines that depend on it move as well.
                if matches!(register, index::TSC | index::TSC_ADJUST) {
                    self.board.touch_timers();
                }
                self.finish(written.groups | Groups::DONE, state, clock)
            }
            Err(refusal) => refuse(refusal, have, state),
        }
    }

    fn halt(&mut self, state: &mut VcpuState, clock: &impl Clock) -> Outcome {
        if let Some(groups) = self.wake(state, clock) {
            return Outcome::Continue(groups);
        }
        if state.rflags & IF == 0 { Outcome::Stop(Stop::Halted) } else { Outcome::Halt }
    }

    /// Whether a guest that halts goes on: the groups to reply with. `state` is that of the exit, with its flags.
    pub fn wake(&mut self, state: &mut VcpuState, clock: &impl Clock) -> Option<Groups> {
        let guest = self.guest_clock(clock);
        self.board.advance(clock, guest);
        let _ = self.update_deadline(state, clock);
        let interrupt = state.rflags & IF != 0 && self.board.interrupt_pending();
        if !interrupt && !self.board.nmi {
            return None;
        }
        // The virtual CPU may have missed several changes of the deadline.
        let mut groups = Groups::DONE | Groups::DEADLINE;
        if interrupt && !self.board.nmi {
            groups |= self.inject_interrupt(state);
        }
        Some(groups | self.request_windows(state))
    }

    fn recall(&mut self, state: &mut VcpuState, clock: &impl Clock) -> Outcome {
        let guest = self.guest_clock(clock);
        self.board.advance(clock, guest);
        let free = state.rflags & IF != 0 && state.blocking == 0 && !state.event.is_valid();
        let groups = if free && !self.board.nmi && self.board.interrupt_pending() {
            self.inject_interrupt(state)
        } else {
            Groups::NONE
        };
        let outcome = self.finish(groups, state, clock);
        // Between two timer events the guest must get somewhere, however short a period it chose.
        let earliest = clock.tsc_at(guest.now + RECALL_GAP_NS);
        match outcome {
            Outcome::Continue(groups) if self.deadline < earliest => {
                self.deadline = earliest;
                state.deadline = earliest;
                Outcome::Continue(groups | Groups::DEADLINE)
            }
            outcome => outcome,
        }
    }

    fn control(&mut self, state: &mut VcpuState, memory: &impl GuestMemory) -> Outcome {
        const MOV_TO: u8 = 0;
        const MOV_FROM: u8 = 1;
        const CLTS: u8 = 2;
        let access = ControlAccess(state.qual[0]);
        let value = *state.gpr.reg_mut(access.gpr());
        let limits = &self.limits;
        let result = match (access.kind(), access.register()) {
            (MOV_TO, 0) => control::write_cr0(state, truncate(state, value), memory, limits),
            (MOV_TO, 3) => control::write_cr3(state, value, memory, limits),
            (MOV_TO, 4) => {
                let result = control::write_cr4(state, truncate(state, value), memory, limits);
                self.cpuid.set_osxsave(state.cr4 & control::OSXSAVE != 0);
                result
            }
            // Bits above the class are reserved (SDM 3A 11.8.6).
            (MOV_TO, 8) if value > 15 => Err(Gp),
            (MOV_TO, 8) => {
                self.board.lapic.set_cr8(value as u8);
                Ok(self.request_windows(state))
            }
            (MOV_FROM, register) => {
                let value = match register {
                    0 => state.cr0,
                    3 => state.cr3,
                    4 => state.cr4,
                    8 => u64::from(self.board.lapic.cr8()),
                    _ => return Outcome::Stop(Stop::Unhandled(Exit::Control, access.0)),
                };
                *state.gpr.reg_mut(access.gpr()) = value;
                Ok(emulate::registers::group(access.gpr()))
            }
            (CLTS, _) => Ok(control::clts(state)),
            (_, 0) => control::lmsw(state, access.lmsw(), memory, limits),
            _ => return Outcome::Stop(Stop::Unhandled(Exit::Control, access.0)),
        };
        match result {
            Ok(groups) => Outcome::Continue(groups | Groups::DONE),
            Err(Gp) => raise(state, 13, Some(0)),
        }
    }

    fn xsetbv(&mut self, state: &mut VcpuState) -> Outcome {
        match control::xsetbv(state, &self.limits) {
            Ok(xcr0) => {
                self.cpuid.set_xcr0(xcr0);
                state.xss = 0;
                Outcome::Continue(Groups::XSAVE | Groups::DONE)
            }
            Err(Gp) => raise(state, 13, Some(0)),
        }
    }

    #[inline]
    fn guest_clock(&self, clock: &impl Clock) -> lapic::Clock {
        lapic::Clock { now: clock.time(), tsc: clock.tsc().wrapping_add(self.msrs.tsc_offset()) }
    }

    /// The end of an exit that touched devices: requests of the guest, interrupts, the deadline.
    #[inline]
    fn finish(&mut self, groups: Groups, state: &mut VcpuState, clock: &impl Clock) -> Outcome {
        if !self.board.attention {
            return Outcome::Continue(groups);
        }
        match self.board.request.take() {
            None => {}
            Some(Request::Reset) => return Outcome::Reset,
            Some(Request::PowerOff) => return Outcome::PowerOff,
        }
        let groups = groups | self.request_windows(state) | self.update_deadline(state, clock);
        Outcome::Continue(groups)
    }

    #[inline]
    fn update_deadline(&mut self, state: &mut VcpuState, clock: &impl Clock) -> Groups {
        let deadline = self.board.next_event(clock, self.msrs.tsc_offset());
        if deadline == self.deadline {
            return Groups::NONE;
        }
        self.deadline = deadline;
        state.deadline = deadline;
        Groups::DEADLINE
    }
}

/// An exception instead of the instruction.
fn raise(state: &mut VcpuState, vector: u8, error: Option<u32>) -> Outcome {
    state.event = Event::exception(vector, error);
    Outcome::Continue(Groups::EVENT)
}

#[cold]
fn refuse(refusal: Refusal, have: Groups, state: &mut VcpuState) -> Outcome {
    match refusal {
        Refusal::Gp => raise(state, 13, Some(0)),
        Refusal::Need(groups) => Outcome::Need(groups | have),
    }
}

/// Outside of 64-bit mode only 32 bits of a register are moved.
fn truncate(state: &VcpuState, value: u64) -> u64 {
    if emulate::mode::Mode::of(state) == emulate::mode::Mode::Long {
        value
    } else {
        value & 0xffff_ffff
    }
}

const _: () = assert!(portal_groups(Exit::Memory).contains(Groups::RIP));
