use crate::elf::{Elf, ElfError};
use proptest::prelude::*;
use std::vec::Vec;

/// type, flags, offset, vaddr, filesz, memsz
type Header = (u32, u32, u64, u64, u64, u64);

fn file(entry: u64, headers: &[Header]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(*b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    bytes.extend(2_u16.to_le_bytes());
    bytes.extend(62_u16.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(entry.to_le_bytes());
    bytes.extend(64_u64.to_le_bytes());
    bytes.extend([0; 12]);
    bytes.extend(64_u16.to_le_bytes());
    bytes.extend(56_u16.to_le_bytes());
    bytes.extend((headers.len() as u16).to_le_bytes());
    bytes.extend([0; 6]);
    for (kind, flags, offset, vaddr, filesz, memsz) in headers {
        bytes.extend(kind.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        for word in [offset, vaddr, vaddr, filesz, memsz, &4096] {
            bytes.extend(word.to_le_bytes());
        }
    }
    bytes.resize(0x400, 0x90);
    bytes
}

const TEXT: Header = (1, 5, 0x200, 0x40_0000, 0x100, 0x100);
const DATA: Header = (1, 6, 0x300, 0x40_1300, 0x80, 0x2000);

#[test]
fn segments_come_with_their_bytes() {
    let bytes = file(0x40_0010, &[(6, 4, 64, 64, 8, 8), TEXT, DATA]);
    let elf = Elf::parse(&bytes).unwrap();
    assert_eq!((elf.entry(), elf.relocatable()), (0x40_0010, false));
    let found: Vec<_> = elf.segments().collect();
    assert_eq!(found.len(), 2);
    assert_eq!(
        (found[0].vaddr, found[0].memsz, found[0].file),
        (0x40_0000, 0x100, &bytes[0x200..0x300])
    );
    assert!(found[0].execute && !found[0].write && found[1].write && !found[1].execute);
    assert_eq!((found[1].memsz, found[1].file.len()), (0x2000, 0x80));
}

#[test]
fn each_mistake_has_its_error() {
    let error = |entry, headers: &[Header]| Elf::parse(&file(entry, headers)).unwrap_err();
    assert_eq!(error(0x40_0100, &[TEXT, DATA]), ElfError::BadEntry);
    assert_eq!(error(0x40_1300, &[TEXT, DATA]), ElfError::BadEntry);
    assert_eq!(error(0x40_0000, &[DATA, TEXT]), ElfError::Overlap(1));
    let close = (1, 6, 0x300, 0x40_0fff, 1, 1);
    assert_eq!(error(0x40_0000, &[TEXT, close]), ElfError::Overlap(1));
    let evil = (1, 7, 0x200, 0x40_0000, 1, 1);
    assert_eq!(error(0x40_0000, &[evil]), ElfError::WriteExecute(0));
    let small = (1, 5, 0x200, 0x40_0000, 2, 1);
    assert_eq!(error(0x40_0000, &[small]), ElfError::BadSize(0));
    for vaddr in [u64::MAX, 1 << 47] {
        assert_eq!(error(0, &[(1, 5, 0x200, vaddr, 1, 1)]), ElfError::BadAddress(0));
    }
    for offset in [0x400, u64::MAX] {
        let cut = (1, 5, offset, 0x40_0000, 1, 1);
        assert_eq!(error(0x40_0000, &[cut]), ElfError::Truncated);
    }
    let good = file(0x40_0000, &[TEXT]);
    let with = |at: usize, byte| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        Elf::parse(&bytes).err()
    };
    assert_eq!(with(0, 0), Some(ElfError::NotElf));
    assert_eq!(with(4, 1), Some(ElfError::NotElf));
    assert_eq!(with(18, 3), Some(ElfError::NotElf));
    assert_eq!(with(16, 1), Some(ElfError::NotExecutable));
    assert_eq!(with(16, 3), None);
    assert_eq!(with(54, 55), Some(ElfError::NotElf));
    assert_eq!(with(57, 1), Some(ElfError::Truncated));
    assert_eq!(with(39, 0xff), Some(ElfError::Truncated));
    assert_eq!(Elf::parse(&good[..63]).err(), Some(ElfError::NotElf));
}

#[test]
fn addresses_can_be_limited() {
    let bytes = file(0x40_0010, &[TEXT, DATA]);
    let within = |addresses| Elf::parse_within(&bytes, addresses).err();
    assert_eq!(within(0x40_0000..0x40_3300), None);
    assert_eq!(within(0x40_0001..0x40_3300), Some(ElfError::BadAddress(0)));
    assert_eq!(within(0x40_0000..0x40_32ff), Some(ElfError::BadAddress(1)));
}

#[test]
fn relocations_are_seen() {
    let dynamic = |offset, tag: u64, size: u64| {
        let mut bytes = file(0x40_0010, &[TEXT, (2, 4, offset, 0, 0x20, 0x20)]);
        bytes[0x300..0x308].copy_from_slice(&tag.to_le_bytes());
        bytes[0x308..0x310].copy_from_slice(&size.to_le_bytes());
        bytes[0x310..0x320].fill(0);
        Elf::parse(&bytes).unwrap().needs_relocations()
    };
    assert!(!Elf::parse(&file(0x40_0010, &[TEXT])).unwrap().needs_relocations());
    assert!(dynamic(0x300, 8, 24) && dynamic(0x300, 2, 24));
    assert!(!dynamic(0x300, 8, 0) && !dynamic(0x300, 5, 24));
    assert!(!dynamic(0x310, 8, 24), "what follows DT_NULL does not count");
    assert!(dynamic(0x3f0, 8, 24), "a section that is cut off may ask for anything");
}

proptest! {
    /// Whatever the bytes are: no panic, and what is accepted keeps the rules.
    #[test]
    fn garbage_is_refused_or_sound(
        entry in 0..0x8000_u64,
        headers in prop::collection::vec(
            (0..2_u32, 0..8_u32, 0..0x500_u64, 0..0x8000_u64, 0..0x200_u64, 0..0x2000_u64), 0..5),
        flips in prop::collection::vec((0..0x180_usize, any::<u8>()), 0..4),
        cut in 0..0x500_usize,
    ) {
        let mut bytes = file(entry, &headers);
        for (at, byte) in flips {
            bytes[at] = byte;
        }
        bytes.truncate(cut.max(1));
        if let Ok(elf) = Elf::parse(&bytes) {
            let mut free = 0;
            for segment in elf.segments() {
                prop_assert!(!(segment.write && segment.execute));
                prop_assert!(segment.file.len() as u64 <= segment.memsz);
                prop_assert!(segment.vaddr >> 12 >= free);
                free = (segment.vaddr + segment.memsz).div_ceil(4096);
                prop_assert!(free <= 1 << 35);
            }
            prop_assert!(elf.segments().any(|s| s.execute && s.vaddr <= elf.entry()));
        }
    }
}
