//! When the system listens at the console.
//!
//! Until the console service has the serial port, whoever sets the port up clears what was received: firmware, loader, kernel. A
//! person types later; input that is piped in has to wait.

use std::sync::mpsc::{Receiver, Sender, channel};

/// What the root task's first line begins with, which comes through the console service.
const SIGN: &[u8] = b"root: ";

/// Looks on at the output, and lets the input go when it is time.
#[derive(Debug)]
pub struct Start {
    listening: Option<Sender<()>>,
    /// The last bytes: the sign may come in pieces.
    tail: Vec<u8>,
}

/// The other end: input waits here.
#[derive(Debug)]
pub struct Gate(Receiver<()>);

impl Start {
    /// Of a machine that was just switched on.
    pub fn new() -> (Self, Gate) {
        let (sender, receiver) = channel();
        (Self { listening: Some(sender), tail: Vec::new() }, Gate(receiver))
    }

    /// Takes what the machine said.
    pub fn see(&mut self, bytes: &[u8]) {
        if self.listening.is_none() {
            return;
        }
        self.tail.extend(bytes);
        if self.tail.windows(SIGN.len()).any(|window| window == SIGN) {
            // Dropping it opens the gate.
            self.listening = None;
        }
        let old = self.tail.len().saturating_sub(SIGN.len());
        self.tail.drain(..old);
    }
}

impl Gate {
    /// Waits until the system listens, or the session is over.
    pub fn wait(self) {
        // It never carries anything: it ends.
        let _ = self.0.recv();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sign_opens_the_gate_even_in_pieces() {
        let (mut start, gate) = Start::new();
        for piece in [&b"Ferrite loader: roo"[..], b"m\r\nro", b"ot", b": 9"] {
            assert!(matches!(gate.0.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty)));
            start.see(piece);
        }
        gate.wait();
    }
}
