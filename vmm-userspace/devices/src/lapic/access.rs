//! Loads and stores of single registers, after the checks that the access method makes.

use super::delivery::is_illegal_vector;
use super::destination::logical_x2apic_id;
use super::error::ApicError;
use super::ipi::Ipi;
use super::message::widen_destination;
use super::registers::*;
use super::{Clock, Effects, LocalApic, Mode};

/// Version of an integrated APIC (SDM 3A 11.4.8).
const VERSION_NUMBER: u32 = 0x14;
/// The APIC can suppress EOI broadcasts (SDM 3A 11.4.8).
const EOI_BROADCAST_SUPPRESSION: u32 = 1 << 24;

impl LocalApic {
    /// Reads a register that exists and is not write-only.
    pub(super) fn load(&mut self, register: u8, clock: Clock) -> u32 {
        match register {
            ID if self.mode() == Mode::X2Apic => self.id(),
            ID => u32::from(self.xapic_id()) << 24,
            VERSION => {
                // Number of the highest LVT entry.
                let max_lvt_entry = if self.config.features.cmci { 6 } else { 5 };
                VERSION_NUMBER | max_lvt_entry << 16 | EOI_BROADCAST_SUPPRESSION
            }
            TPR => self.tpr.into(),
            APR => self.arbitration_priority().into(),
            PPR => self.processor_priority().into(),
            LDR if self.mode() == Mode::X2Apic => logical_x2apic_id(self.id()),
            LDR => self.ldr,
            DFR => self.dfr,
            SVR => self.svr,
            ISR..=ISR_LAST => self.isr.register(register - ISR),
            TMR..=TMR_LAST => self.tmr.register(register - TMR),
            IRR..=IRR_LAST => self.irr.register(register - IRR),
            ESR => self.errors.read(),
            ICR => self.icr as u32,
            ICR_HIGH => (self.icr >> 32) as u32,
            INITIAL_COUNT => self.timer.initial(),
            CURRENT_COUNT => self.timer.current(clock.now),
            DIVIDE => self.timer.divide(),
            _ => self.lvt.entry(register).map_or(0, |entry| entry.bits()),
        }
    }

    /// Writes a register that exists and is not read-only. Of `value` only writable bits count.
    pub(super) fn store(&mut self, register: u8, value: u32, clock: Clock) -> Effects {
        let value = value & writable_bits(register, self.config.features);
        match register {
            TPR => self.tpr = value as u8,
            EOI => return self.end_of_interrupt(),
            LDR => self.ldr = value,
            DFR => self.dfr = value | DFR_ONES,
            SVR => {
                self.svr = value;
                if value & SVR_ENABLE == 0 {
                    self.lvt.mask_all();
                }
            }
            ESR => self.errors.write(),
            ICR => {
                self.icr = self.icr & !u64::from(u32::MAX) | u64::from(value);
                return self.send(widen_destination((self.icr >> 56) as u8));
            }
            ICR_HIGH => self.icr = self.icr & u64::from(u32::MAX) | u64::from(value) << 32,
            INITIAL_COUNT => {
                self.timer.set_initial(value, self.lvt.timer.timer_mode(), clock.now);
            }
            DIVIDE => self.timer.set_divide(value, clock.now),
            SELF_IPI => {
                let ipi = Ipi::to_self(self.id(), value as u8);
                return self.emit(ipi);
            }
            _ => self.store_lvt(register, value),
        }
        Effects::NONE
    }

    /// Sends the command in the ICR.
    pub(super) fn send(&mut self, destination: u32) -> Effects {
        match Ipi::from_command(self.id(), self.icr as u32, destination) {
            Some(ipi) => self.emit(ipi),
            None => Effects::NONE,
        }
    }

    /// Lets an IPI go. An illegal vector is noted here and again at the destination, which is where
    /// the interrupt is dropped (SDM 3A 11.5.3, bits 5 and 6).
    fn emit(&mut self, ipi: Ipi) -> Effects {
        if ipi.message.delivery_mode.has_vector() && is_illegal_vector(ipi.message.vector) {
            self.detect(ApicError::SendIllegalVector);
        }
        Effects { ipi: Some(ipi), ..Effects::NONE }
    }

    fn store_lvt(&mut self, register: u8, value: u32) {
        let enabled = self.is_enabled();
        let timer_mode = self.lvt.timer.timer_mode();
        let Some(entry) = self.lvt.entry(register) else { return };
        entry.write(value);
        // Masks cannot be cleared while the APIC is disabled by software (SDM 3A 11.4.7.2).
        if !enabled {
            entry.mask();
        }
        match register {
            LVT_TIMER => self.timer.change_mode(timer_mode, self.lvt.timer.timer_mode()),
            LVT_LINT0 => self.service_level_lint0(),
            _ => {}
        }
    }
}
