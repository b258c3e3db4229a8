//! Accesses to control registers that leave the guest.

use abi::vcpu::{ControlAccess, Exit, Groups, VcpuState};
use devices::lapic::Gp;
use emulate::Control;

use super::{Clock, Outcome, Pc, Stop, exit::raise, groups::EMULATE};
use crate::{control, memory::GuestMemory};

impl Pc {
    #[inline(always)]
    pub(super) fn control<const LENGTHS: bool>(
        &mut self,
        have: Groups,
        state: &mut VcpuState,
        memory: &mut impl GuestMemory,
        clock: &impl Clock,
    ) -> Outcome {
        let access = ControlAccess(state.qual[0]);
        if LENGTHS && access.is_decoded() {
            return self.control_access(access, state, memory);
        }
        self.decode_control(have, state, memory, clock)
    }

    /// The processor tells neither how long the instruction is nor, perhaps, what.
    #[cold]
    fn decode_control(
        &mut self,
        have: Groups,
        state: &mut VcpuState,
        memory: &mut impl GuestMemory,
        clock: &impl Clock,
    ) -> Outcome {
        if !have.contains(EMULATE) {
            return Outcome::Need(EMULATE);
        }
        let mut bus = self.bus(memory, clock);
        match emulate::control(state, &mut bus) {
            Ok(Control::Access(access)) => self.control_access(access, state, memory),
            Ok(Control::Stored(groups)) => self.finish(groups | Groups::DONE, state, clock),
            // One that CPUID does not offer: CR8 by a LOCK prefix (APM 3, MOV CRn).
            Ok(Control::Other(_)) => raise(state, 6, None),
            Err(fault) => Outcome::Continue(fault.raise(state)),
        }
    }

    fn control_access(
        &mut self,
        access: ControlAccess,
        state: &mut VcpuState,
        memory: &impl GuestMemory,
    ) -> Outcome {
        const MOV_TO: u8 = 0;
        const MOV_FROM: u8 = 1;
        const CLTS: u8 = 2;
        let value = truncate(state, emulate::registers::value(state, access.gpr()));
        let limits = &self.limits;
        let result = match (access.kind(), access.register()) {
            (MOV_TO, 0) => control::write_cr0(state, value, memory, limits),
            (MOV_TO, 3) => control::write_cr3(state, value, memory, limits),
            (MOV_TO, 4) => {
                let result = control::write_cr4(state, value, memory, limits);
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
                *state.gpr.reg_mut(access.gpr()) = truncate(state, value);
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
}

/// Outside of 64-bit mode only 32 bits of a register are moved.
fn truncate(state: &VcpuState, value: u64) -> u64 {
    if emulate::mode::Mode::of(state) == emulate::mode::Mode::Long {
        value
    } else {
        value & 0xffff_ffff
    }
}
