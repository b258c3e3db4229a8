//! The escape key: Ctrl-] and a digit give another client the input focus.

/// The escape key, Ctrl-].
pub const ESCAPE: u8 = 0x1d;

/// What a typed byte means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// It goes to the client that has the focus.
    Deliver(u8),
    /// The client with this index gets the focus.
    Focus(usize),
    /// The user wants to know what can be typed.
    Help,
    /// The first half of something.
    Nothing,
}

/// Follows what is typed.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    clients: usize,
    escaped: bool,
}

impl Keys {
    /// For that many clients. With one alone there is nothing to choose: every byte is its.
    #[must_use]
    pub const fn new(clients: usize) -> Self {
        Self { clients, escaped: false }
    }

    /// The next byte. After the escape key, a digit from 1 on chooses a client, a second escape
    /// key is delivered, and anything else asks for help.
    pub fn feed(&mut self, byte: u8) -> Key {
        if self.clients < 2 {
            return Key::Deliver(byte);
        }
        if !self.escaped {
            self.escaped = byte == ESCAPE;
            return if self.escaped { Key::Nothing } else { Key::Deliver(byte) };
        }
        self.escaped = false;
        match byte {
            ESCAPE => Key::Deliver(ESCAPE),
            b'1'..=b'9' if usize::from(byte - b'1') < self.clients => {
                Key::Focus((byte - b'1').into())
            }
            _ => Key::Help,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn feed_all(clients: usize, bytes: &[u8]) -> Vec<Key> {
        let mut keys = Keys::new(clients);
        bytes.iter().map(|byte| keys.feed(*byte)).collect()
    }

    #[test]
    fn a_digit_after_the_escape_key_moves_the_focus() {
        use Key::*;
        assert_eq!(
            feed_all(2, b"a\x1d2b\x1d\x1d"),
            [Deliver(b'a'), Nothing, Focus(1), Deliver(b'b'), Nothing, Deliver(ESCAPE)]
        );
    }

    #[test]
    fn anything_else_after_it_asks_for_help() {
        use Key::*;
        assert_eq!(feed_all(2, b"\x1d3\x1d0\x1dx"), [Nothing, Help, Nothing, Help, Nothing, Help]);
    }

    proptest! {
        #[test]
        fn a_single_client_gets_every_byte(bytes in any::<Vec<u8>>()) {
            let expected: Vec<_> = bytes.iter().map(|byte| Key::Deliver(*byte)).collect();
            prop_assert_eq!(feed_all(1, &bytes), expected);
        }

        #[test]
        fn nothing_typed_without_the_escape_key_is_lost(bytes in any::<Vec<u8>>()) {
            let plain: Vec<u8> = bytes.into_iter().filter(|byte| *byte != ESCAPE).collect();
            let expected: Vec<_> = plain.iter().map(|byte| Key::Deliver(*byte)).collect();
            prop_assert_eq!(feed_all(9, &plain), expected);
        }
    }
}
