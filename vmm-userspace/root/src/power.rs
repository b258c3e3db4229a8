//! Turning the machine off, resetting it, and stopping.

use abi::hypercall::Status;
use config::OnEnd;
use root_task::acpi::Power;
use runtime::clock::Clock;
use runtime::pd::Pd;
use runtime::port::{inb, inw, outb, outw};
use runtime::sm::Sm;

use crate::say;

/// Bochs turns off when this word arrives at its port.
const BOCHS: (u16, &[u8]) = (0x8900, b"Shutdown");
/// QEMU's `isa-debug-exit` device.
const QEMU: u16 = 0xf4;
/// The reset control register of a PC, and what resets it.
const RESET_CONTROL: (u16, [u8; 2]) = (0xcf9, [0x02, 0x06]);
/// The keyboard controller's command port, and the command that pulses the reset line.
const KEYBOARD: (u16, u8) = (0x64, 0xfe);

/// Bits of a PM1 control register (ACPI 6.5 4.8.3.2.1).
const SCI_EN: u16 = 1 << 0;
const SLP_TYP: u16 = 7 << 10;
const SLP_EN: u16 = 1 << 13;

const MS: u64 = 1_000_000;

/// What the machine can be told.
#[derive(Debug)]
pub struct Machine {
    clock: Clock,
    power: Option<Power>,
    timer: Sm,
}

impl Machine {
    /// The machine with these power registers.
    ///
    /// # Errors
    /// When kernel memory is short.
    pub fn new(clock: Clock, power: Option<Power>) -> Result<Self, Status> {
        Ok(Self { clock, power, timer: Sm::create(Pd::OWN, 0)? })
    }

    /// Sleeps.
    pub fn sleep(&self, ns: u64) {
        // Nobody ups it: the only way out is the deadline.
        let _ = self.timer.down_until(self.clock.in_ns(ns));
    }

    /// Does what the manifest wants done at the end.
    pub fn end(&self, on_end: OnEnd) -> ! {
        match on_end {
            OnEnd::Poweroff => self.turn_off(),
            OnEnd::Reboot => self.reset(),
            OnEnd::Halt => {}
        }
        runtime::park()
    }

    fn turn_off(&self) {
        if let Some(power) = self.power {
            self.soft_off(&power);
            self.sleep(500 * MS);
        }
        BOCHS.1.iter().for_each(|byte| outb(BOCHS.0, *byte));
        outb(QEMU, 0);
        self.sleep(500 * MS);
        say!("the machine does not turn off: turn it off by hand");
    }

    /// ACPI 6.5 7.4.2.5.
    fn soft_off(&self, power: &Power) {
        let Some([a, b]) = power.sleep_type else { return };
        if let Some((port, value)) = power.enable
            && inw(power.pm1a) & SCI_EN == 0
        {
            outb(port, value);
            // The firmware answers by setting the bit; some take their time.
            for _ in 0..300 {
                if inw(power.pm1a) & SCI_EN != 0 {
                    break;
                }
                self.sleep(10 * MS);
            }
        }
        let registers = [Some((power.pm1a, a)), power.pm1b.map(|port| (port, b))];
        for (port, kind) in registers.into_iter().flatten() {
            let value = inw(port) & !(SLP_TYP | SLP_EN) | u16::from(kind) << 10;
            outw(port, value);
            outw(port, value | SLP_EN);
        }
    }

    fn reset(&self) {
        if let Some((port, value)) = self.power.and_then(|power| power.reset) {
            outb(port, value);
            self.sleep(100 * MS);
        }
        let (port, values) = RESET_CONTROL;
        for value in values {
            outb(port, value);
            self.sleep(MS);
        }
        // The controller takes a command when bit 1 of its status is clear.
        for _ in 0..100 {
            if inb(KEYBOARD.0) & 2 == 0 {
                break;
            }
            self.sleep(MS);
        }
        outb(KEYBOARD.0, KEYBOARD.1);
        self.sleep(500 * MS);
        say!("the machine does not reset: reset it by hand");
    }
}
