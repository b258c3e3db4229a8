//! Text for the person in front of the machine: COM1, and the screen.

use core::fmt::{self, Write};

use ::screen::{Printer, Screen};
use spin::Mutex;
use x86_64::instructions::port::Port;

/// I/O port base of COM1.
const COM1: u16 = 0x3f8;

/// Looks at a busy transmitter before its byte is given up: longer than a FIFO takes to drain.
const PATIENCE: u32 = 1 << 18;

/// One thread without interrupts takes the lock, so only a panic in the middle finds it taken.
static CONSOLE: Mutex<Console> = Mutex::new(Console { serial_present: false, screen: None });

/// The serial port and the screen as one stream.
struct Console {
    serial_present: bool,
    screen: Option<Printer<'static>>,
}

/// Sets COM1 to 115200 baud, 8N1, without interrupts (16550 data sheet, section 8).
pub fn open_serial() {
    for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 0x03), (2, 0x07), (4, 3)] {
        write_com1(register, value);
    }
    // A missing port reads as all ones; a real one never has all status bits set.
    CONSOLE.lock().serial_present = line_status() != 0xff;
}

/// Clears the screen and writes to it as well from now on.
pub fn open_screen(screen: Screen<'static>) {
    CONSOLE.lock().screen = Some(Printer::on_empty(screen));
}

/// Writes a line.
pub fn line(text: fmt::Arguments<'_>) {
    // Writing to a console cannot fail.
    let _ = writeln!(CONSOLE.lock(), "Ferrite loader: {text}");
}

/// Makes the console usable again for whoever stops the loader in the middle of a line.
pub fn take_back() {
    // SAFETY: whoever held the lock never runs again.
    unsafe { CONSOLE.force_unlock() };
}

impl Console {
    fn put_serial(&mut self, byte: u8) {
        if self.serial_present {
            // Bit 5: the transmitter can take a byte.
            if (0..PATIENCE).any(|_| line_status() & 0x20 != 0) {
                write_com1(0, byte);
            } else {
                self.serial_present = false;
            }
        }
    }
}

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.put_serial(b'\r');
            }
            self.put_serial(byte);
            if let Some(screen) = &mut self.screen {
                screen.byte(byte);
            }
        }
        Ok(())
    }
}

fn line_status() -> u8 {
    // SAFETY: reading the line status has no effect beyond clearing error bits.
    unsafe { Port::new(COM1 + 5).read() }
}

fn write_com1(register: u16, value: u8) {
    // SAFETY: nobody else uses COM1 while the loader runs; a missing port ignores writes.
    unsafe { Port::new(COM1 + register).write(value) }
}
