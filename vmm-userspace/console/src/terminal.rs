//! What a terminal shows: a grid of characters that scrolls.
//!
//! It knows the control characters and the sequences that move the cursor and erase (ECMA-48 8.3;
//! names of its functions are in capitals). Colours and everything else are left out.

use alloc::vec;
use alloc::vec::Vec;

const ESCAPE: u8 = 0x1b;
/// Distance between tabulator stops.
const TAB: usize = 8;

/// Where in a control sequence the stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Text,
    /// After ESC, and after intermediate bytes behind it.
    Escape,
    /// After CSI: two parameters, and the number of the one that is being read. A sequence with a
    /// private or intermediate byte is read to its end and has no effect.
    Sequence {
        parameters: [u16; 2],
        index: usize,
        foreign: bool,
    },
    /// In a control string (OSC, DCS and the like), up to BEL or ST.
    String,
}

/// A grid of characters and a cursor.
#[derive(Clone, Debug)]
pub struct Terminal {
    columns: usize,
    rows: usize,
    /// Row after row.
    cells: Vec<u8>,
    row: usize,
    /// Equal to the number of columns after a character in the last one: the next starts a line.
    column: usize,
    state: State,
}

impl Terminal {
    /// An empty one of at least one character.
    #[must_use]
    pub fn new(columns: usize, rows: usize) -> Self {
        let (columns, rows) = (columns.max(1), rows.max(1));
        let cells = vec![b' '; columns * rows];
        Self { columns, rows, cells, row: 0, column: 0, state: State::Text }
    }

    /// Rows.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// The characters of a row.
    #[must_use]
    pub fn row(&self, row: usize) -> &[u8] {
        let start = row.saturating_mul(self.columns);
        self.cells.get(start..start.saturating_add(self.columns)).unwrap_or_default()
    }

    /// The next byte of the stream.
    pub fn feed(&mut self, byte: u8) {
        match (self.state, byte) {
            // CAN and SUB end whatever there is.
            (_, 0x18 | 0x1a) => self.state = State::Text,
            (_, ESCAPE) => self.state = State::Escape,
            (State::Text, _) => self.text(byte),
            (State::Escape, b'[') => {
                self.state = State::Sequence { parameters: [0; 2], index: 0, foreign: false };
            }
            (State::Escape, b']' | b'P' | b'X' | b'^' | b'_') => self.state = State::String,
            (State::Escape, 0x20..0x30) => {}
            (State::Escape, _) => {
                self.state = State::Text;
                if byte == b'c' {
                    *self = Self::new(self.columns, self.rows);
                }
            }
            (State::Sequence { parameters, index, foreign }, _) => {
                self.sequence(byte, parameters, index, foreign);
            }
            (State::String, 0x07) => self.state = State::Text,
            (State::String, _) => {}
        }
    }

    fn text(&mut self, byte: u8) {
        match byte {
            b'\r' => self.column = 0,
            b'\n' | 0x0b | 0x0c => self.line_feed(),
            0x08 => self.column = self.column.min(self.columns - 1).saturating_sub(1),
            b'\t' => self.column = ((self.column / TAB + 1) * TAB).min(self.columns - 1),
            // Control characters without effect, and all but the first byte of a character in UTF-8.
            0..0x20 | 0x7f..0xc0 => {}
            _ => self.put(byte),
        }
    }

    fn put(&mut self, byte: u8) {
        if self.column >= self.columns {
            self.column = 0;
            self.line_feed();
        }
        if let Some(cell) = self.cells.get_mut(self.row * self.columns + self.column) {
            *cell = byte;
        }
        self.column += 1;
    }

    fn line_feed(&mut self) {
        if self.row + 1 < self.rows {
            self.row += 1;
            return;
        }
        self.cells.copy_within(self.columns.., 0);
        self.erase(self.row * self.columns, self.cells.len());
    }

    fn erase(&mut self, from: usize, to: usize) {
        if let Some(cells) = self.cells.get_mut(from..to) {
            cells.fill(b' ');
        }
    }

    fn sequence(&mut self, byte: u8, mut parameters: [u16; 2], mut index: usize, foreign: bool) {
        match byte {
            b'0'..=b'9' => {
                if let Some(parameter) = parameters.get_mut(index) {
                    *parameter =
                        parameter.saturating_mul(10).saturating_add(u16::from(byte - b'0'));
                }
            }
            b';' => index = (index + 1).min(parameters.len()),
            0x40..0x7f => {
                self.state = State::Text;
                if !foreign {
                    self.function(byte, parameters.map(usize::from));
                }
                return;
            }
            // A control character works in the middle of a sequence as well.
            0..0x20 => {
                self.text(byte);
                return;
            }
            _ => {
                self.state = State::Sequence { parameters, index, foreign: true };
                return;
            }
        }
        self.state = State::Sequence { parameters, index, foreign };
    }

