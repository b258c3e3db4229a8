//! Brings what a terminal shows onto the machine's screen.
//!
//! Video memory is slow to write and slower to read, and the service runs before the partitions.
//! So only characters that changed are drawn, and drawing has a small share of the CPU's time: it
//! stops after a while, wherever it is, and goes on after a pause in proportion.

use alloc::vec;
use alloc::vec::Vec;

use screen::Screen;

use crate::terminal::Terminal;

/// For each tick of drawing, ticks until drawing goes on.
const PAUSE: u64 = 9;

/// How long drawing may take, in ticks of whatever clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// After this long it stops at the end of a row.
    pub longest: u64,
    /// It does not go on earlier than this.
    pub shortest_pause: u64,
}

/// A terminal and the screen that shows it.
#[derive(Debug)]
pub struct Display<'a> {
    screen: Screen<'a>,
    terminal: Terminal,
    /// What the screen shows, row after row.
    shown: Vec<Vec<u8>>,
    pace: Pace,
    /// The row to go on with.
    next: usize,
    /// Rows that have not been looked at since something changed.
    rest: usize,
    /// When drawing may go on.
    due: u64,
}

impl<'a> Display<'a> {
    /// Takes over a screen. The text on it, up to the first blank row, stays.
    #[must_use]
    pub fn new(mut screen: Screen<'a>, pace: Pace) -> Self {
        let (columns, rows) = (screen.columns(), screen.rows());
        let mut terminal = Terminal::new(columns, rows);
        let mut shown = vec![vec![b' '; columns]; rows];
        let mut kept = true;
        for (row, cells) in shown.iter_mut().enumerate() {
            if kept {
                let read = |(column, cell): (usize, &mut u8)| *cell = screen.get(row, column);
                cells.iter_mut().enumerate().for_each(read);
                kept = cells.iter().any(|cell| *cell != b' ');
            }
            if kept {
                let end = cells.iter().rposition(|cell| *cell != b' ').map_or(0, |last| last + 1);
                cells.iter().take(end).for_each(|cell| terminal.feed(*cell));
                b"\r\n".iter().for_each(|byte| terminal.feed(*byte));
            } else {
                screen.clear(row);
            }
        }
        Self { screen, terminal, shown, pace, next: 0, rest: rows, due: 0 }
    }

    /// The next byte for the terminal. It appears with the next [`Self::refresh`].
    pub fn feed(&mut self, byte: u8) {
        self.terminal.feed(byte);
        self.rest = self.terminal.rows();
    }

    /// Draws what changed, if it is time for that.
    pub fn refresh(&mut self, mut now: impl FnMut() -> u64) {
        if self.rest == 0 {
            return;
        }
        let start = now();
        if start < self.due {
            return;
        }
        // At least a row, however long that takes.
        let end = loop {
            self.draw_row(self.next);
            self.next = (self.next + 1) % self.terminal.rows();
            self.rest -= 1;
            let end = now();
            if self.rest == 0 || end.saturating_sub(start) >= self.pace.longest {
                break end;
            }
        };
        let pause = end.saturating_sub(start).saturating_mul(PAUSE);
        self.due = end.saturating_add(pause.max(self.pace.shortest_pause));
    }

    fn draw_row(&mut self, row: usize) {
        let Some(shown) = self.shown.get_mut(row) else { return };
        let cells = self.terminal.row(row).iter().zip(shown).enumerate();
        for (column, (wanted, shown)) in cells.filter(|(_, (wanted, shown))| **shown != **wanted) {
            self.screen.put(row, column, *wanted);
            *shown = *wanted;
        }
    }

    /// When [`Self::refresh`] is to be called again; `None` if there is nothing to draw.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        (self.rest > 0).then_some(self.due)
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;
    use core::fmt::Write;
    use std::string::String;

    use proptest::prelude::*;
    use screen::{Layout, Printer};

    use super::*;

    const PACE: Pace = Pace { longest: 50, shortest_pause: 1000 };
    const SIZE: Layout = Layout { stride: 250, width: 80, height: 80, bytes: 3 };

    fn buffer() -> Vec<u8> {
        vec![0x11; SIZE.stride * SIZE.height]
    }

