use proptest::prelude::*;

use super::*;

/// A frame buffer with memory behind its end that must not change.
const GUARD: usize = 64;

fn rows_of_text(screen: &Screen<'_>) -> Vec<String> {
    let row = |row| (0..screen.columns()).map(|column| screen.get(row, column) as char).collect();
    (0..screen.rows()).map(row).collect()
}

#[test]
fn a_text_screen_has_characters_and_attributes() {
    let mut memory = vec![0; Layout::TEXT.length()];
    let mut screen = Screen::new(&mut memory, Layout::TEXT).unwrap();
    assert_eq!((screen.columns(), screen.rows()), (80, 25));
    screen.put(1, 2, b'A');
    screen.put(24, 79, b'\n');
    screen.put(25, 0, b'B');
    screen.put(0, 80, b'B');
    assert_eq!(screen.get(1, 2), b'A');
    assert_eq!(memory[164..166], [b'A', 7]);
    assert_eq!(memory[3998..], [font::UNKNOWN, 7]);
    assert_eq!(memory.iter().filter(|byte| **byte != 0).count(), 4);
}

#[test]
fn a_dot_is_a_square_of_pixels_of_all_ones() {
    // 2560 pixels: a dot is two by two.
    let (width, height, bytes, stride) = (2560, 64, 3, 2560 * 3 + 5);
    let mut memory = vec![0x55; stride * height];
    let pixels = Layout { stride, width, height, bytes };
    let mut screen = Screen::new(&mut memory, pixels).unwrap();
    assert_eq!((screen.columns(), screen.rows()), (160, 2));
    (0..screen.rows()).for_each(|row| screen.clear(row));
    screen.put(1, 3, b'L');
    let pixel = |x: usize, y: usize| &memory[y * stride + x * bytes..][..bytes];
    for y in 0..height {
        for x in 0..width {
            let (dot_x, dot_y) = ((x / 2).wrapping_sub(24), (y / 2).wrapping_sub(16));
            let stem = dot_x == 0 && (2..11).contains(&dot_y);
            let foot = dot_x < 7 && dot_y == 10;
            assert_eq!(pixel(x, y), [if stem || foot { 0xff } else { 0 }; 3], "at {x}, {y}");
        }
    }
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let good = Layout { stride: 640 * 4, width: 640, height: 400, bytes: 4 };
    let mut memory = vec![0; 640 * 4 * 400];
    let screen = Screen::new(&mut memory, good).unwrap();
    assert_eq!((screen.columns(), screen.rows()), (80, 25));
    let bad = [
        Layout { stride: 640 * 4 - 1, ..good },
        Layout { height: 401, ..good },
        Layout { width: usize::MAX, ..good },
        Layout { stride: usize::MAX, ..good },
        Layout { width: 7, ..good },
        Layout { height: 15, ..good },
        Layout { bytes: 1, ..good },
        Layout { bytes: 5, width: 80, ..good },
    ];
    for pixels in bad {
        assert!(Screen::new(&mut memory, pixels).is_none(), "{pixels:?}");
    }
}

#[test]
fn the_upper_rows_are_a_screen_of_their_own() {
    let mut memory = vec![b'x'; Layout::TEXT.length()];
    let mut screen = Screen::new(&mut memory, Layout::TEXT.top(2)).unwrap();
    assert_eq!((screen.columns(), screen.rows()), (80, 2));
    (0..3).for_each(|row| screen.clear(row));
    screen.put(2, 0, b'y');
    assert_eq!(memory.iter().position(|byte| *byte == b'x'), Some(320));
    assert!(!memory.contains(&b'y'));
    for width in [640, 1280, 2560, 3840, 7680] {
        let whole = Layout { stride: width * 2, width, height: 10_000, bytes: 2 };
        let three = whole.top(3);
        let mut memory = vec![0; three.length()];
        assert_eq!(Screen::new(&mut memory, three).unwrap().rows(), 3);
        let less = Layout { height: three.height - 1, ..three };
        assert_eq!(Screen::new(&mut memory, less).unwrap().rows(), 2);
        assert!(Screen::new(&mut memory, whole).is_none());
        assert_eq!(whole.top(usize::MAX), whole);
    }
}

#[test]
fn memory_that_is_too_short_is_refused() {
    let mut memory = vec![0; Layout::TEXT.length() - 1];
    assert!(Screen::new(&mut memory, Layout::TEXT).is_none());
    assert!(Screen::new(&mut memory, Layout { height: 24, ..Layout::TEXT }).is_some());
    assert!(Screen::new(&mut memory, Layout { height: 0, ..Layout::TEXT }).is_none());
}

#[test]
fn a_foreign_picture_is_blank() {
    let pixels = Layout { stride: 640 * 4, width: 640, height: 400, bytes: 4 };
    let mut memory: Vec<u8> =
        (0..640 * 4 * 400).map(|at: u32| (at.wrapping_mul(at) >> 7) as u8).collect();
    let screen = Screen::new(&mut memory, pixels).unwrap();
    assert!((0..25).all(|row| screen.is_blank(row)));
}

proptest! {
    /// Whatever is written wherever, what can be read back is what a grid of characters would
    /// hold, and only pixels of the frame buffer change.
    #[test]
    fn pixels_hold_a_grid_of_characters(
        (width, height) in (8..1400_usize, 16..90_usize),
        bytes in 2..=4_usize,
        padding in 0..9_usize,
        writes in proptest::collection::vec((0..8_usize, 0..180_usize, any::<u8>()), 0..60),
        cleared in proptest::option::of(0..8_usize),
    ) {
        let stride = width * bytes + padding;
        let mut memory = vec![0xa5; stride * height + GUARD];
        let pixels = Layout { stride, width, height, bytes };
        let mut screen = Screen::new(&mut memory[..stride * height], pixels).unwrap();
        (0..screen.rows()).for_each(|row| screen.clear(row));
        let (columns, rows) = (screen.columns(), screen.rows());
        let mut grid = vec![vec![b' '; columns]; rows];
        for (row, column, byte) in writes {
            screen.put(row, column, byte);
            if let Some(cell) = grid.get_mut(row).and_then(|row| row.get_mut(column)) {
                *cell = font::shown(byte);
            }
        }
        if let Some(row) = cleared {
            screen.clear(row);
            grid.get_mut(row).into_iter().for_each(|row| row.fill(b' '));
        }
        let expected: Vec<String> =
            grid.iter().map(|row| row.iter().map(|byte| *byte as char).collect()).collect();
        prop_assert_eq!(rows_of_text(&screen), expected);
        for (row, cells) in grid.iter().enumerate() {
            prop_assert_eq!(screen.is_blank(row), cells.iter().all(|byte| *byte == b' '));
        }
        // What lies beside the characters stays black, and what lies below them as it was.
        for (y, line) in memory[..stride * height].chunks(stride).enumerate() {
            let (used, rest) = if y < rows * 16 { (columns * 8 * bytes, 0) } else { (0, 0xa5) };
            prop_assert!(line[used..].iter().all(|byte| *byte == rest));
        }
        prop_assert!(memory[stride * height..].iter().all(|byte| *byte == 0xa5));
    }
}
