//! I/O ports.

use devices::{acpi_pm, debug_port, i8042, pci, pic, pit, port61, port92, reset_control, rtc};

use super::{
    Clock,
    board::{Board, Request},
};
use crate::layout::{COM1, PM_BASE};

const COM1_LAST: u16 = COM1 + 7;
const PM_LAST: u16 = PM_BASE + acpi_pm::SIZE - 1;
const PIT_LAST: u16 = pit::PORT + 3;
const RTC_LAST: u16 = rtc::PORT + 1;
const KEYBOARD_DATA: u16 = i8042::PORT + i8042::DATA;
const KEYBOARD_COMMAND: u16 = i8042::PORT + i8042::COMMAND;
const COMMAND_LAST: u16 = acpi_pm::COMMAND_PORT + 1;
const PCI_DATA: u16 = pci::PORT + 4;
const PCI_LAST: u16 = pci::PORT + 7;

/// A bit for each port below 0x1000 that a device claims; there are none above.
const CLAIMED: [u64; 64] = {
    let mut map = [0; 64];
    let mut port = 0;
    while port < 0x1000 {
        if is_claimed(port) {
            map[(port >> 6) as usize] |= 1 << (port & 63);
        }
        port += 1;
    }
    map
};

const fn is_claimed(port: u16) -> bool {
    matches!(
        port,
        COM1..=COM1_LAST
            | debug_port::PORT
            | PM_BASE..=PM_LAST
            | pic::MASTER_COMMAND
            | pic::MASTER_DATA
            | pic::SLAVE_COMMAND
            | pic::SLAVE_DATA
            | pic::ELCR_MASTER
            | pic::ELCR_SLAVE
            | pit::PORT..=PIT_LAST
            | port61::PORT
            | KEYBOARD_DATA
            | KEYBOARD_COMMAND
            | rtc::PORT..=RTC_LAST
            | port92::PORT
            | acpi_pm::COMMAND_PORT..=COMMAND_LAST
            | pci::PORT..=PCI_LAST
    )
}

/// Whether some device claims a port.
#[inline]
pub(super) fn claimed(port: u16) -> bool {
    CLAIMED.get(usize::from(port >> 6)).is_some_and(|word| word >> (port & 63) & 1 != 0)
}

impl Board {
    /// IN of 1, 2 or 4 bytes. Devices with byte-wide registers see a wide access as several; ports that nobody claims read as ones.
    pub fn port_read(&mut self, port: u16, size: u8, clock: &impl Clock) -> u32 {
        if size == 1 {
            return u32::from(self.read_byte(port, clock));
        }
        if port == pci::PORT || (PCI_DATA..=PCI_LAST).contains(&port) {
            return self.pci.read(port - pci::PORT, size, self.functions.as_mut_slice());
        }
        let mut value = 0;
        for i in 0..size {
            let byte = self.read_byte(port.wrapping_add(u16::from(i)), clock);
            value |= u32::from(byte) << (8 * u32::from(i));
        }
        value
    }

    /// OUT of 1, 2 or 4 bytes; lost where nobody claims the port.
    #[inline]
    pub fn port_write(&mut self, port: u16, size: u8, value: u32, clock: &impl Clock) {
        if size == 1 {
            self.write_byte(port, value as u8, clock);
        } else {
            self.write_wide(port, size, value, clock);
        }
    }

    fn write_wide(&mut self, port: u16, size: u8, value: u32, clock: &impl Clock) {
        if port == pci::PORT || (PCI_DATA..=PCI_LAST).contains(&port) {
            self.pci.write(port - pci::PORT, size, value, self.functions.as_mut_slice());
            return;
        }
        for i in 0..size {
            let byte = (value >> (8 * u32::from(i))) as u8;
            self.write_byte(port.wrapping_add(u16::from(i)), byte, clock);
        }
    }

