//! Reset control register at port 0xcf9 (ICH9 datasheet 13.7.4, RST_CNT), and the kinds of
//! reset that a machine's devices can ask for.

use serde::{Deserialize, Serialize};

use crate::time::Time;

/// I/O port of the register.
pub const PORT: u16 = 0xcf9;

/// Writing this value to a register that holds zero resets the whole machine. The value for the
/// FADT's `RESET_VALUE` (ACPI 6.5 4.8.3.6).
pub const RESET_VALUE: u8 = SYS_RST | RST_CPU;

const SYS_RST: u8 = 1 << 1;
const RST_CPU: u8 = 1 << 2;
const FULL_RST: u8 = 1 << 3;

/// A reset that the guest has asked for. To be carried out by the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResetRequest {
    /// INIT to the processors; devices and memory keep their state (SDM 3A 9.1).
    Cpu,
    /// Processors and devices; memory keeps its contents.
    System,
    /// As if the power had been switched off and on.
    PowerCycle,
}

/// The register.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetControl {
    value: u8,
}

impl ResetControl {
    /// The register as it is at power-on.
    #[must_use]
    pub const fn new() -> Self {
        Self { value: 0 }
    }

    /// Back to the state of power-on.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// What was written last; reserved bits read as zero.
    #[must_use]
    pub fn read(&self, _offset: u16, _now: Time) -> u8 {
        self.value
    }

    /// Stores `value`. The reset happens when `RST_CPU` goes from 0 to 1, and the other bits say
    /// which kind it is.
    #[must_use]
    pub fn write(&mut self, _offset: u16, value: u8, _now: Time) -> Option<ResetRequest> {
        let rises = value & !self.value & RST_CPU != 0;
        self.value = value & (SYS_RST | RST_CPU | FULL_RST);
        if !rises {
            return None;
        }
        Some(match (value & SYS_RST != 0, value & FULL_RST != 0) {
            (false, _) => ResetRequest::Cpu,
            (true, false) => ResetRequest::System,
            (true, true) => ResetRequest::PowerCycle,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(values: &[u8]) -> Option<ResetRequest> {
        let mut register = ResetControl::new();
        values.iter().map(|&v| register.write(0, v, Time::ZERO)).last().flatten()
    }

    #[test]
    fn bits_choose_the_kind() {
        assert_eq!(after(&[0x04]), Some(ResetRequest::Cpu));
        assert_eq!(after(&[0x02, 0x06]), Some(ResetRequest::System));
        assert_eq!(after(&[RESET_VALUE]), Some(ResetRequest::System));
        assert_eq!(after(&[0x0a, 0x0e]), Some(ResetRequest::PowerCycle));
    }

    #[test]
    fn only_a_rising_edge_resets() {
        assert_eq!(after(&[0x0a]), None);
        assert_eq!(after(&[0x06, 0x06]), None);
        assert_eq!(after(&[0x06, 0x02, 0x06]), Some(ResetRequest::System));
    }

    #[test]
    fn reserved_bits_read_zero() {
        let mut register = ResetControl::new();
        assert_eq!(register.write(0, 0xfb, Time::ZERO), None);
        assert_eq!(register.read(0, Time::ZERO), 0x0a);
    }
}
