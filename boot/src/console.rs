//! Text for the person in front of the machine: COM1, and the screen if it shows text.

use core::fmt;

use x86_64::instructions::port::Port;

/// I/O port base of COM1.
const COM1: u16 = 0x3f8;

/// Looks at a busy transmitter before its byte is given up: longer than a FIFO takes to drain.
const PATIENCE: u32 = 1 << 18;

const COLUMNS: usize = 80;
const ROWS: usize = 25;
const VGA_TEXT: *mut u16 = 0xb8000 as *mut u16;
/// A blank in grey on black.
const BLANK: u16 = 0x0720;

/// The serial port and the screen as one stream.
pub struct Console {
    serial_present: bool,
    screen: bool,
    cell: usize,
}

impl Console {
    /// Sets COM1 to 115200 baud, 8N1, without interrupts (16550 data sheet, section 8).
    pub fn new() -> Self {
        for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 0x03), (2, 0x07), (4, 3)] {
            write_com1(register, value);
        }
        // A missing port reads as all ones; a real one never has all status bits set.
        Self { serial_present: line_status() != 0xff, screen: false, cell: 0 }
    }

    /// Clears the screen and writes to it from now on, if `text` says that it shows text.
    pub fn use_screen(&mut self, text: bool) {
        self.screen = text;
        self.cell = 0;
        if text {
            (0..COLUMNS * ROWS).for_each(|cell| set_cell(cell, BLANK));
        }
    }

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

    fn put_screen(&mut self, byte: u8) {
        if byte == b'\n' {
            self.cell = (self.cell / COLUMNS + 1) * COLUMNS;
        } else {
            set_cell(self.cell % (COLUMNS * ROWS), BLANK & 0xff00 | u16::from(byte));
            self.cell += 1;
        }
    }
}

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.put_serial(b'\r');
            }
            self.put_serial(byte);
            if self.screen {
                self.put_screen(byte);
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

fn set_cell(cell: usize, value: u16) {
    assert!(cell < COLUMNS * ROWS);
    // SAFETY: the cell lies in VGA text memory, which the loader maps where it is; where there is
    // no such memory, nothing else is there either.
    unsafe { VGA_TEXT.add(cell).write_volatile(value) }
}
