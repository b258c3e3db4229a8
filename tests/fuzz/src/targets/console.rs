//! What is typed at the console.

use console::keys::{ESCAPE, Key, Keys};

use super::Target;
use crate::input::Input;

/// The number of clients, then what is typed.
pub const TARGET: Target = Target { name: "console", longest: 64, dictionary: &[], seeds, run };

fn seeds() -> Vec<Vec<u8>> {
    vec![b"\x01ls\n".to_vec(), b"\x03a\x1d2b\x1d\x1d\x1dx".to_vec()]
}

fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let clients = usize::from(input.byte());
    let mut keys = Keys::new(clients);
    let mut waiting = false;
    while !input.is_empty() {
        let byte = input.byte();
        let key = keys.feed(byte);
        match key {
            Key::Deliver(delivered) => assert_eq!(delivered, byte),
            Key::Focus(index) => assert!(waiting && index < clients),
            Key::Help => assert!(waiting),
            Key::Nothing => assert!(!waiting && byte == ESCAPE),
        }
        waiting = key == Key::Nothing;
    }
}
