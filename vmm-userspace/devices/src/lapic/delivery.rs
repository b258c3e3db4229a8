//! Interrupts on their way in: messages, pins and local events (SDM 3A 11.5.5, 11.6.3, 11.8).

use super::error::ApicError;
use super::lvt::{Entry, Lint, ProcessorEvent};
use super::message::{DeliveryMode, Message, TriggerMode};
use super::{Effects, LocalApic, Mode, Signal};

/// Vectors below are not for interrupts (SDM 3A 11.5.2).
const FIRST_LEGAL_VECTOR: u8 = 16;

/// Whether the APIC rejects an interrupt with this vector.
pub(super) const fn is_illegal_vector(vector: u8) -> bool {
    vector < FIRST_LEGAL_VECTOR
}

impl LocalApic {
    /// Takes in a message for which the owner found this local APIC to be a destination.
    ///
    /// Disabled by software it still responds to INIT, NMI, SMI and start-up messages and drops the
    /// others (SDM 3A 11.4.7.2); disabled globally it hears nothing (11.4.3).
    pub fn deliver(&mut self, message: &Message) -> Effects {
        if self.mode() == Mode::Disabled {
            return Effects::NONE;
        }
        Effects::of_signal(match message.delivery_mode {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => {
                if self.is_enabled() {
                    self.request(message.vector, message.trigger);
                }
                None
            }
            DeliveryMode::ExtInt => {
                self.external |= self.is_enabled();
                None
            }
            DeliveryMode::Smi => Some(Signal::Smi),
            DeliveryMode::Nmi => Some(Signal::Nmi),
            DeliveryMode::Init => {
                self.init();
                Some(Signal::Init)
            }
            // Ignored by a CPU that does not wait for it (SDM 3A 9.4.4.1).
            DeliveryMode::StartUp => {
                let waited = core::mem::replace(&mut self.waiting_for_sipi, false);
                waited.then_some(Signal::StartUp(message.vector))
            }
        })
    }

    /// Drives a local interrupt pin to an electrical level.
    pub fn set_lint(&mut self, pin: Lint, high: bool) -> Effects {
        let was_high = core::mem::replace(&mut self.lint[pin as usize], high);
        if self.mode() == Mode::Disabled {
            // LINT1 is the processor's NMI pin; LINT0, its INTR, is sampled by level (11.4.3).
            let nmi = pin == Lint::Lint1 && high && !was_high;
            return Effects::of_signal(nmi.then_some(Signal::Nmi));
        }
        let entry = self.lvt.lint(pin);
        // Level mode exists for LINT0 only (11.5.1, "Trigger Mode").
        if pin == Lint::Lint0 && entry.is_level() {
            self.service_level_lint0();
            return Effects::NONE;
        }
        let edge = entry.is_active(high) && !entry.is_active(was_high);
        Effects::of_signal(if edge { self.fire(entry) } else { None })
    }

    /// Takes in an event of the processor.
    pub fn raise(&mut self, event: ProcessorEvent) -> Effects {
        let entry = match event {
            ProcessorEvent::Thermal => self.lvt.thermal,
            ProcessorEvent::CorrectedMachineCheck => self.lvt.cmci,
            ProcessorEvent::Performance => {
                let entry = self.lvt.performance;
                // Handling the interrupt masks it (11.5.1, "Mask").
                self.lvt.performance.mask();
                entry
            }
        };
        Effects::of_signal(self.fire(entry))
    }

    /// Whether an interrupt waits whose vector the 8259 has: the CPU takes it, whatever its
    /// priority, when it takes interrupts at all.
    #[must_use]
    pub fn external_pending(&self) -> bool {
        if self.mode() == Mode::Disabled {
            return self.lint[Lint::Lint0 as usize];
        }
        self.external
            || [Lint::Lint0, Lint::Lint1].into_iter().any(|pin| {
                let entry = self.lvt.lint(pin);
                !entry.is_masked()
                    && entry.delivery_mode() == Some(DeliveryMode::ExtInt)
                    && entry.is_active(self.lint[pin as usize])
            })
    }

    /// Tells that the acknowledge cycle for [`LocalApic::external_pending`] has been made.
    pub fn accept_external(&mut self) {
        self.external = false;
    }

    /// End of interrupt (SDM 3A 11.8.5): the level in service with the highest priority is done.
    pub(super) fn end_of_interrupt(&mut self) -> Effects {
        let Some(vector) = self.isr.highest() else { return Effects::NONE };
        self.isr.remove(vector);
        if !self.tmr.contains(vector) {
            return Effects::NONE;
        }
        if self.lvt.lint0.remote_irr() && self.lvt.lint0.vector() == vector {
            self.lvt.lint0.set_remote_irr(false);
            self.service_level_lint0();
        }
        let suppressed = self.svr & super::registers::SVR_NO_EOI_BROADCAST != 0;
        Effects { eoi: (!suppressed).then_some(vector), ..Effects::NONE }
    }

    /// Requests an interrupt if LINT0 is in level mode, active and not yet served.
    pub(super) fn service_level_lint0(&mut self) {
        let entry = self.lvt.lint0;
        if entry.is_level()
            && !entry.is_masked()
            && !entry.remote_irr()
            && entry.is_active(self.lint[Lint::Lint0 as usize])
        {
            self.lvt.lint0.set_remote_irr(true);
            self.request(entry.vector(), TriggerMode::Level);
        }
    }

    /// An edge at the source of a table entry.
    fn fire(&mut self, entry: Entry) -> Option<Signal> {
        if entry.is_masked() {
            return None;
        }
        match entry.delivery_mode()? {
            DeliveryMode::Fixed => {
                self.request(entry.vector(), TriggerMode::Edge);
                None
            }
            DeliveryMode::Smi => Some(Signal::Smi),
            DeliveryMode::Nmi => Some(Signal::Nmi),
            DeliveryMode::Init => {
                self.init();
                Some(Signal::Init)
            }
            // ExtINT is polled as a level; the others are reserved in the table.
            DeliveryMode::ExtInt | DeliveryMode::LowestPriority | DeliveryMode::StartUp => None,
        }
    }

    /// An edge at the source of an entry that has no delivery mode: timer and error.
    pub(super) fn fire_vector(&mut self, entry: Entry) {
        if !entry.is_masked() {
            self.request(entry.vector(), TriggerMode::Edge);
        }
    }

    /// Accepts a vector into the IRR (SDM 3A 11.8.4).
    fn request(&mut self, vector: u8, trigger: TriggerMode) {
        if is_illegal_vector(vector) {
            self.detect(ApicError::ReceiveIllegalVector);
            return;
        }
        self.irr.insert(vector);
        match trigger {
            TriggerMode::Edge => self.tmr.remove(vector),
            TriggerMode::Level => self.tmr.insert(vector),
        }
    }

    /// Logs an error and raises the error interrupt (SDM 3A 11.5.3).
    pub(super) fn detect(&mut self, error: ApicError) {
        self.errors.detect(error);
        let entry = self.lvt.error;
        if !entry.is_masked() && self.errors.trigger() {
            // An illegal vector here comes back once, and finds the trigger taken.
            self.fire_vector(entry);
        }
    }
}
