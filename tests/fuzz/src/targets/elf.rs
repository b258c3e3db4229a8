//! The kernel's executable, which the loader reads.

use boot::elf::{Image, KERNEL_BASE, MAX_KERNEL_SPAN};

use super::Target;
use crate::input::Bytes;

/// The kernel's file.
pub const TARGET: Target = Target {
    name: "elf-kernel",
    longest: 0x300,
    dictionary: &[],
    seeds: kernel_seeds,
    run: kernel,
};

/// A program header: type, flags, offset, address, bytes in the file, bytes in memory.
type Header = (u32, u32, u64, u64, u64, u64);

/// An executable with the given entry point and program headers, and `0x200` bytes.
fn file(kind: u16, entry: u64, headers: &[Header]) -> Vec<u8> {
    let ident = Bytes::default().put(b"\x7fELF\x02\x01\x01").pad(16);
    let head = ident.u16(kind).u16(62).u32(1).u64(entry).u64(64).u64(0).u32(0);
    let head = head.u16(64).u16(56).u16(headers.len() as u16).pad(64);
    let put = |bytes: Bytes, header: &Header| {
        let (kind, flags, offset, address, file_size, memory_size) = *header;
        let bytes = bytes.u32(kind).u32(flags).u64(offset).u64(address).u64(address);
        bytes.u64(file_size).u64(memory_size).u64(0x1000)
    };
    headers.iter().fold(head, put).pad(0x200).0
}

/// A kernel with code, constants and data.
pub fn kernel_file() -> Vec<u8> {
    let base = KERNEL_BASE + 0x10_0000;
    let headers = [
        (1, 5, 0x100, base, 0x80, 0x2345),
        (1, 4, 0x180, base + 0x3000, 0x40, 0x40),
        (1, 6, 0x1c0, base + 0x4800, 0x40, 0x5000),
    ];
    file(2, base + 0x10, &headers)
}

fn kernel_seeds() -> Vec<Vec<u8>> {
    let base = KERNEL_BASE;
    let dynamic = [(1, 5, 0, base, 0x200, 0x200), (2, 4, 0x100, base + 0x100, 0x20, 0x20)];
    vec![kernel_file(), file(3, base, &dynamic)]
}

/// Checks what the loader relies on when it copies and maps an image that was accepted.
pub fn check(image: &Image<'_>) {
    assert!(image.span.length() <= MAX_KERNEL_SPAN && image.span.start >= KERNEL_BASE);
    let (mut free, mut entered) = (image.span.start, false);
    for segment in image.segments() {
        let span = segment.span;
        let pages = span.pages_around();
        assert!(!span.is_empty() && pages.start >= free && pages.end <= image.span.end);
        assert!(segment.file.len() as u64 <= span.length());
        assert!(!(segment.write && segment.execute));
        entered |= segment.execute && (span.start..span.end).contains(&image.entry);
        free = pages.end;
    }
    assert!(entered);
}

fn kernel(bytes: &[u8]) {
    match Image::parse(bytes) {
        Ok(image) => check(&image),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
