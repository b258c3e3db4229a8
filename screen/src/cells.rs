//! A screen as a grid of characters.
//!
//! Text is white on black: on pixels that is all bits one and all bits zero, in whatever order the
//! colours are. The memory is a slice, so nothing is ever written outside of it.

use crate::font;

/// Where the text screen of a PC begins in physical memory (IBM VGA, colour text modes).
pub const TEXT_ADDRESS: u64 = 0xb_8000;

/// Bytes of a character on a text screen: itself and its attribute.
const TEXT_CELL: usize = 2;
/// The attribute for light grey on black.
const GREY: u8 = 0x07;
/// Pixels in a line for each pixel of a dot: on a screen of 2560 pixels and more, characters grow.
const PIXELS_FOR_A_DOT: usize = 1280;
/// Most pixels that a dot becomes, in each direction.
const MOST_SCALED: usize = 4;

/// How the lines of a screen lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes from one line to the next.
    pub stride: usize,
    /// Pixels in a line; characters on a text screen.
    pub width: usize,
    /// Lines of pixels, or of characters.
    pub height: usize,
    /// Bytes of a pixel, 2 to 4; 0 for a text screen.
    pub bytes: usize,
}

impl Layout {
    /// That of the text screen of a PC.
    pub const TEXT: Self = Self { stride: 80 * TEXT_CELL, width: 80, height: 25, bytes: 0 };

    /// Bytes of all lines; [`usize::MAX`] if there are more.
    #[must_use]
    pub const fn length(&self) -> usize {
        self.stride.saturating_mul(self.height)
    }

    /// How many pixels a dot of a character becomes, in each direction; 0 on a text screen.
    fn scale(&self) -> usize {
        if self.bytes == 0 { 0 } else { (self.width / PIXELS_FOR_A_DOT).clamp(1, MOST_SCALED) }
    }

    /// Lines of a row of characters.
    fn lines(&self) -> usize {
        (font::HEIGHT * self.scale()).max(1)
    }

    /// The upper lines, for so many rows of characters.
    #[must_use]
    pub fn top(self, rows: usize) -> Self {
        Self { height: self.height.min(rows.saturating_mul(self.lines())), ..self }
    }
}

/// A screen that shows characters.
#[derive(Debug)]
pub struct Screen<'a> {
    memory: &'a mut [u8],
    layout: Layout,
}

impl<'a> Screen<'a> {
    /// The screen whose memory this is. `None` if there is no room for a character, or if the
    /// numbers do not fit together.
    #[must_use]
    pub fn new(memory: &'a mut [u8], layout: Layout) -> Option<Self> {
        let cell = if layout.bytes == 0 { TEXT_CELL } else { layout.bytes };
        let fits = layout.width.checked_mul(cell)? <= layout.stride
            && layout.length() <= memory.len()
            && matches!(layout.bytes, 0 | 2..=4);
        let screen = Self { memory, layout };
        (fits && screen.columns() > 0 && screen.rows() > 0).then_some(screen)
    }

    /// Characters in a row.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.layout.width / (font::WIDTH * self.layout.scale()).max(1)
    }

    /// Rows of characters.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.layout.height / self.layout.lines()
    }

    /// The part of the first line of a character that is its own, as offset and length; `None`
    /// outside of the screen.
    fn place(&self, row: usize, column: usize) -> Option<(usize, usize)> {
        let Layout { stride, bytes, .. } = self.layout;
        let length = (font::WIDTH * self.layout.scale() * bytes).max(TEXT_CELL);
        let inside = row < self.rows() && column < self.columns();
        inside.then(|| (row * self.layout.lines() * stride + column * length, length))
    }

    /// Shows a character. Outside of the screen nothing happens.
    pub fn put(&mut self, row: usize, column: usize, byte: u8) {
        let Some((mut start, length)) = self.place(row, column) else { return };
        let scale = self.layout.scale();
        for dots in font::shape(byte) {
            for _ in 0..scale.max(1) {
                let line = self.memory.get_mut(start..start + length).unwrap_or_default();
                match self.layout.bytes {
                    2 => draw::<2>(line, dots, scale),
                    3 => draw::<3>(line, dots, scale),
                    4 => draw::<4>(line, dots, scale),
                    _ => {
                        line.iter_mut()
                            .zip([font::shown(byte), GREY])
                            .for_each(|(to, from)| *to = from);
                        return;
                    }
                }
                start += self.layout.stride;
            }
        }
    }

    /// The character that is shown; a blank if it is none that this crate draws, or outside of the
    /// screen. On pixels this is slow: video memory is.
    #[must_use]
    pub fn get(&self, row: usize, column: usize) -> u8 {
        let Some((start, length)) = self.place(row, column) else { return b' ' };
        let scale = self.layout.scale();
        let byte = |at: usize| self.memory.get(at).copied().unwrap_or(0);
        if scale == 0 {
            return Some(byte(start)).filter(|byte| font::shown(*byte) == *byte).unwrap_or(b' ');
        }
        let mut shape = [0; font::HEIGHT];
        for (y, dots) in shape.iter_mut().enumerate() {
            let line = start + y * scale * self.layout.stride;
            for x in (0..font::WIDTH).filter(|x| byte(line + x * length / font::WIDTH) != 0) {
                *dots |= 0x80 >> x;
            }
        }
        font::byte(&shape).unwrap_or(b' ')
    }

    /// Whether a row shows nothing that this crate draws.
    #[must_use]
    pub fn is_blank(&self, row: usize) -> bool {
        (0..self.columns()).all(|column| self.get(row, column) == b' ')
    }

    /// Empties a row.
    pub fn clear(&mut self, row: usize) {
        let length = self.layout.lines() * self.layout.stride;
        if row < self.rows()
            && let Some(lines) = self.memory.get_mut(row * length..(row + 1) * length)
        {
            lines.fill(0);
        }
    }
}

/// Draws a row of dots on a line of pixels of `BYTES` bytes. Each pixel is written once, and none
/// is read.
fn draw<const BYTES: usize>(line: &mut [u8], dots: u8, scale: usize) {
    let (pixels, _) = line.as_chunks_mut::<BYTES>();
    for (x, dot) in pixels.chunks_exact_mut(scale.max(1)).enumerate() {
        let value = if dots << x & 0x80 != 0 { [0xff; BYTES] } else { [0; BYTES] };
        dot.iter_mut().for_each(|pixel| *pixel = value);
    }
}

#[cfg(test)]
#[path = "tests/cells.rs"]
mod tests;
