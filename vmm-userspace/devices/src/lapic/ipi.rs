//! Interprocessor interrupts: the interrupt command register (SDM 3A 11.6.1, 11.12.9).

use super::message::{DeliveryMode, DestinationMode, Message, TriggerMode};
use super::{LocalApic, Mode};

/// Destination shorthand, bits 19:18 of the ICR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shorthand {
    /// The message's destination counts.
    None,
    /// The sender.
    Own,
    /// Every local APIC.
    AllIncludingSelf,
    /// Every local APIC but the sender.
    AllExcludingSelf,
}

/// An interprocessor interrupt on its way. The owner gives its message to every local APIC that it
/// [reaches](Ipi::reaches) (the sender too, if it does); in lowest-priority mode to one of them,
/// chosen by [`super::arbitrate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipi {
    /// The sender's 32-bit APIC ID.
    pub sender: u32,
    /// Destination shorthand.
    pub shorthand: Shorthand,
    /// What is sent.
    pub message: Message,
}

impl Ipi {
    /// Whether `apic` is a destination.
    #[must_use]
    pub fn reaches(&self, apic: &LocalApic) -> bool {
        match self.shorthand {
            Shorthand::None => {
                apic.accepts(self.message.destination, self.message.destination_mode)
            }
            Shorthand::Own => apic.id() == self.sender,
            Shorthand::AllIncludingSelf => apic.mode() != Mode::Disabled,
            Shorthand::AllExcludingSelf => {
                apic.mode() != Mode::Disabled && apic.id() != self.sender
            }
        }
    }

    /// The command in the low half of an ICR; `None` if it sends nothing: a reserved delivery mode,
    /// or INIT level de-assert, which processors since the Pentium 4 do not support.
    ///
    /// Combinations that table 11-3 calls invalid without saying what happens (such as NMI with the
    /// shorthand "self") are sent as they stand.
    pub(super) fn from_command(sender: u32, low: u32, destination: u32) -> Option<Self> {
        let delivery_mode = DeliveryMode::from_command(low)?;
        let (assert, level_triggered) = (low & 1 << 14 != 0, low & 1 << 15 != 0);
        if delivery_mode == DeliveryMode::Init && level_triggered && !assert {
            return None;
        }
        Some(Self {
            sender,
            shorthand: match low >> 18 & 3 {
                0 => Shorthand::None,
                1 => Shorthand::Own,
                2 => Shorthand::AllIncludingSelf,
                _ => Shorthand::AllExcludingSelf,
            },
            message: Message {
                destination,
                destination_mode: DestinationMode::from_bits(low),
                delivery_mode,
                vector: low as u8,
                // The trigger-mode bit is overridden (table 11-3, note 2).
                trigger: TriggerMode::Edge,
            },
        })
    }

    /// The command that a write of `vector` to SELF IPI stands for (SDM 3A 11.12.11).
    pub(super) const fn to_self(sender: u32, vector: u8) -> Self {
        Self {
            sender,
            shorthand: Shorthand::Own,
            message: Message {
                destination: sender,
                destination_mode: DestinationMode::Physical,
                delivery_mode: DeliveryMode::Fixed,
                vector,
                trigger: TriggerMode::Edge,
            },
        }
    }
}
