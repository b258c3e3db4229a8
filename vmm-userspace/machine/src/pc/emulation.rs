//! Instructions that the machine has to look at itself: accesses to devices, and those whose length no one tells.

use abi::vcpu::{Exit, Groups, MemoryAccess, VcpuState};
use emulate::{End, Hint, Report};

use super::{
    Clock, Outcome, Pc, Stop,
    groups::{EMULATE, Tells, portal_groups},
    mmio::SystemBus,
};
use crate::memory::GuestMemory;

impl Pc {
    /// Finds the length of the instruction at RIP, before it has any effect: the outcome, if that fails.
    #[cold]
    pub(super) fn find_length(
        &mut self,
        usual: &[u8],
        state: &mut VcpuState,
        memory: &mut impl GuestMemory,
        clock: &impl Clock,
    ) -> Option<Outcome> {
        match emulate::length(state, &mut self.bus(memory, clock), usual) {
            End::Done | End::Again => None,
            End::Fault(fault) => Some(Outcome::Continue(fault.raise(state))),
            End::Unsupported(bytes) => Some(Outcome::Stop(Stop::Unknown(bytes))),
        }
    }

    #[cold]
    pub(super) fn port_string(
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

    #[inline(always)]
    pub(super) fn memory(
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
        if state.event.is_valid() {
            // It would be tried for ever.
            return Outcome::Stop(Stop::DeliveryOutsideRam(gpa));
        }
        self.emulate(state, memory, clock, hint)
    }

    #[inline(never)]
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

    pub(super) fn bus<'a, M: GuestMemory, C: Clock>(
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
}

const _: () = {
    let most = portal_groups(Exit::Memory, Tells { lengths: true, addresses: true });
    let least = portal_groups(Exit::Memory, Tells { lengths: false, addresses: false });
    assert!(most.contains(Groups::RIP) && least.contains(EMULATE));
};