    fn text(screen: &Screen<'_>) -> Vec<String> {
        let row = |row| {
            let row: String = (0..10).map(|column| screen.get(row, column) as char).collect();
            row.trim_end().to_owned()
        };
        (0..screen.rows()).map(row).collect()
    }

    fn send(display: &mut Display<'_>, bytes: &[u8]) {
        bytes.iter().for_each(|byte| display.feed(*byte));
    }

    #[test]
    fn what_loader_and_kernel_wrote_stays_and_scrolls() {
        let mut memory = buffer();
        let printer = Printer::on_empty(Screen::new(&mut memory, SIZE).unwrap());
        write!({ printer }, "loader\nkernel\n").unwrap();
        let screen = Screen::new(&mut memory, SIZE).unwrap();
        let mut display = Display::new(screen, Pace { longest: 1, shortest_pause: 0 });
        send(&mut display, b"root\r\nvmm");
        // The clock stands still: everything is drawn at once.
        display.refresh(|| 0);
        assert_eq!(text(&display.screen), ["loader", "kernel", "root", "vmm", ""]);
        assert_eq!(display.deadline(), None);
        send(&mut display, b"\r\nguest\r\n~ # ");
        display.refresh(|| 0);
        assert_eq!(text(&display.screen), ["kernel", "root", "vmm", "guest", "~ #"]);
    }

    #[test]
    fn a_picture_on_the_screen_is_removed() {
        let mut memory = buffer();
        let display = Display::new(Screen::new(&mut memory, SIZE).unwrap(), PACE);
        assert_eq!(text(&display.screen), [""; 5]);
        drop(display);
        assert!(memory.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn drawing_takes_breaks() {
        let mut memory = buffer();
        let mut display = Display::new(Screen::new(&mut memory, SIZE).unwrap(), PACE);
        send(&mut display, b"0\r\n1\r\n2\r\n3\r\n4");
        let time = Cell::new(0);
        // Each look at the clock takes 30 ticks: two rows are drawn.
        let now = || time.replace(time.get() + 30);
        display.refresh(now);
        assert_eq!(text(&display.screen), ["0", "1", "", "", ""]);
        let due = display.deadline().unwrap();
        assert!(due >= 1000);
        time.set(due - 1);
        display.refresh(now);
        assert_eq!(text(&display.screen), ["0", "1", "", "", ""]);
        time.set(due);
        display.refresh(now);
        assert_eq!(text(&display.screen), ["0", "1", "2", "3", ""]);
        time.set(display.deadline().unwrap());
        display.refresh(now);
        assert_eq!(text(&display.screen), ["0", "1", "2", "3", "4"]);
        assert_eq!(display.deadline(), None);
    }

    proptest! {
        /// However slow drawing is, in the end the screen shows what the terminal does, and no
        /// pause was too short.
        #[test]
        fn in_the_end_everything_is_shown(
            chunks in proptest::collection::vec("[a-z\r\n]{0,30}|\u{1b}\\[[0-9]{0,2}[A-K]", 1..20),
            cost in 1..400_u64,
        ) {
            let mut memory = buffer();
            let mut display = Display::new(Screen::new(&mut memory, SIZE).unwrap(), PACE);
            let mut terminal = Terminal::new(10, 5);
            let time = Cell::new(0);
            let now = || time.replace(time.get() + cost);
            for chunk in &chunks {
                chunk.bytes().for_each(|byte| terminal.feed(byte));
                send(&mut display, chunk.as_bytes());
                display.refresh(now);
            }
            for _ in 0..100 {
                let Some(due) = display.deadline() else { break };
                let start = time.get().max(due);
                time.set(start);
                display.refresh(now);
                let took = time.get() - start - cost;
                prop_assert!(display.due >= start + took + PACE.shortest_pause.max(9 * took));
            }
            prop_assert_eq!(display.deadline(), None);
            let expected: Vec<String> = (0..5)
                .map(|row| String::from_utf8_lossy(terminal.row(row)).trim_end().to_owned())
                .collect();
            prop_assert_eq!(text(&display.screen), expected);
        }
    }
}
