//! The streams between a task and the console service.
//!
//! The root task makes the memory of a channel and maps it into both tasks. Zeroed memory is a
//! channel on which nothing was sent yet. Wake-ups travel through two semaphores, whose selectors
//! are in the start-up page: the service has one for everything that concerns it, its interrupt
//! included; each client has one of its own.

use crate::ring::Ring;

/// Bytes of output a client can have under way.
pub const OUTPUT: usize = 16 * 1024;
/// Bytes of input a client can have waiting. Beyond that the service tells the sender to stop.
pub const INPUT: usize = 64 * 1024;
/// Bytes of log text a client can have under way.
pub const LOG: usize = 8 * 1024;

/// A client's share of the console.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct ConsoleChannel {
    /// Bytes for the terminal, passed on as they are: what a guest's serial port sends.
    pub output: Ring<OUTPUT>,
    /// Bytes from the terminal while the client has the input focus.
    pub input: Ring<INPUT>,
}

/// A task's log: lines of text for people, shown with the task's name in front.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct LogChannel {
    /// The text, lines ended by a line feed.
    pub text: Ring<LOG>,
}
