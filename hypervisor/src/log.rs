//! The kernel's log: a ring in memory, and until the hand-over the serial port and the screen.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use abi::hip::{LOG_SIZE, LogRing};
use spin::Mutex;
use uart_16550::SerialPort;

/// The ring that the root task can read.
pub static RING: LogRing = LogRing::new();

/// I/O base of the first serial port of a PC.
const COM1: u16 = 0x3f8;

/// Whether lines also go to the serial port: from boot until user space takes it over, and again when the kernel dies.
static DIRECT: AtomicBool = AtomicBool::new(true);

static SINK: Mutex<Sink> = Mutex::new(Sink { serial: None, screen: None });

struct Sink {
    serial: Option<SerialPort>,
    screen: Option<TextScreen>,
}

/// The text screen that the BIOS leaves: 80 by 25 cells of character and attribute.
struct TextScreen {
    cells: *mut u16,
    column: usize,
}

// SAFETY: the pointer is to device memory, used under the lock.
unsafe impl Send for TextScreen {}

impl TextScreen {
    const WIDTH: usize = 80;
    const HEIGHT: usize = 25;
    const BLANK: u16 = 0x0720;

    /// Writes at the bottom; the rest moves up line by line.
    fn byte(&mut self, byte: u8) {
        if byte == b'\n' || self.column == Self::WIDTH {
            let (last, total) = (Self::WIDTH * (Self::HEIGHT - 1), Self::WIDTH * Self::HEIGHT);
            // SAFETY: all within the screen's memory.
            unsafe {
                for cell in 0..last {
                    let below = self.cells.add(cell + Self::WIDTH).read_volatile();
                    self.cells.add(cell).write_volatile(below);
                }
                (last..total).for_each(|cell| self.cells.add(cell).write_volatile(Self::BLANK));
            }
            self.column = 0;
        }
        if byte != b'\n' {
            let cell = Self::WIDTH * (Self::HEIGHT - 1) + self.column;
            // SAFETY: as above.
            unsafe { self.cells.add(cell).write_volatile(0x0700 | u16::from(byte)) };
            self.column += 1;
        }
    }
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

/// Also writes to the text screen, whose memory is mapped at `cells`.
pub fn open_screen(cells: *mut u16) {
    SINK.lock().screen = Some(TextScreen { cells, column: 0 });
}

/// Leaves the serial port and the screen to user space. The ring goes on.
pub fn hand_over() {
    // The screen's mapping is about to go.
    SINK.lock().screen = None;
    DIRECT.store(false, Ordering::Relaxed);
}

/// Takes the serial port back, because the kernel is about to stop for good.
pub fn take_back() {
    // SAFETY: only called on the way to a halt with interrupts off; whoever held the lock never runs again.
    unsafe { SINK.force_unlock() };
    DIRECT.store(true, Ordering::Relaxed);
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
