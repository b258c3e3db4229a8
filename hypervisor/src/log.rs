//! The kernel's log: a ring in memory, and until the hand-over the serial port and the screen.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use abi::hip::{LOG_SIZE, LogRing};
use screen::{Printer, Screen};
use spin::Mutex;
use uart_16550::SerialPort;

use crate::sync::KERNEL;

/// The ring that the root task can read.
pub static RING: LogRing = LogRing::new();

/// I/O base of the first serial port of a PC.
const COM1: u16 = 0x3f8;

/// Whether lines also go to the serial port: from boot until user space takes it over, and again when the kernel dies.
static DIRECT: AtomicBool = AtomicBool::new(true);

/// Whether a CPU has died: closing the lock twice would open it.
static CLOSED: AtomicBool = AtomicBool::new(false);

static SINK: Mutex<Sink> = Mutex::new(Sink { serial: None, screen: None, kept: None });

struct Sink {
    serial: Option<SerialPort>,
    screen: Option<Printer<'static>>,
    /// For a kernel that dies after the hand-over.
    kept: Option<Screen<'static>>,
}

impl Sink {
    fn byte(&mut self, byte: u8) {
        let at = RING.written.load(Ordering::Relaxed);
        let index = usize::try_from(at).unwrap_or(0) % LOG_SIZE;
        if let Some(slot) = RING.text.get(index) {
            slot.store(byte, Ordering::Relaxed);
        }
        RING.written.store(at.wrapping_add(1), Ordering::Release);
        if !DIRECT.load(Ordering::Relaxed) {
            return;
        }
        if let Some(screen) = &mut self.screen {
            screen.byte(byte);
        }
        if let Some(serial) = &mut self.serial {
            if byte == b'\n' {
                serial.send_raw(b'\r');
            }
            serial.send_raw(byte);
        }
    }
}

impl Write for Sink {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.byte(byte));
        Ok(())
    }
}

/// Takes the serial port, if there is one.
pub fn open_serial() {
    // A port that is not there reads as all ones: then its line status would claim to be ready for ever,
    // but its scratch register would not keep a value.
    if !crate::arch::port::scratch_works(COM1) {
        return;
    }
    // SAFETY: COM1 is the platform's serial port and nobody else uses it before the hand-over.
    let mut serial = unsafe { SerialPort::new(COM1) };
    serial.init();
    crate::arch::port::set_line_speed(COM1);
    SINK.lock().serial = Some(serial);
}

/// Also writes to the screen, below what the loader wrote.
pub fn open_screen(screen: Option<Screen<'static>>) {
    SINK.lock().screen = screen.map(Printer::below);
}

/// Writes there if the kernel dies after the hand-over.
pub fn keep_screen(screen: Option<Screen<'static>>) {
    SINK.lock().kept = screen;
}

/// Leaves the serial port and the screen to user space. The ring goes on.
pub fn hand_over() {
    // The screen's mapping is about to go.
    SINK.lock().screen = None;
    DIRECT.store(false, Ordering::Relaxed);
}

/// Takes the serial port and the screen back, because the kernel is about to stop for good.
pub fn take_back() {
    // No other CPU enters the kernel from now on.
    if !CLOSED.swap(true, Ordering::Relaxed) {
        KERNEL.close();
    }
    // SAFETY: only called on the way to a halt with interrupts off; whoever held the lock never runs again.
    unsafe { SINK.force_unlock() };
    if !DIRECT.swap(true, Ordering::Relaxed) {
        let mut sink = SINK.lock();
        sink.screen = sink.kept.take().map(Printer::on_empty);
    }
}

/// Appends formatted text; use [`crate::println`].
pub fn append(args: fmt::Arguments<'_>) {
    // Writing to the ring cannot fail.
    let _ = SINK.lock().write_fmt(args);
}

/// Appends a line to the kernel's log.
#[macro_export]
macro_rules! println {
    ($($arg:tt)*) => {
        $crate::log::append(format_args!("{}\n", format_args!($($arg)*)))
    };
}
