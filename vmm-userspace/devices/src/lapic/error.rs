//! The error status register (SDM 3A 11.5.3).

use serde::{Deserialize, Serialize};

/// An error that the local APIC can detect: its bit in the ESR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum ApicError {
    SendIllegalVector = 1 << 5,
    ReceiveIllegalVector = 1 << 6,
    IllegalRegisterAddress = 1 << 7,
}

/// The register, the errors detected since it was last written, and the trigger of the interrupt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Errors {
    esr: u32,
    detected: u32,
    /// An interrupt has been raised since the last write.
    triggered: bool,
}

impl Errors {
    /// What a read gives: the errors as of the last write.
    pub(super) const fn read(&self) -> u32 {
        self.esr
    }

    /// A write of any value replaces the contents by what has been detected since the last write,
    /// and rearms the interrupt.
    pub(super) fn write(&mut self) {
        self.esr = self.detected;
        self.detected = 0;
        self.triggered = false;
    }

    /// Notes an error.
    pub(super) fn detect(&mut self, error: ApicError) {
        self.detected |= error as u32;
    }

    /// Takes the right to raise the error interrupt, which exists once for each write.
    pub(super) fn trigger(&mut self) -> bool {
        !core::mem::replace(&mut self.triggered, true)
    }
}
