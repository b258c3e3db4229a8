//! The shapes of the printable characters of ASCII, made from the drawing in `font.txt`.
//!
//! There, bands of 16 characters from the blank on stand one above the other; `#` is a dot of the
//! character, `.` none. The last one is drawn for every byte that is no printable character.

/// Dots of a character's cell from left to right.
pub const WIDTH: usize = 8;
/// Dots of a character's cell from top to bottom.
pub const HEIGHT: usize = 16;

/// Dots from top to bottom that are drawn; the other rows of a cell keep lines apart.
const DRAWN: usize = 12;
/// Empty rows above them.
const ABOVE: usize = (HEIGHT - DRAWN) / 2;
/// The first character.
const FIRST: u8 = b' ';
const COUNT: usize = 96;
/// Characters in a band.
const BAND: usize = 16;

/// The byte whose shape is drawn for all those that have none of their own.
pub const UNKNOWN: u8 = 0x7f;

static SHAPES: [[u8; DRAWN]; COUNT] = read_drawing(include_bytes!("font.txt"));

const fn read_drawing(drawing: &[u8]) -> [[u8; DRAWN]; COUNT] {
    const LINE: usize = BAND * WIDTH + 1;
    assert!(drawing.len() == COUNT / BAND * DRAWN * LINE, "the drawing has a wrong size");
    let mut shapes = [[0; DRAWN]; COUNT];
    let mut at = 0;
    while at < drawing.len() {
        let (line, column) = (at / LINE, at % LINE);
        let shape = line / DRAWN * BAND + column / WIDTH;
        match drawing[at] {
            b'#' => shapes[shape][line % DRAWN] |= 0x80 >> (column % WIDTH),
            b'.' => {}
            b'\n' => assert!(column == LINE - 1, "a line of the drawing has a wrong length"),
            _ => panic!("the drawing consists of dots, number signs and line ends"),
        }
        at += 1;
    }
    shapes
}

/// The rows of dots of a cell that shows `byte`, from top to bottom; the highest bit is the dot on
/// the left.
#[must_use]
pub fn shape(byte: u8) -> [u8; HEIGHT] {
    let index = usize::from(shown(byte) - FIRST);
    let mut rows = [0; HEIGHT];
    for (row, dots) in rows.iter_mut().skip(ABOVE).zip(SHAPES.get(index).into_iter().flatten()) {
        *row = *dots;
    }
    rows
}

/// The byte that has this shape.
#[must_use]
pub fn byte(shape: &[u8; HEIGHT]) -> Option<u8> {
    (FIRST..=UNKNOWN).find(|byte| self::shape(*byte) == *shape)
}

/// What is shown for `byte`: itself if it can be printed, else [`UNKNOWN`].
#[must_use]
pub const fn shown(byte: u8) -> u8 {
    if matches!(byte, FIRST..UNKNOWN) { byte } else { UNKNOWN }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_has_a_shape_of_its_own() {
        for character in FIRST..=UNKNOWN {
            assert_eq!(byte(&shape(character)), Some(character));
        }
        assert_eq!(shape(b' '), [0; HEIGHT]);
        assert_eq!(byte(&[0xff; HEIGHT]), None);
    }

    #[test]
    fn characters_stand_apart() {
        for character in FIRST..=UNKNOWN {
            let dots = shape(character);
            assert!(dots.iter().all(|row| row & 1 == 0), "{character:#x} touches its neighbour");
            assert_eq!((dots[ABOVE - 1], dots[ABOVE + DRAWN]), (0, 0));
        }
    }

    #[test]
    fn an_l_is_drawn_as_one() {
        let mut expected = [0; HEIGHT];
        expected[2..10].fill(0x80);
        expected[10] = 0xfe;
        assert_eq!(shape(b'L'), expected);
    }

    #[test]
    fn what_cannot_be_printed_is_drawn_alike() {
        for byte in (0..FIRST).chain(UNKNOWN..=u8::MAX) {
            assert_eq!(shape(byte), shape(UNKNOWN));
        }
    }
}
