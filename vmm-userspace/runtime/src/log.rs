//! The task's log: lines of text for people.
//!
//! A line that finds no room is lost, never waited for, so that logging can neither block a task
//! nor be used to block it; the next line that finds room says how many were lost.

use core::fmt::{self, Write};

use protocol::console::LOG;
use protocol::ring::Producer;

use crate::lock::Lock;
use crate::sm::Sm;

/// Longest line in bytes; what is beyond is cut.
pub const MAX_LINE: usize = 512;

/// Where the log's text goes.
pub enum Sink {
    /// Nowhere.
    None,
    /// To the console service, which is woken by the semaphore.
    Channel(Producer<'static, LOG>, Sm),
    /// To a function of the task, which says whether it had room.
    Function(fn(&[u8]) -> bool),
}

struct Log {
    sink: Sink,
    lost: u32,
}

static LOGGER: Lock<Log> = Lock::new(Log { sink: Sink::None, lost: 0 });

/// Sends the log there from now on.
pub fn set_sink(sink: Sink) {
    LOGGER.lock().sink = sink;
}

/// Appends a line; see [`crate::println!`].
pub fn print(arguments: fmt::Arguments<'_>) {
    LOGGER.lock().line(arguments);
}

/// Appends a line if no other thread is just doing so: for a task that is about to die, perhaps
/// in the middle of logging.
pub fn print_last(arguments: fmt::Arguments<'_>) {
    if let Some(mut log) = LOGGER.try_lock() {
        log.line(arguments);
    }
}

impl Log {
    fn line(&mut self, arguments: fmt::Arguments<'_>) {
        if self.lost > 0 {
            let lost = self.lost;
            if !self.send(format_args!("[{lost} lines lost]")) {
                self.lost = lost.saturating_add(1);
                return;
            }
            self.lost = 0;
        }
        if !self.send(arguments) {
            self.lost = self.lost.saturating_add(1);
        }
    }

    fn send(&mut self, arguments: fmt::Arguments<'_>) -> bool {
        let mut line = Line { text: [0; MAX_LINE], len: 0 };
        // Formatting into a line cannot fail; what does not fit is cut.
        let _ = line.write_fmt(arguments);
        let text = line.finish();
        match &mut self.sink {
            Sink::None => false,
            Sink::Function(write) => write(text),
            Sink::Channel(producer, service) => {
                let room = producer.room() >= text.len();
                if room {
                    let service = *service;
                    producer.write(text, || crate::sm::wake(service));
                }
                room
            }
        }
    }
}

/// A line being formatted; one byte is kept for the line feed.
struct Line {
    text: [u8; MAX_LINE],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.text.get_mut(self.len..MAX_LINE - 1).unwrap_or_default();
        for (to, from) in room.iter_mut().zip(text.bytes()) {
            *to = from;
            self.len += 1;
        }
        Ok(())
    }
}

impl Line {
    fn finish(&mut self) -> &[u8] {
        if let Some(end) = self.text.get_mut(self.len) {
            *end = b'\n';
        }
        self.text.get(..=self.len).unwrap_or_default()
    }
}

/// Appends a formatted line to the task's log.
#[macro_export]
macro_rules! println {
    ($($argument:tt)*) => {
        $crate::log::print(format_args!($($argument)*))
    };
}
