//! What each exit does.

use abi::vcpu::{Event, Exit, Groups, PortAccess, VcpuState};
use devices::lapic::{self, Gp};

use super::{Clock, Outcome, Pc, Stop, board::Request, groups::usual_code, ports::claimed};
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
    /// Handles an exit. `have` = the groups that the portal delivered; `LENGTHS` = [`Tells::lengths`].
    ///
    /// With a constant `exit` only that exit's code remains.
    #[inline(always)]
    pub fn exit<const LENGTHS: bool>(
        &mut self,
        exit: Exit,
        have: Groups,
        state: &mut VcpuState,
        memory: &mut impl GuestMemory,
        clock: &impl Clock,
    ) -> Outcome {
        if !LENGTHS
            && let usual @ [_, ..] = usual_code(exit)
            && let Some(outcome) = self.find_length(usual, state, memory, clock)
        {
            return outcome;
        }
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
            Exit::Control => self.control::<LENGTHS>(have, state, memory, clock),
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
            Exit::TaskSwitch => Outcome::Stop(Stop::TaskSwitch(state.qual[0] as u16)),
            // Nobody asked for the others.
            Exit::Exception
            | Exit::Debug
            | Exit::DescriptorTable
            | Exit::Invlpg
            | Exit::Rdtsc
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
    pub(super) fn finish(
        &mut self,
        groups: Groups,
        state: &mut VcpuState,
        clock: &impl Clock,
    ) -> Outcome {
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
pub(super) fn raise(state: &mut VcpuState, vector: u8, error: Option<u32>) -> Outcome {
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
