//! System control port A at port 0x92 (IBM PS/2 Hardware Interface Technical Reference, System
//! Control Ports; ICH9 datasheet 13.7.2): the fast A20 gate and the fast processor reset.

use serde::{Deserialize, Serialize};

use crate::reset_control::ResetRequest;
use crate::time::Time;

/// I/O port of the register.
pub const PORT: u16 = 0x92;

const INIT_NOW: u8 = 1 << 0;
const ALT_A20_GATE: u8 = 1 << 1;

/// The register.
///
/// Its A20 gate is one of two: the machine's address line 20 passes if this one or the keyboard
/// controller's ([`crate::i8042::I8042::a20`]) is open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port92 {
    value: u8,
}

impl Port92 {
    /// The register as it is at power-on: gate closed.
    #[must_use]
    pub const fn new() -> Self {
        Self { value: 0 }
    }

    /// Back to the state of power-on.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// True while this gate lets address line 20 pass.
    #[must_use]
    pub fn a20(&self) -> bool {
        self.value & ALT_A20_GATE != 0
    }

    /// The bits written last; unused ones read as zero.
    #[must_use]
    pub fn read(&self, _offset: u16, _now: Time) -> u8 {
        self.value
    }

    /// Sets the gate; INIT to the processor when bit 0 goes from 0 to 1.
    #[must_use]
    pub fn write(&mut self, _offset: u16, value: u8, _now: Time) -> Option<ResetRequest> {
        let init = value & !self.value & INIT_NOW != 0;
        self.value = value & (INIT_NOW | ALT_A20_GATE);
        init.then_some(ResetRequest::Cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gate_and_reset() {
        let mut port = Port92::new();
        assert!(!port.a20());
        assert_eq!(port.write(0, 0xfe, Time::ZERO), None);
        assert!(port.a20());
        assert_eq!(port.read(0, Time::ZERO), 0x02);
        assert_eq!(port.write(0, 0x01, Time::ZERO), Some(ResetRequest::Cpu));
        assert_eq!(port.write(0, 0x01, Time::ZERO), None, "needs an edge");
        assert!(!port.a20());
    }
}
