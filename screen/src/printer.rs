//! Messages on a screen, line after line.
//!
//! Nothing moves up: at the end of the screen the next line is the first again. The row after the
//! newest line is always blank and shows where that is. So nothing of video memory is read, which
//! is slow, and nobody has to keep a copy of what it shows.

use core::fmt;

use crate::cells::Screen;

/// Writes text on a screen.
#[derive(Debug)]
pub struct Printer<'a> {
    screen: Screen<'a>,
    row: usize,
    column: usize,
}

impl<'a> Printer<'a> {
    /// Empties the screen and begins at its top.
    #[must_use]
    pub fn on_empty(mut screen: Screen<'a>) -> Self {
        (0..screen.rows()).for_each(|row| screen.clear(row));
        Self { screen, row: 0, column: 0 }
    }

    /// Begins below what a printer before this one wrote.
    #[must_use]
    pub fn below(screen: Screen<'a>) -> Self {
        let row = (0..screen.rows()).find(|row| screen.is_blank(*row)).unwrap_or(0);
        let mut printer = Self { screen, row, column: 0 };
        printer.enter(row);
        printer
    }

    fn enter(&mut self, row: usize) {
        (self.row, self.column) = (row, 0);
        self.screen.clear(row);
        self.screen.clear(self.next());
    }

    fn next(&self) -> usize {
        if self.row + 1 < self.screen.rows() { self.row + 1 } else { 0 }
    }

    /// Writes a byte of text; a line feed ends the line.
    pub fn byte(&mut self, byte: u8) {
        if byte == b'\n' {
            self.enter(self.next());
            return;
        }
        if self.column == self.screen.columns() {
            self.enter(self.next());
        }
        self.screen.put(self.row, self.column, byte);
        self.column += 1;
    }
}

impl fmt::Write for Printer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.byte(byte));
        Ok(())
    }
}

#[cfg(test)]
#[path = "tests/printer.rs"]
mod tests;
