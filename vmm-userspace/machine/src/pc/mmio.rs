//! Guest-physical memory as an instruction sees it: RAM, the APICs, and nothing.

use devices::{ioapic, lapic};
use emulate::Bus;

use super::{Clock, board::Board};
use crate::{layout::IOAPIC, memory::GuestMemory};

/// The bus of one exit.
pub(super) struct SystemBus<'a, M, C> {
    pub board: &'a mut Board,
    pub memory: &'a mut M,
    pub clock: &'a C,
    pub tsc_offset: u64,
    pub physical_bits: u32,
}

impl<M: GuestMemory, C: Clock> SystemBus<'_, M, C> {
    /// Offset in the local APIC's page, if the address is there.
    #[inline]
    fn lapic_offset(&self, gpa: u64) -> Option<u16> {
        let base = self.board.lapic.mmio_base()?;
        (gpa & !0xfff == base).then_some((gpa & 0xfff) as u16)
    }

    #[inline]
    fn lapic_clock(&self) -> lapic::Clock {
        let tsc = self.clock.tsc().wrapping_add(self.tsc_offset);
        lapic::Clock { now: self.clock.time(), tsc }
    }

    fn read_device(&mut self, gpa: u64, size: u8) -> u64 {
        if let Some(offset) = self.lapic_offset(gpa) {
            let clock = self.lapic_clock();
            let low = u64::from(self.board.lapic.read(offset, clock));
            self.board.attention = true;
            return if size == 8 {
                low | u64::from(self.board.lapic.read(offset + 4, clock)) << 32
            } else {
                low
            };
        }
        match gpa.checked_sub(IOAPIC) {
            Some(offset) if offset < u64::from(ioapic::MMIO_SIZE) => {
                u64::from(self.board.ioapic.read(offset as u16, size))
            }
            // Nobody answers: the bus floats.
            _ => u64::MAX,
        }
    }

    fn write_device(&mut self, gpa: u64, size: u8, value: u64) {
        if let Some(offset) = self.lapic_offset(gpa) {
            let clock = self.lapic_clock();
            let effects = self.board.lapic.write(offset, value as u32, clock);
            self.board.apply(effects);
            return;
        }
        if let Some(offset) = gpa.checked_sub(IOAPIC)
            && offset < u64::from(ioapic::MMIO_SIZE)
        {
            self.board.ioapic.write(offset as u16, size, value as u32);
            self.board.sync_controllers();
        }
    }
}

impl<M: GuestMemory, C: Clock> Bus for SystemBus<'_, M, C> {
    #[inline]
    fn read(&mut self, gpa: u64, size: u8) -> u64 {
        match self.memory.load(gpa, size) {
            Some(value) => value,
            None => self.read_device(gpa, size),
        }
    }

    #[inline]
    fn write(&mut self, gpa: u64, size: u8, value: u64) {
        if !self.memory.store(gpa, size, value) {
            self.write_device(gpa, size, value);
        }
    }

    fn port_read(&mut self, port: u16, size: u8) -> u32 {
        self.board.port_read(port, size, self.clock)
    }

    fn port_write(&mut self, port: u16, size: u8, value: u32) {
        self.board.port_write(port, size, value, self.clock);
    }

    fn physical_bits(&self) -> u32 {
        self.physical_bits
    }
}
