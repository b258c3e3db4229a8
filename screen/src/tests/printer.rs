use core::fmt::Write;

use proptest::prelude::*;

use super::*;
use crate::cells::Layout;

fn shown(screen: &Screen<'_>) -> Vec<String> {
    let row = |row| {
        let text: String = (0..screen.columns()).map(|at| screen.get(row, at) as char).collect();
        text.trim_end().to_owned()
    };
    (0..screen.rows()).map(row).collect()
}

fn pixels(width: usize, height: usize) -> (Vec<u8>, Layout) {
    let pixels = Layout { stride: width * 4, width, height, bytes: 4 };
    (vec![0; width * 4 * height], pixels)
}

#[test]
fn the_next_printer_goes_on_below_the_last() {
    let (mut memory, pixels) = pixels(640, 400);
    memory.fill(0x5a);
    let mut loader = Printer::on_empty(Screen::new(&mut memory, pixels).unwrap());
    writeln!(loader, "Ferrite loader: {} MiB", 512).unwrap();
    let mut kernel = Printer::below(Screen::new(&mut memory, pixels).unwrap());
    write!(kernel, "one\ntwo").unwrap();
    let text = shown(&kernel.screen);
    assert_eq!(text[..4], ["Ferrite loader: 512 MiB", "one", "two", ""]);
}

#[test]
fn what_others_left_on_the_screen_makes_room() {
    let mut memory = vec![0xdb; Layout::TEXT.length()];
    let mut printer = Printer::below(Screen::new(&mut memory, Layout::TEXT).unwrap());
    writeln!(printer, "one").unwrap();
    assert_eq!(shown(&printer.screen)[..3], ["one", "", ""]);
    memory.fill(b'x');
    let mut printer = Printer::below(Screen::new(&mut memory, Layout::TEXT).unwrap());
    write!(printer, "one").unwrap();
    assert_eq!(shown(&printer.screen)[..3], ["one".to_owned(), String::new(), "x".repeat(80)]);
}

proptest! {
    /// The newest lines are on the screen, in order, with one blank row after them.
    #[test]
    fn the_newest_lines_are_shown(
        text in "[a-z]{1,30}(\n[a-z]{1,30}){0,40}",
        (columns, rows) in (3..12_usize, 3..7_usize),
    ) {
        let (mut memory, pixels) = pixels(columns * 8, rows * 16);
        let mut printer = Printer::on_empty(Screen::new(&mut memory, pixels).unwrap());
        printer.write_str(&text).unwrap();
        let lines: Vec<&str> = text
            .split('\n')
            .flat_map(|line| line.as_bytes().chunks(columns))
            .map(|line| core::str::from_utf8(line).unwrap())
            .collect();
        let mut expected = vec![String::new(); rows];
        let kept = lines.len().saturating_sub(rows - 1);
        for (index, line) in lines.iter().enumerate().skip(kept) {
            expected[index % rows] = (*line).into();
        }
        prop_assert_eq!(shown(&printer.screen), expected);
    }
}
