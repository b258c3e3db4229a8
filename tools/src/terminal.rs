//! The user's terminal: raw while it is the guest's console, and always restored.

use std::io;
use std::panic;
use std::sync::Mutex;

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

/// How the terminal was before it became a console.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Whether somebody types.
pub fn is_interactive() -> bool {
    isatty(io::stdin())
}

/// Keeps the terminal raw as long as it lives.
#[derive(Debug)]
pub struct Raw(());

impl Raw {
    /// Makes the terminal raw.
    ///
    /// # Errors
    /// When there is none.
    pub fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        *BEFORE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(before);
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(()))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back as it was before it became a console; nothing if it did not.
pub fn restore() {
    let before = BEFORE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
    if let Some(before) = before {
        // Nothing can be done about a terminal that is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
    }
}

/// Panics end the process without unwinding, so no `Drop` runs: restore the terminal before the
/// message is printed.
pub fn restore_on_panic() {
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        restore();
        default(info);
    }));
}

/// Ctrl-A.
const ESCAPE: u8 = 1;

/// What the keys mean.
#[derive(Debug, PartialEq, Eq)]
pub enum Keys {
    /// For the guest.
    Type(Vec<u8>),
    /// The user wants to leave.
    Quit,
}

/// Finds the escape sequence among the keys: Ctrl-A X leaves, Ctrl-A Ctrl-A is Ctrl-A; everything
/// else is the guest's.
#[derive(Debug, Default)]
pub struct EscapeKeys {
    escaped: bool,
}

impl EscapeKeys {
    /// The meaning of some keys.
    pub fn read(&mut self, keys: &[u8]) -> Keys {
        let mut typed = Vec::with_capacity(keys.len() + 1);
        for &key in keys {
            match (std::mem::take(&mut self.escaped), key) {
                (true, b'x' | b'X') => return Keys::Quit,
                (true, ESCAPE) => typed.push(ESCAPE),
                (true, other) => typed.extend([ESCAPE, other]),
                (false, ESCAPE) => self.escaped = true,
                (false, other) => typed.push(other),
            }
        }
        Keys::Type(typed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_escape_sequence_leaves() {
        let mut keys = EscapeKeys::default();
        assert_eq!(keys.read(b"exit\rx\x03"), Keys::Type(b"exit\rx\x03".to_vec()));
        assert_eq!(keys.read(b"ls\x01"), Keys::Type(b"ls".to_vec()));
        assert_eq!(keys.read(b"x more"), Keys::Quit);
        let mut keys = EscapeKeys::default();
        assert_eq!(keys.read(b"a\x01Xb"), Keys::Quit);
    }

    #[test]
    fn the_escape_key_itself_can_be_typed() {
        let mut keys = EscapeKeys::default();
        assert_eq!(keys.read(b"\x01\x01x"), Keys::Type(b"\x01x".to_vec()));
        assert_eq!(keys.read(b"\x01e"), Keys::Type(b"\x01e".to_vec()));
    }
}
