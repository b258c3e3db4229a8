//! Talking to a machine's serial console by program: wait for an expression, send an answer.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use miette::{IntoDiagnostic, Result, WrapErr};
use regex::bytes::Regex;

use crate::machine::Machine;
use crate::start::{Gate, Start};

/// What a console has said so far, without carriage returns, and how far it has been understood.
#[derive(Debug, Default)]
pub struct Transcript {
    text: Vec<u8>,
    understood: usize,
    searched: usize,
}

/// A match is found if it is not longer than this, however it is split over reads.
const LONGEST_MATCH: usize = 4096;

impl Transcript {
    /// More from the console.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.text.extend(bytes.iter().copied().filter(|&byte| byte != b'\r'));
    }

    /// Looks for an expression after what is understood already; when it is there, all up to its
    /// end is understood.
    pub fn find(&mut self, expression: &Regex) -> Option<Vec<u8>> {
        let from = self.understood.max(self.searched.saturating_sub(LONGEST_MATCH));
        self.searched = self.text.len();
        let found = expression.find_at(&self.text, from)?;
        self.understood = found.end();
        self.searched = found.end();
        Some(found.as_bytes().to_vec())
    }

    /// Whether an expression occurs anywhere in the last `fresh` bytes or reaches into them.
    fn recent(&self, expression: &Regex, fresh: usize) -> Option<Vec<u8>> {
        let from = self.text.len().saturating_sub(fresh + LONGEST_MATCH);
        expression.find_at(&self.text, from).map(|found| found.as_bytes().to_vec())
    }

    /// All of it.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The last lines, for people.
    pub fn tail(&self, lines: usize) -> String {
        let text = String::from_utf8_lossy(&self.text);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// A new expression: search everything that is not understood.
    fn rewind(&mut self) {
        self.searched = self.understood;
    }
}

/// Why waiting was in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It did not come in time.
    Timeout,
    /// The machine stopped.
    Ended,
    /// Something came that must not.
    Forbidden(String),
}

/// A machine with somebody at its console.
pub struct Session {
    machine: Machine,
    serial: TcpStream,
    output: Receiver<Vec<u8>>,
    log: Option<File>,
    echo: bool,
    forbidden: Option<Regex>,
    start: Option<Start>,
    /// What was said.
    pub transcript: Transcript,
}

impl Session {
    /// Sits down at a machine. What it says goes to `log` byte for byte and, with `echo`, to
    /// standard output; `forbidden` ends all waiting.
    ///
    /// # Errors
    /// When the serial port cannot be used.
    pub fn new(
        machine: Machine,
        log: Option<File>,
        echo: bool,
        forbidden: Option<Regex>,
    ) -> Result<Self> {
        let serial = machine.serial()?;
        let output = read_in_background(machine.serial()?);
        Ok(Self {
            machine,
            serial,
            output,
            log,
            echo,
            forbidden,
            start: None,
            transcript: Transcript::default(),
        })
    }

    /// Where input can wait until the system listens.
    pub fn gate(&mut self) -> Gate {
        let (start, gate) = Start::new();
        self.start = Some(start);
        gate
    }

    /// Waits until an expression appears, and gives what matched.
    ///
    /// # Errors
    /// Why it did not.
    pub fn expect(
        &mut self,
        expression: &Regex,
        deadline: Instant,
    ) -> std::result::Result<Vec<u8>, Failure> {
        self.transcript.rewind();
        loop {
            if let Some(found) = self.transcript.find(expression) {
                return Ok(found);
            }
            self.listen(deadline)?;
        }
    }

    /// Waits until the machine has stopped by itself.
    ///
    /// # Errors
    /// Why it did not.
    pub fn expect_end(&mut self, deadline: Instant) -> std::result::Result<(), Failure> {
        loop {
            match self.listen(deadline) {
                Ok(()) => {}
                Err(Failure::Ended) => break,
                Err(failure) => return Err(failure),
            }
        }
        while self.machine.ended().is_none() {
            if Instant::now() > deadline {
                return Err(Failure::Timeout);
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Types.
    ///
    /// # Errors
    /// When the machine has stopped, or takes nothing until the deadline.
    pub fn send(&mut self, bytes: &[u8], deadline: Instant) -> Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.serial
            .set_write_timeout(Some(left.max(Duration::from_millis(1))))
            .and_then(|()| self.serial.write_all(bytes))
            .into_diagnostic()
            .wrap_err("the console takes no input")
    }

    /// The machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The machine, to do something with it.
    pub fn machine_mut(&mut self) -> &mut Machine {
        &mut self.machine
    }

    /// Takes in what came, or waits for more.
    fn listen(&mut self, deadline: Instant) -> std::result::Result<(), Failure> {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut bytes = match self.output.recv_timeout(left) {
            Ok(bytes) => bytes,
            Err(RecvTimeoutError::Timeout) => return Err(Failure::Timeout),
            Err(RecvTimeoutError::Disconnected) => return Err(Failure::Ended),
        };
        bytes.extend(self.output.try_iter().flatten());
        if let Some(start) = &mut self.start {
            start.see(&bytes);
        }
        if let Some(log) = &mut self.log {
            // A full disk must not fail a test that passes.
            let _ = log.write_all(&bytes);
        }
        if self.echo {
            let mut output = io::stdout().lock();
            let _ = output.write_all(&bytes).and_then(|()| output.flush());
        }
        self.transcript.extend(&bytes);
        match self.forbidden.as_ref().and_then(|f| self.transcript.recent(f, bytes.len())) {
            Some(found) => Err(Failure::Forbidden(String::from_utf8_lossy(&found).into_owned())),
            None => Ok(()),
        }
    }
}

/// Reads a stream in a thread of its own, so that waiting for it can end at a deadline.
pub fn read_in_background(mut stream: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regex(text: &str) -> Regex {
        Regex::new(text).unwrap()
    }

    #[test]
    fn a_match_may_come_in_pieces_and_with_carriage_returns() {
        let mut transcript = Transcript::default();
        transcript.extend(b"one\r\ntw");
        assert_eq!(transcript.find(&regex("one\ntwo")), None);
        transcript.extend(b"o\r\n");
        assert_eq!(transcript.find(&regex("one\ntwo")), Some(b"one\ntwo".to_vec()));
    }

    #[test]
    fn what_is_understood_is_not_found_again() {
        let mut transcript = Transcript::default();
        transcript.extend(b"# ls\n# ");
        assert!(transcript.find(&regex("# ")).is_some());
        assert!(transcript.find(&regex("# ")).is_some());
        assert!(transcript.find(&regex("# ")).is_none());
        transcript.extend(b"# ");
        assert!(transcript.find(&regex("# ")).is_some());
    }

    #[test]
    fn a_new_expression_sees_what_the_last_one_passed_over() {
        let mut transcript = Transcript::default();
        transcript.extend(format!("early{}", "x".repeat(3 * LONGEST_MATCH)).as_bytes());
        assert!(transcript.find(&regex("late")).is_none());
        transcript.rewind();
        assert!(transcript.find(&regex("early")).is_some());
    }

    #[test]
    fn long_output_is_searched_once_but_matches_are_not_missed() {
        let mut transcript = Transcript::default();
        let expression = regex("needle");
        for chunk in "x".repeat(10_000).as_bytes().chunks(7) {
            transcript.extend(chunk);
            assert!(transcript.find(&expression).is_none());
        }
        transcript.extend(b"nee");
        assert!(transcript.find(&expression).is_none());
        transcript.extend(b"dle");
        assert!(transcript.find(&expression).is_some());
    }
}
