//! Interrupt lines: from the devices through the 8259s and the I/O APIC to the local APIC.

use devices::{
    lapic::{Effects, Lint, Signal},
    time::Time,
};

use super::board::{Board, Request};
use crate::layout::{GSI_TIMER, IRQ_AUX, IRQ_COM1, IRQ_KEYBOARD, IRQ_RTC, IRQ_SCI, IRQ_TIMER};

impl Board {
    /// Drives an ISA line. Both controllers see it; which of them acts on it is for the guest to program.
    #[inline]
    fn set_line(&mut self, irq: u8, level: bool) {
        if (self.lines >> irq & 1 != 0) != level {
            self.move_line(irq, level);
        }
    }

    fn move_line(&mut self, irq: u8, level: bool) {
        self.lines ^= 1 << irq;
        self.pic.set_irq(irq, level);
        let gsi = if irq == IRQ_TIMER { GSI_TIMER } else { irq };
        self.ioapic.set_line(gsi, level);
        self.sync_controllers();
    }

    /// Carries what the controllers put out to the local APIC. To be called after each access to them.
    pub fn sync_controllers(&mut self) {
        self.attention = true;
        while let Some(message) = self.ioapic.take_message() {
            if self.lapic.accepts(message.destination, message.destination_mode) {
                let effects = self.lapic.deliver(&message);
                self.signal(effects.signal);
            }
        }
        let intr = self.pic.intr();
        if intr != self.intr {
            self.intr = intr;
            let effects = self.lapic.set_lint(Lint::Lint0, intr);
            self.signal(effects.signal);
        }
    }

    /// Acts on what an access to the local APIC did.
    #[inline]
    pub fn apply(&mut self, effects: Effects) {
        self.attention = true;
        if effects != Effects::default() {
            self.apply_rare(effects);
        }
    }

    fn apply_rare(&mut self, effects: Effects) {
        self.signal(effects.signal);
        if let Some(ipi) = effects.ipi
            && ipi.reaches(&self.lapic)
        {
            let effects = self.lapic.deliver(&ipi.message);
            self.signal(effects.signal);
        }
        if let Some(vector) = effects.eoi {
            self.ioapic.eoi(vector);
            self.sync_controllers();
        }
    }

    fn signal(&mut self, signal: Option<Signal>) {
        match signal {
            Some(Signal::Nmi) => self.nmi = true,
            // The bootstrap processor starts at the reset vector, where this machine has no firmware.
            Some(Signal::Init) => self.request = Some(Request::Reset),
            // There is no system-management mode, and nobody waits to be started.
            Some(Signal::Smi | Signal::StartUp(_)) | None => {}
        }
    }

    #[inline]
    pub fn sync_uart(&mut self) {
        let level = self.uart.irq();
        self.set_line(IRQ_COM1, level);
    }

    pub fn sync_rtc(&mut self) {
        let level = self.rtc.irq();
        self.set_line(IRQ_RTC, level);
    }

    pub fn sync_sci(&mut self) {
        let level = self.pm.sci();
        self.set_line(IRQ_SCI, level);
    }

    pub fn sync_i8042(&mut self) {
        let (keyboard, aux) = (self.i8042.irq_keyboard(), self.i8042.irq_aux());
        self.set_line(IRQ_KEYBOARD, keyboard);
        self.set_line(IRQ_AUX, aux);
    }

    /// The output of channel 0 may have pulsed since it was last looked at: an edge that is over still counts.
    pub fn sync_pit(&mut self) {
        let level = self.pit.out(0);
        if self.pit.take_irq_edges() > 0 {
            self.set_line(IRQ_TIMER, false);
            self.set_line(IRQ_TIMER, true);
        }
        self.set_line(IRQ_TIMER, level);
    }

    pub fn pit_event(&self) -> Option<Time> {
        self.pit.next_event()
    }

    /// Whether the processor has an interrupt to take.
    #[inline]
    pub fn interrupt_pending(&self) -> bool {
        self.lapic.pending().is_some() || self.lapic.external_pending()
    }

    /// The processor takes an interrupt: its vector.
    pub fn acknowledge(&mut self) -> u8 {
        if self.lapic.external_pending() {
            let vector = self.pic.ack();
            self.lapic.accept_external();
            self.sync_controllers();
            vector
        } else {
            self.lapic.accept()
        }
    }
}
