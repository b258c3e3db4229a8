//! NMI status and control at port 0x61 (ICH9 datasheet 13.7.1, NMI_SC): the gate of timer
//! counter 2, the speaker, and a bit that toggles with the memory refresh.

use serde::{Deserialize, Serialize};

use crate::pit::Pit;
use crate::time::Time;

/// I/O port of the register.
pub const PORT: u16 = 0x61;

const TIMER_GATE: u8 = 1 << 0;
const SPEAKER: u8 = 1 << 1;
/// Bits that keep what was written; 2 and 3 mask the NMIs of SERR# and IOCHK#.
const WRITABLE: u8 = 0x0f;
const REFRESH: u8 = 1 << 4;
const TIMER_OUT: u8 = 1 << 5;

/// Nanoseconds between memory refreshes: 18 pulses of the timer's clock.
const REFRESH_NS: u64 = 15_085;

/// The register. There are no sources of NMI behind it, so bits 7 and 6 read as zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port61 {
    control: u8,
}

impl Port61 {
    /// The register as it is at power-on.
    #[must_use]
    pub const fn new() -> Self {
        Self { control: 0 }
    }

    /// Back to the state of power-on; the timer has to be reset as well.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// Reads the register.
    pub fn read(&self, pit: &mut Pit, now: Time) -> u8 {
        pit.advance(now);
        let refresh = if now.0 / REFRESH_NS % 2 == 1 { REFRESH } else { 0 };
        let out = if pit.out(2) { TIMER_OUT } else { 0 };
        self.control | refresh | out
    }

    /// Writes the register, and with it the gate of counter 2.
    pub fn write(&mut self, value: u8, pit: &mut Pit, now: Time) {
        self.control = value & WRITABLE;
        pit.set_gate2(value & TIMER_GATE != 0, now);
    }

    /// True while the speaker follows the output of counter 2.
    #[must_use]
    pub fn speaker(&self) -> bool {
        self.control & SPEAKER != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How operating systems without another clock calibrate theirs: counter 2 as a one-shot.
    #[test]
    fn calibration_with_counter_2() {
        let (mut pit, mut port) = (Pit::new(), Port61::new());
        let start = Time(123_456_789);
        port.write(0x01, &mut pit, start);
        pit.write(3, 0xb0, start);
        pit.write(2, 0xff, start);
        pit.write(2, 0xff, start);
        assert_eq!(port.read(&mut pit, start) & 0x21, 0x01);
        let first_pulse = start.ticks(crate::pit::FREQUENCY);
        let over = Time::of_tick(first_pulse + 65_536, crate::pit::FREQUENCY);
        assert_eq!(port.read(&mut pit, Time(over.0 - 1)) & 0x20, 0x00);
        assert_eq!(port.read(&mut pit, over) & 0x20, 0x20);
    }

    #[test]
    fn gate_stops_the_counter() {
        let (mut pit, mut port) = (Pit::new(), Port61::new());
        pit.write(3, 0xb0, Time::ZERO);
        pit.write(2, 0x10, Time::ZERO);
        pit.write(2, 0x00, Time::ZERO);
        assert_eq!(port.read(&mut pit, Time(1_000_000_000)) & 0x20, 0);
        port.write(0x03, &mut pit, Time(1_000_000_000));
        assert!(port.speaker() && pit.gate2());
        assert_eq!(port.read(&mut pit, Time(1_001_000_000)) & 0x20, 0x20);
    }

    #[test]
    fn refresh_bit_toggles_and_errors_are_absent() {
        let (mut pit, mut port) = (Pit::new(), Port61::new());
        port.write(0xff, &mut pit, Time::ZERO);
        assert_eq!(port.read(&mut pit, Time::ZERO) & 0xdf, 0x0f);
        assert_eq!(port.read(&mut pit, Time(15_085)) & 0xdf, 0x1f);
        assert_eq!(port.read(&mut pit, Time(30_170)) & 0xdf, 0x0f);
    }
}