    fn read_byte(&mut self, port: u16, clock: &impl Clock) -> u8 {
        match port {
            COM1..=COM1_LAST => {
                let value = self.uart.read(port - COM1, clock.time());
                self.sync_uart();
                // Only taking a byte moves the time-out of the receiver.
                if port == COM1 {
                    self.touch_timers();
                }
                value
            }
            debug_port::PORT => self.debug.read(0, clock.time()),
            PM_BASE..=PM_LAST => self.pm.read(port - PM_BASE, clock.time()),
            pic::MASTER_COMMAND
            | pic::MASTER_DATA
            | pic::SLAVE_COMMAND
            | pic::SLAVE_DATA
            | pic::ELCR_MASTER
            | pic::ELCR_SLAVE => {
                let value = self.pic.read(port);
                self.sync_controllers();
                value
            }
            pit::PORT..=PIT_LAST => {
                let value = self.pit.read(port - pit::PORT, clock.time());
                self.sync_pit();
                value
            }
            port61::PORT => {
                let value = self.port61.read(&mut self.pit, clock.time());
                self.sync_pit();
                value
            }
            KEYBOARD_DATA | KEYBOARD_COMMAND => {
                let value = self.i8042.read(port - i8042::PORT, clock.time());
                self.sync_i8042();
                value
            }
            rtc::PORT..=RTC_LAST => {
                let value = self.rtc.read(port - rtc::PORT, clock.time());
                self.sync_rtc();
                self.touch_timers();
                value
            }
            port92::PORT => self.port92.read(0, clock.time()),
            acpi_pm::COMMAND_PORT..=COMMAND_LAST => {
                self.pm.read_command(port - acpi_pm::COMMAND_PORT)
            }
            reset_control::PORT => self.reset.read(0, clock.time()),
            PCI_DATA..=PCI_LAST => {
                self.pci.read(port - pci::PORT, 1, self.functions.as_mut_slice()) as u8
            }
            _ => 0xff,
        }
    }

    #[inline]
    fn write_byte(&mut self, port: u16, value: u8, clock: &impl Clock) {
        if port == debug_port::PORT {
            // The latch has no clock.
            self.debug.write(0, value, devices::time::Time::ZERO);
        } else if port & !7 == COM1 {
            self.write_uart(port - COM1, value, clock);
        } else {
            self.write_other(port, value, clock);
        }
    }

    #[inline]
    fn write_uart(&mut self, offset: u16, value: u8, clock: &impl Clock) {
        self.uart.write(offset, value, clock.time());
        self.sync_uart();
        // Sending has no timers.
        if offset != 0 {
            self.touch_timers();
        }
    }

    fn write_other(&mut self, port: u16, value: u8, clock: &impl Clock) {
        let reset = match port {
            PM_BASE..=PM_LAST => {
                let sleep = self.pm.write(port - PM_BASE, value, clock.time());
                // Only S5 is announced.
                if sleep.is_some_and(|sleep| sleep.0 == acpi_pm::SLEEP_TYPE_S5) {
                    self.request = Some(Request::PowerOff);
                    self.attention = true;
                }
                self.sync_sci();
                self.touch_timers();
                None
            }
            pic::MASTER_COMMAND
            | pic::MASTER_DATA
            | pic::SLAVE_COMMAND
            | pic::SLAVE_DATA
            | pic::ELCR_MASTER
            | pic::ELCR_SLAVE => {
                self.pic.write(port, value);
                self.sync_controllers();
                None
            }
            pit::PORT..=PIT_LAST => {
                self.pit.write(port - pit::PORT, value, clock.time());
                self.sync_pit();
                self.touch_timers();
                None
            }
            port61::PORT => {
                self.port61.write(value, &mut self.pit, clock.time());
                self.sync_pit();
                None
            }
            KEYBOARD_DATA | KEYBOARD_COMMAND => {
                let reset = self.i8042.write(port - i8042::PORT, value, clock.time());
                self.sync_i8042();
                reset
            }
            rtc::PORT..=RTC_LAST => {
                self.rtc.write(port - rtc::PORT, value, clock.time());
                self.sync_rtc();
                self.touch_timers();
                None
            }
            port92::PORT => self.port92.write(0, value, clock.time()),
            acpi_pm::COMMAND_PORT..=COMMAND_LAST => {
                self.pm.write_command(port - acpi_pm::COMMAND_PORT, value);
                self.sync_sci();
                self.touch_timers();
                None
            }
            reset_control::PORT => self.reset.write(0, value, clock.time()),
            PCI_DATA..=PCI_LAST => {
                let functions = self.functions.as_mut_slice();
                self.pci.write(port - pci::PORT, 1, u32::from(value), functions);
                None
            }
            _ => None,
        };
        // Without firmware a processor that is reset alone has nowhere to go.
        if reset.is_some() {
            self.request = Some(Request::Reset);
            self.attention = true;
        }
    }
}