    fn function(&mut self, name: u8, [first, second]: [usize; 2]) {
        let column = self.column.min(self.columns - 1);
        let line = self.row * self.columns;
        let (cursor, end) = (line + column, line + self.columns);
        let (last_row, last_column) = (self.rows - 1, self.columns - 1);
        let count = first.max(1);
        match name {
            // CUU, CUD, CUF, CUB.
            b'A' => (self.row, self.column) = (self.row.saturating_sub(count), column),
            b'B' => (self.row, self.column) = ((self.row + count).min(last_row), column),
            b'C' => self.column = (column + count).min(last_column),
            b'D' => self.column = column.saturating_sub(count),
            // CHA.
            b'G' => self.column = (count - 1).min(last_column),
            // CUP, HVP.
            b'H' | b'f' => {
                self.row = (count - 1).min(last_row);
                self.column = (second.max(1) - 1).min(last_column);
            }
            // ED, EL.
            b'J' => match first {
                0 => self.erase(cursor, self.cells.len()),
                1 => self.erase(0, cursor + 1),
                _ => self.erase(0, self.cells.len()),
            },
            b'K' => match first {
                0 => self.erase(cursor, end),
                1 => self.erase(line, cursor + 1),
                _ => self.erase(line, end),
            },
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::string::String;

    use proptest::prelude::*;

    use super::*;

    fn shown(terminal: &Terminal) -> Vec<String> {
        let row = |row| String::from_utf8_lossy(terminal.row(row)).trim_end().to_owned();
        (0..terminal.rows()).map(row).collect()
    }

    fn after(columns: usize, rows: usize, bytes: &[u8]) -> Vec<String> {
        let mut terminal = Terminal::new(columns, rows);
        bytes.iter().for_each(|byte| terminal.feed(*byte));
        shown(&terminal)
    }

    #[test]
    fn lines_scroll() {
        assert_eq!(after(5, 3, b"one\r\ntwo\r\nthree\r\nfour"), ["two", "three", "four"]);
        assert_eq!(after(5, 3, b"threefour\r\nfive"), ["three", "four", "five"]);
        // A full line and its end are one line.
        assert_eq!(after(5, 3, b"three\r\nfour"), ["three", "four", ""]);
    }

    #[test]
    fn control_characters_move_the_cursor() {
        assert_eq!(after(20, 2, b"a\tb\rc\x08d\x07"), ["d       b", ""]);
        assert_eq!(after(4, 2, b"\t\t\tx\x08\x08y"), [" y x", ""]);
    }

    #[test]
    fn sequences_move_and_erase() {
        let screen = b"abcd\r\nefgh\r\nijkl";
        let with = |more: &[u8]| after(4, 3, &[screen, more].concat());
        assert_eq!(with(b"\x1b[2;2HX\x1b[K"), ["abcd", "eX", "ijkl"]);
        assert_eq!(with(b"\x1b[2;3H\x1b[1K"), ["abcd", "   h", "ijkl"]);
        assert_eq!(with(b"\x1b[2;2H\x1b[2K\x1b[J"), ["abcd", "", ""]);
        assert_eq!(with(b"\x1b[2;2H\x1b[1J"), ["", "  gh", "ijkl"]);
        assert_eq!(with(b"\x1b[H\x1b[2JX"), ["X", "", ""]);
        let moves = b"\x1b[2AX\x1b[3DY\x1b[BZ\x1b[9CW\x1b[2GV";
        assert_eq!(with(moves), ["YbcX", "eVgW", "ijkl"]);
        assert_eq!(with(b"\x1bcX"), ["X", "", ""]);
    }

    #[test]
    fn what_is_not_known_is_not_shown() {
        let bytes =
            b"\x1b[1;31mred\x1b[0m\x1b[?25l\x1b[6n\x1b]0;title\x07 \x1b(Bplain\x1bP1$r\x1b\\.";
        assert_eq!(after(20, 1, bytes), ["red plain."]);
        // Three parameters and numbers without end are no trouble.
        assert_eq!(after(9, 1, b"\x1b[1;2;3;4;99999999999999mok"), ["ok"]);
    }

    #[test]
    fn a_character_of_another_alphabet_takes_one_cell() {
        let mut terminal = Terminal::new(4, 1);
        "a\u{20ac}b".bytes().for_each(|byte| terminal.feed(byte));
        assert_eq!(terminal.row(0), [b'a', 0xe2, b'b', b' ']);
    }

    proptest! {
        /// Whatever is sent, the grid keeps its size, and a reset brings back an empty one.
        #[test]
        fn any_stream_is_safe(
            (columns, rows) in (0..30_usize, 0..10_usize),
            chunks in proptest::collection::vec(
                prop_oneof![
                    any::<Vec<u8>>(),
                    "[ -~\r\n\t\u{8}]{0,40}".prop_map(String::into_bytes),
                    "\u{1b}\\[[0-9;]{0,7}[A-Kf]".prop_map(String::into_bytes),
                ],
                0..40,
            ),
        ) {
            let mut terminal = Terminal::new(columns, rows);
            for byte in chunks.concat() {
                terminal.feed(byte);
                prop_assert!(terminal.row < terminal.rows && terminal.column <= terminal.columns);
            }
            prop_assert_eq!(terminal.cells.len(), columns.max(1) * rows.max(1));
            prop_assert!(terminal.row(rows.max(1)).is_empty());
            b"\x18\x1bc".iter().for_each(|byte| terminal.feed(*byte));
            prop_assert!(terminal.cells.iter().all(|cell| *cell == b' '));
        }

        /// Lines that are not longer than a row: the last ones are shown, in order.
        #[test]
        fn the_last_lines_are_shown(
            lines in proptest::collection::vec("[a-z]{0,7}", 1..30),
            rows in 1..8_usize,
        ) {
            let text = lines.join("\r\n");
            let mut expected: Vec<String> =
                lines[lines.len().saturating_sub(rows)..].to_vec();
            expected.resize(rows, String::new());
            prop_assert_eq!(after(7, rows, text.as_bytes()), expected);
        }
    }
}
