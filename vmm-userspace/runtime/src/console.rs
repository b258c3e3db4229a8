//! The task's share of the console: a stream of bytes in each direction.

use core::fmt;

use protocol::console::{ConsoleChannel, INPUT, OUTPUT};
use protocol::ring::{Consumer, Producer};

use crate::sm::{Sm, wake};

/// The sending direction.
#[derive(Debug)]
pub struct Output {
    stream: Producer<'static, OUTPUT>,
    service: Sm,
    wake: Sm,
}

/// The receiving direction.
#[derive(Debug)]
pub struct Input {
    stream: Consumer<'static, INPUT>,
    service: Sm,
    wake: Sm,
}

/// Both directions of a channel. `service` wakes the console service, `wake` this task.
pub(crate) fn open(channel: &'static ConsoleChannel, service: Sm, wake: Sm) -> (Output, Input) {
    (
        Output { stream: Producer::new(&channel.output), service, wake },
        Input { stream: Consumer::new(&channel.input), service, wake },
    )
}

impl Output {
    /// Sends as much as there is room for now and says how many bytes that were.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let service = self.service;
        self.stream.write(bytes, || wake(service))
    }

    /// Bytes that can be sent now.
    #[must_use]
    pub fn room(&self) -> usize {
        self.stream.room()
    }

    /// To be called before waiting on the task's wake-up semaphore for room: `true` if waiting is
    /// right, `false` if there is room by now.
    #[must_use]
    pub fn prepare_wait(&self) -> bool {
        self.stream.prepare_wait()
    }

    /// Sends everything, waiting for room on the task's wake-up semaphore: not for a task with
    /// another thread that waits there.
    pub fn write_all(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let sent = self.write(bytes);
            bytes = bytes.get(sent..).unwrap_or_default();
            if !bytes.is_empty() && self.prepare_wait() && self.wake.down().is_err() {
                return;
            }
        }
    }
}

impl fmt::Write for Output {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.write_all(text.as_bytes());
        Ok(())
    }
}

impl Input {
    /// Receives what there is, as far as `buffer` holds it, and says how many bytes.
    #[inline]
    pub fn read(&mut self, buffer: &mut [u8]) -> usize {
        let service = self.service;
        self.stream.read(buffer, || wake(service))
    }

    /// Bytes that can be received now.
    #[must_use]
    pub fn available(&self) -> usize {
        self.stream.available()
    }

    /// To be called before waiting on the task's wake-up semaphore for input: `true` if waiting is
    /// right, `false` if there is input by now.
    #[must_use]
    pub fn prepare_wait(&self) -> bool {
        self.stream.prepare_wait()
    }

    /// Receives at least one byte, waiting for it on the task's wake-up semaphore: not for a task
    /// with another thread that waits there.
    pub fn read_some(&mut self, buffer: &mut [u8]) -> usize {
        loop {
            let count = self.read(buffer);
            if count > 0 || buffer.is_empty() {
                return count;
            }
            if self.prepare_wait() && self.wake.down().is_err() {
                return 0;
            }
        }
    }
}
