//! The root task's own log: kept in memory until the console service takes it.

use alloc::vec::Vec;

use protocol::console::{LOG, LogChannel};
use protocol::ring::Producer;
use runtime::lock::Lock;
use runtime::sm::Sm;

/// Bytes kept while nobody takes them.
const KEPT: usize = 64 * 1024;

struct Log {
    waiting: Vec<u8>,
    console: Option<(Producer<'static, LOG>, Sm)>,
}

static STATE: Lock<Log> = Lock::new(Log { waiting: Vec::new(), console: None });

/// Takes a line of this task's log; whether there was room for it.
fn append(line: &[u8]) -> bool {
    let mut log = STATE.lock();
    let room = log.waiting.len() + line.len() <= KEPT;
    if room {
        log.waiting.extend_from_slice(line);
    }
    log.pump();
    room
}

/// Starts to keep the log.
pub fn start() {
    runtime::log::set_sink(runtime::log::Sink::Function(append));
}

/// Sends the log to the console service from now on.
pub fn connect(channel: &'static LogChannel, service: Sm) {
    let mut log = STATE.lock();
    log.console = Some((Producer::new(&channel.text), service));
    log.pump();
}

/// Sends what there was no room for. To be called when woken by the console service.
pub fn pump() {
    STATE.lock().pump();
}

/// Whether the console service has taken all of it.
pub fn is_drained() -> bool {
    let log = STATE.lock();
    log.waiting.is_empty() && log.console.as_ref().is_none_or(|(ring, _)| ring.room() == LOG)
}

impl Log {
    fn pump(&mut self) {
        let Some((ring, service)) = &mut self.console else { return };
        let service = *service;
        while !self.waiting.is_empty() {
            let sent = ring.write(&self.waiting, || {
                // Without a console service the log stays in the ring.
                let _ = service.up();
            });
            self.waiting.drain(..sent);
            if sent == 0 && ring.prepare_wait() {
                return;
            }
        }
    }
}

/// A line of the root task's log.
#[macro_export]
macro_rules! say {
    ($($argument:tt)*) => {
        runtime::println!("root: {}", format_args!($($argument)*))
    };
}
