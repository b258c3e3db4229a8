//! Reading the programs of tasks. That what the image builder writes is read is tested there.

use abi::cap::MemRights;
use abi::layout::USER_TOP;
use abi::program::{MAGIC, MAX_SEGMENTS, Program, ProgramError};
use proptest::prelude::*;

/// Address, size, offset, length, rights.
type Fields = [u64; 5];

const R: u64 = 0b001;
const RW: u64 = 0b011;
const RX: u64 = 0b101;
const TEXT: Fields = [0x40_0000, 0x1000, 0x200, 0x100, RX];
const DATA: Fields = [0x40_1000, 0x3000, 0x300, 0x80, RW];

fn file(entry: u64, segments: &[Fields]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for field in [entry, segments.len() as u64].iter().chain(segments.iter().flatten()) {
        bytes.extend(field.to_le_bytes());
    }
    let used = bytes.len();
    bytes.extend((used..0x400).map(|at| at as u8));
    bytes
}

fn error(entry: u64, segments: &[Fields]) -> ProgramError {
    Program::parse(&file(entry, segments)).unwrap_err()
}

#[test]
fn segments_come_with_their_content() {
    let bytes = file(0x40_0010, &[TEXT, DATA]);
    let program = Program::parse(&bytes).unwrap();
    assert_eq!(program.entry(), 0x40_0010);
    let segments: Vec<_> = program.segments().collect();
    let [text, data] = segments.as_slice() else { panic!("two segments") };
    assert_eq!((text.address, text.size, text.rights), (0x40_0000, 0x1000, MemRights::RX));
    assert_eq!(text.content, &bytes[0x200..0x300]);
    assert_eq!((data.address, data.size, data.rights), (0x40_1000, 0x3000, MemRights::RW));
    assert_eq!(data.content, &bytes[0x300..0x380]);
}

#[test]
fn each_mistake_has_its_error() {
    let with = |field: usize, value| {
        let mut data = DATA;
        data[field] = value;
        error(0x40_0000, &[TEXT, data])
    };
    assert_eq!(with(0, 0x40_1001), ProgramError::BadPages(1));
    assert_eq!(with(0, USER_TOP - 0x2000), ProgramError::BadAddress(1));
    assert_eq!(with(0, 0u64.wrapping_sub(0x1000)), ProgramError::BadAddress(1));
    assert_eq!(with(0, 0x40_0000), ProgramError::Overlap(1));
    for size in [0, 0x80, 0x1001] {
        assert_eq!(with(1, size), ProgramError::BadPages(1));
    }
    assert_eq!(with(1, 0u64.wrapping_sub(0x1000)), ProgramError::BadAddress(1));
    for offset in [0x381, 0x401, u64::MAX] {
        assert_eq!(with(2, offset), ProgramError::BadContent(1));
    }
    assert_eq!(with(3, 0x101), ProgramError::BadContent(1));
    assert_eq!(with(3, 0x3001), ProgramError::BadLength(1));
    for rights in [0, 0b010, 0b100, 0b110, 0b111, 0b1001, 1 << 32 | R] {
        assert_eq!(with(4, rights), ProgramError::BadRights(1));
    }
    for entry in [0x3f_ffff, 0x40_1000, u64::MAX] {
        assert_eq!(error(entry, &[TEXT, DATA]), ProgramError::BadEntry);
    }
    assert_eq!(error(0, &[]), ProgramError::BadEntry);
}

#[test]
fn the_edges_are_allowed() {
    let last = [USER_TOP - 0x1000, 0x1000, 0x400, 0, R];
    let bytes = file(0, &[[0, 0x1000, 0, 0x400, RX], last]);
    let program = Program::parse(&bytes).unwrap();
    assert_eq!(program.segments().map(|segment| segment.content.len()).sum::<usize>(), 0x400);
}

#[test]
fn the_table_is_bounded_and_complete() {
    let page = |number: usize| [number as u64 * 0x1000, 0x1000, 0, 0, RX];
    let most: Vec<Fields> = (0..MAX_SEGMENTS).map(page).collect();
    let mut bytes = file(0, &most);
    assert_eq!(Program::parse(&bytes).unwrap().segments().count(), MAX_SEGMENTS);
    for count in [MAX_SEGMENTS as u64 + 1, 1 << 32, u64::MAX] {
        bytes[16..24].copy_from_slice(&count.to_le_bytes());
        assert_eq!(Program::parse(&bytes).unwrap_err(), ProgramError::TooMany);
    }
    let bytes = file(0, &[page(0)]);
    assert!(Program::parse(&bytes[..64]).is_ok());
    for length in 8..64 {
        assert_eq!(Program::parse(&bytes[..length]).unwrap_err(), ProgramError::Truncated);
    }
    assert_eq!(Program::parse(&bytes[..7]).unwrap_err(), ProgramError::BadMagic);
    assert_eq!(Program::parse(b"\x7fELF\x02\x01\x01\0").unwrap_err(), ProgramError::BadMagic);
}

proptest! {
    /// Whatever the bytes are: no panic, and what is accepted keeps the rules.
    #[test]
    fn garbage_is_refused_or_sound(
        entry in 0..0x8000_u64,
        segments in prop::collection::vec(
            (0..8_u64, 0..4_u64, 0..0x500_u64, 0..0x300_u64, 0..8_u64), 0..4),
        flips in prop::collection::vec((0..0xc0_usize, any::<u8>()), 0..3),
        cut in 0..0x500_usize,
    ) {
        let segments: Vec<Fields> = segments
            .into_iter()
            .map(|(page, pages, offset, length, rights)| {
                [page << 12, pages << 12, offset, length, rights]
            })
            .collect();
        let mut bytes = file(entry, &segments);
        for (at, byte) in flips {
            bytes[at] = byte;
        }
        bytes.truncate(cut);
        if let Ok(program) = Program::parse(&bytes) {
            let (mut free, mut entered) = (0, false);
            for segment in program.segments() {
                prop_assert!(segment.address >= free && segment.address % 4096 == 0);
                prop_assert!(segment.size > 0 && segment.size % 4096 == 0);
                prop_assert!(segment.content.len() as u64 <= segment.size);
                prop_assert!(!segment.rights.contains(MemRights::W.union(MemRights::X)));
                free = segment.address + segment.size;
                prop_assert!(free <= USER_TOP);
                entered |= segment.rights == MemRights::RX
                    && (segment.address..free).contains(&program.entry());
            }
            prop_assert!(entered);
        }
    }
}
