//! Interrupt messages, as they travel from I/O APICs and local APICs to local APICs.

use serde::{Deserialize, Serialize};

/// The destination that every local APIC accepts, in both destination modes (SDM 3A 11.12.9). The
/// 8-bit broadcast 0xff of the I/O APIC and of the xAPIC's ICR is widened to it by the sender, so
/// that it keeps its meaning at a receiver in x2APIC mode.
pub const BROADCAST: u32 = u32::MAX;

/// Widens an 8-bit destination field (see [`BROADCAST`]).
#[must_use]
pub const fn widen_destination(field: u8) -> u32 {
    if field == u8::MAX { BROADCAST } else { field as u32 }
}

/// What a message does at its destination (SDM 3A 11.5.1, 11.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeliveryMode {
    /// The vector goes to every destination.
    Fixed,
    /// The vector goes to the one destination that runs at the lowest priority.
    LowestPriority,
    /// System-management interrupt.
    Smi,
    /// Non-maskable interrupt; the vector is ignored.
    Nmi,
    /// INIT.
    Init,
    /// Start-up IPI: the vector is the page number of the first instruction. Only in an ICR.
    StartUp,
    /// The vector comes from the 8259 by an acknowledge cycle. Not in an ICR.
    ExtInt,
}

impl DeliveryMode {
    /// Decodes bits 10:8 of an LVT entry or of an I/O APIC's redirection entry; `None` for the
    /// reserved encodings.
    #[must_use]
    pub const fn from_entry(entry: u32) -> Option<Self> {
        match entry >> 8 & 7 {
            0 => Some(Self::Fixed),
            1 => Some(Self::LowestPriority),
            2 => Some(Self::Smi),
            4 => Some(Self::Nmi),
            5 => Some(Self::Init),
            7 => Some(Self::ExtInt),
            _ => None,
        }
    }

    /// Decodes bits 10:8 of an interrupt command; `None` for the reserved encodings.
    #[must_use]
    pub const fn from_command(icr_low: u32) -> Option<Self> {
        match icr_low >> 8 & 7 {
            6 => Some(Self::StartUp),
            7 => None,
            _ => Self::from_entry(icr_low),
        }
    }

    /// Whether the message carries a vector for the IRR.
    #[must_use]
    pub const fn has_vector(self) -> bool {
        matches!(self, Self::Fixed | Self::LowestPriority)
    }
}

/// How a destination is compared with a local APIC (SDM 3A 11.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DestinationMode {
    /// With its APIC ID.
    Physical,
    /// With its logical ID, as a set.
    Logical,
}

impl DestinationMode {
    /// Decodes bit 11 of a redirection entry or interrupt command.
    #[must_use]
    pub const fn from_bits(low: u32) -> Self {
        if low & 1 << 11 == 0 { Self::Physical } else { Self::Logical }
    }
}

/// Whether the end of the interrupt is of interest to its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TriggerMode {
    /// No.
    Edge,
    /// Yes: the EOI is broadcast to the I/O APICs.
    Level,
}

/// An interrupt message.
///
/// It always asserts: the one de-asserting message, INIT level de-assert, exists only for
/// processors before the Pentium 4 (SDM 3A 11.6.1, "Delivery Mode").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// APIC ID or logical destination.
    pub destination: u32,
    /// How to read `destination`.
    pub destination_mode: DestinationMode,
    /// What to do there.
    pub delivery_mode: DeliveryMode,
    /// Interrupt vector, or page number of a start-up message.
    pub vector: u8,
    /// Trigger mode of the source.
    pub trigger: TriggerMode,
}
