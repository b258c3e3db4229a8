//! A task's program, read by the kernel and the root task.

use abi::cap::MemRights;
use abi::layout::USER_TOP;
use abi::program::{MAGIC, MAX_SEGMENTS, Program};

use super::Target;
use crate::input::Bytes;

/// The whole table, and what is loaded by it.
pub const TARGET: Target =
    Target { name: "program", longest: 0x400, dictionary: &[&MAGIC], seeds, run };

/// A program with the given entry point and segments, and `0x300` bytes.
fn program(entry: u64, segments: &[[u64; 5]]) -> Vec<u8> {
    let head = Bytes::default().put(&MAGIC).u64(entry).u64(segments.len() as u64);
    segments.iter().flatten().fold(head, |bytes, field| bytes.u64(*field)).pad(0x300).0
}

fn seeds() -> Vec<Vec<u8>> {
    let text = [0x40_0000, 0x1000, 0x200, 0x80, 0b101];
    let constants = [0x40_1000, 0x1000, 0x280, 0x40, 0b001];
    let data = [0x40_4000, 0x3000, 0x2c0, 0x40, 0b011];
    let most: [[u64; 5]; MAX_SEGMENTS] =
        core::array::from_fn(|page| [(page as u64) << 12, 0x1000, 0, 0, 0b101]);
    vec![
        program(0x40_0010, &[text, constants, data]),
        program(0x40_0000, &[text]),
        program(0, &most),
    ]
}

fn run(bytes: &[u8]) {
    let Ok(program) = Program::parse(bytes) else { return };
    let (mut free, mut entered, mut count) = (0, false, 0);
    for segment in program.segments() {
        count += 1;
        assert!(segment.size > 0 && segment.size % 4096 == 0 && segment.address % 4096 == 0);
        assert!(segment.address >= free, "two segments share a page");
        free = segment.address.checked_add(segment.size).expect("an address");
        assert!(free <= USER_TOP, "outside of the lower half");
        assert!(segment.content.len() as u64 <= segment.size);
        let MemRights(rights) = segment.rights;
        assert!(matches!(rights, 0b001 | 0b011 | 0b101));
        let inside = (segment.address..free).contains(&program.entry());
        entered |= inside && rights == 0b101;
    }
    assert!(entered && count <= MAX_SEGMENTS);
}
