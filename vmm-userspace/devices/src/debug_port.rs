//! Debug port 0x80: a latch that firmware writes its progress codes to, and that operating systems
//! write for its delay.

use serde::{Deserialize, Serialize};

use crate::time::Time;

/// I/O port of the latch.
pub const PORT: u16 = 0x80;

/// The latch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DebugPort {
    last: u8,
}

impl DebugPort {
    /// A latch that holds zero.
    #[must_use]
    pub const fn new() -> Self {
        Self { last: 0 }
    }

    /// Back to the state of power-on.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// The byte written last.
    #[must_use]
    pub fn read(&self, _offset: u16, _now: Time) -> u8 {
        self.last
    }

    /// Latches `value`.
    pub fn write(&mut self, _offset: u16, value: u8, _now: Time) {
        self.last = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_was_written_last() {
        let mut port = DebugPort::new();
        port.write(0, 0x12, Time::ZERO);
        port.write(0, 0xa5, Time::ZERO);
        assert_eq!(port.read(0, Time::ZERO), 0xa5);
        port.reset();
        assert_eq!(port.read(0, Time::ZERO), 0);
    }
}
