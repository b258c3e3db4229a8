//! The linear framebuffer GRUB leaves, in the terms of `bootloader_api`.

use bootloader_api::info::{FrameBufferInfo, PixelFormat};
use screen::Layout;

use crate::memory::{u32_at, u64_at};
use crate::span::Span;

/// A linear RGB framebuffer in physical memory.
#[derive(Clone, Copy, Debug)]
pub struct LinearFramebuffer {
    /// Physical address of the first pixel.
    pub address: u64,
    /// Its layout.
    pub info: FrameBufferInfo,
}

impl LinearFramebuffer {
    /// The physical memory it occupies.
    pub fn span(&self) -> Span {
        Span::new(self.address, self.info.byte_len as u64)
    }

    /// How its pixels lie there.
    pub fn layout(&self) -> Layout {
        let FrameBufferInfo { width, height, bytes_per_pixel, stride, .. } = self.info;
        Layout { stride: stride * bytes_per_pixel, width, height, bytes: bytes_per_pixel }
    }
}

/// What a Multiboot2 framebuffer tag describes.
#[derive(Clone, Copy, Debug)]
pub enum VideoMode {
    /// Character cells in VGA text memory.
    Text,
    /// Pixels.
    Linear(LinearFramebuffer),
    /// Something the loader cannot describe (a palette, or odd geometry).
    Other,
}

/// Reads a framebuffer tag (Multiboot2 specification 3.6.12); `tag` starts at its type field.
pub fn parse(tag: &[u8]) -> Option<VideoMode> {
    let address = u64_at(tag, 8)?;
    let (pitch, width, height) = (u32_at(tag, 16)?, u32_at(tag, 20)?, u32_at(tag, 24)?);
    let (bits_per_pixel, kind) = (*tag.get(28)?, *tag.get(29)?);
    match kind {
        2 => return Some(VideoMode::Text),
        1 => {}
        _ => return Some(VideoMode::Other),
    }
    let colours: &[u8; 6] = tag.get(32..38)?.try_into().ok()?;
    let bytes_per_pixel = usize::from(bits_per_pixel) / 8;
    let geometry = linear_length(pitch, width, height, bytes_per_pixel);
    let whole_bytes = bits_per_pixel % 8 == 0;
    let Some((stride, byte_len)) = geometry.filter(|_| whole_bytes) else {
        return Some(VideoMode::Other);
    };
    if address == 0 || address.checked_add(byte_len as u64).is_none() {
        return Some(VideoMode::Other);
    }
    let info = FrameBufferInfo {
        byte_len,
        width: width as usize,
        height: height as usize,
        pixel_format: pixel_format(colours),
        bytes_per_pixel,
        stride,
    };
    Some(VideoMode::Linear(LinearFramebuffer { address, info }))
}

/// Stride in pixels and length in bytes, or `None` if the numbers do not fit together.
fn linear_length(pitch: u32, width: u32, height: u32, pixel: usize) -> Option<(usize, usize)> {
    let pitch = pitch as usize;
    if width == 0 || height == 0 || pixel == 0 || !pitch.is_multiple_of(pixel) {
        return None;
    }
    let stride = pitch / pixel;
    (stride >= width as usize).then_some((stride, pitch.checked_mul(height as usize)?))
}

/// From position and size in bits of red, green and blue.
fn pixel_format(colours: &[u8; 6]) -> PixelFormat {
    match *colours {
        [16, 8, 8, 8, 0, 8] => PixelFormat::Bgr,
        [0, 8, 8, 8, 16, 8] => PixelFormat::Rgb,
        [red_position, _, green_position, _, blue_position, _] => {
            PixelFormat::Unknown { red_position, green_position, blue_position }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A framebuffer tag as GRUB writes it.
    pub fn tag(address: u64, pitch: u32, size: (u32, u32), bits: u8, kind: u8) -> Vec<u8> {
        let mut tag = Vec::new();
        tag.extend(8u32.to_le_bytes());
        tag.extend(38u32.to_le_bytes());
        tag.extend(address.to_le_bytes());
        tag.extend(pitch.to_le_bytes());
        tag.extend(size.0.to_le_bytes());
        tag.extend(size.1.to_le_bytes());
        tag.extend([bits, kind, 0, 0]);
        tag.extend([16, 8, 8, 8, 0, 8]);
        tag
    }

    #[test]
    fn linear_rgb() {
        let tag = tag(0x8000_0000, 4096, (800, 600), 32, 1);
        let Some(VideoMode::Linear(screen)) = parse(&tag) else { panic!("not linear") };
        assert_eq!(screen.span(), Span::new(0x8000_0000, 4096 * 600));
        assert_eq!(screen.info.stride, 1024);
        assert_eq!(screen.info.bytes_per_pixel, 4);
        let layout = Layout { stride: 4096, width: 800, height: 600, bytes: 4 };
        assert_eq!(screen.layout(), layout);
        assert_eq!(screen.info.pixel_format, PixelFormat::Bgr);
    }

    #[test]
    fn what_is_not_linear_rgb() {
        assert!(matches!(parse(&tag(0xb8000, 160, (80, 25), 16, 2)), Some(VideoMode::Text)));
        assert!(matches!(parse(&tag(0xa0000, 320, (320, 200), 8, 0)), Some(VideoMode::Other)));
        let odd = [
            tag(0x8000_0000, 100, (800, 600), 32, 1),
            tag(0x8000_0000, 4096, (800, 600), 15, 1),
            tag(0x8000_0000, 4096, (0, 600), 32, 1),
            tag(0, 4096, (800, 600), 32, 1),
            tag(u64::MAX - 5, 4096, (800, 600), 32, 1),
        ];
        for tag in odd {
            assert!(matches!(parse(&tag), Some(VideoMode::Other)));
        }
        assert!(parse(&tag(0x8000_0000, 4096, (800, 600), 32, 1)[..30]).is_none());
    }
}
