//! The model-specific registers: IA32_APIC_BASE, IA32_TSC_DEADLINE, and the registers of x2APIC
//! mode (SDM 3A 11.12.1).

use super::base::{IA32_APIC_BASE, Mode};
use super::registers::{Access, ICR, status_bits, writable_bits, x2apic_access};
use super::timer::IA32_TSC_DEADLINE;
use super::{Clock, Effects, Gp, LocalApic};

/// The range that is set aside for x2APIC registers (SDM 3A 11.12.1.2).
const X2APIC_FIRST: u32 = 0x800;
const X2APIC_LAST: u32 = 0x8ff;

/// Whether an MSR is the local APIC's business.
#[must_use]
pub const fn owns_msr(index: u32) -> bool {
    matches!(index, IA32_APIC_BASE | IA32_TSC_DEADLINE | X2APIC_FIRST..=X2APIC_LAST)
}

impl LocalApic {
    /// RDMSR of one of the registers that [`owns_msr`] names; #GP for all others.
    ///
    /// # Errors
    /// #GP for x2APIC registers outside of x2APIC mode (SDM 3A 11.12.2), for those that do not exist
    /// (11.12.1.2) and for those that are write-only: EOI and SELF IPI.
    pub fn read_msr(&mut self, index: u32, clock: Clock) -> Result<u64, Gp> {
        self.advance(clock);
        match index {
            IA32_APIC_BASE => Ok(self.base.value()),
            IA32_TSC_DEADLINE if self.config.features.tsc_deadline => Ok(self.timer.deadline()),
            _ => match self.x2apic_register(index)? {
                (_, Access::Reserved | Access::WriteOnly) => Err(Gp),
                (ICR, _) => Ok(self.icr),
                (register, _) => Ok(self.load(register, clock).into()),
            },
        }
    }

    /// WRMSR to one of the registers that [`owns_msr`] names; #GP for all others.
    ///
    /// # Errors
    /// #GP as for reading, for read-only registers, for reserved bits (SDM 3A 11.12.1.3), for any
    /// value but zero in EOI and ESR, and for invalid changes of IA32_APIC_BASE (11.12.5.1).
    pub fn write_msr(&mut self, index: u32, value: u64, clock: Clock) -> Result<Effects, Gp> {
        self.advance(clock);
        match index {
            IA32_APIC_BASE => self.set_base(value).map(|()| Effects::NONE),
            IA32_TSC_DEADLINE if self.config.features.tsc_deadline => {
                self.timer.set_deadline(value, self.lvt.timer.timer_mode());
                // A deadline in the past is due at once.
                self.advance(clock);
                Ok(Effects::NONE)
            }
            _ => match self.x2apic_register(index)? {
                (_, Access::Reserved | Access::ReadOnly) => Err(Gp),
                (register, _) => self.store_x2apic(register, value, clock),
            },
        }
    }

    fn x2apic_register(&self, index: u32) -> Result<(u8, Access), Gp> {
        if self.mode() != Mode::X2Apic || !(X2APIC_FIRST..=X2APIC_LAST).contains(&index) {
            return Err(Gp);
        }
        let register = (index - X2APIC_FIRST) as u8;
        Ok((register, x2apic_access(register, self.config.features)))
    }

    fn store_x2apic(&mut self, register: u8, value: u64, clock: Clock) -> Result<Effects, Gp> {
        // Read-only status bits may be written back; they are not reserved.
        let low = writable_bits(register, self.config.features) | status_bits(register);
        // Only the ICR is 64 bits wide: its high half is the destination (11.12.9).
        let high = if register == ICR { u32::MAX } else { 0 };
        if value & !(u64::from(high) << 32 | u64::from(low)) != 0 {
            return Err(Gp);
        }
        if register == ICR {
            self.icr = value;
            return Ok(self.send((value >> 32) as u32));
        }
        Ok(self.store(register, value as u32, clock))
    }

    /// A valid write to IA32_APIC_BASE, with its effect on the other registers.
    fn set_base(&mut self, value: u64) -> Result<(), Gp> {
        let from = self.mode();
        let config = &self.config;
        self.base =
            self.base.transition(value, config.physical_address_bits, config.features.x2apic)?;
        match (from, self.mode()) {
            // The state is lost, and is that after power-on when the APIC is enabled again (11.4.3,
            // 11.12.5.1).
            (Mode::XApic | Mode::X2Apic, Mode::Disabled) => self.reset_registers(),
            // The other registers keep their contents (11.12.5.1, "State Changes From xAPIC Mode to
            // x2APIC Mode").
            (Mode::XApic, Mode::X2Apic) => {
                self.ldr = 0;
                self.icr &= u64::from(u32::MAX);
            }
            _ => {}
        }
        Ok(())
    }
}
