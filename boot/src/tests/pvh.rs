use proptest::prelude::*;

use super::*;
use crate::handoff::E820_RAM;
use crate::testing::Memory;

const AT: u64 = 0x5000;

fn longs(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A start info: version, number of modules, then the addresses and counts.
fn start_info(version: u32, modules: (u64, u32), map: (u64, u32), text: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [MAGIC, version, 0, modules.1] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(longs(&[modules.0, text, 0xf_5aa0, map.0]));
    bytes.extend(map.1.to_le_bytes());
    bytes.extend([0; 4]);
    bytes
}

#[test]
fn reads_what_qemu_writes() {
    let info = start_info(1, (0x7000, 1), (0x6000, 2), 0x8000);
    let map = longs(&[0, 0x9fc00, 1, 0x10_0000, 0x7ee_0000, 1]);
    let modules = longs(&[0x700_0000, 0x1234, 0x8010, 0]);
    let text = b"quiet\0..........bundle now\0";
    let memory = Memory::new(&[(AT, &info), (0x6000, &map), (0x7000, &modules), (0x8000, text)]);
    let handoff = parse(&memory, AT).unwrap();
    assert_eq!(handoff.rsdp, Some(0xf_5aa0));
    assert_eq!(handoff.command_line, "quiet");
    assert_eq!(handoff.modules()[0].span, Span::new(0x700_0000, 0x1234));
    assert_eq!(handoff.modules()[0].name(), "bundle");
    assert_eq!(handoff.memory.entries()[1].span, Span::new(0x10_0000, 0x7ee_0000));
    assert_eq!(handoff.memory.entries()[1].kind, E820_RAM);
    assert!(handoff.text_screen);
}

#[test]
fn damage_is_an_error() {
    let map = longs(&[0, 0x9fc00, 1]);
    let parse_info = |info: Vec<u8>| {
        let memory = Memory::new(&[(AT, &info), (0x6000, &map)]);
        parse(&memory, AT).map(|_| ())
    };
    assert_eq!(parse_info(start_info(1, (0, 0), (0x6000, 1), 0)), Ok(()));
    assert_eq!(parse_info(start_info(0, (0, 0), (0x6000, 1), 0)), Err(Error::NoMemoryMap));
    assert_eq!(parse_info(start_info(1, (0, 0), (0x6000, 0), 0)), Err(Error::NoMemoryMap));
    let out_of_reach = [
        start_info(1, (0, 0), (0x6000, 2), 0),
        start_info(1, (0, 0), (0x6000, u32::MAX), 0),
        start_info(1, (0x6000, 1), (0x6000, 1), 0),
        start_info(1, (0x9000, 1), (0x6000, 1), 0),
        start_info(1, (0, 0), (0x6000, 1), 0)[..40].to_vec(),
        vec![0; 64],
    ];
    for info in out_of_reach {
        assert!(matches!(parse_info(info), Err(Error::BadHandoff(_))));
    }
}

#[test]
fn too_many_entries_are_an_error() {
    let map = longs(&[0, 0x1000, 1]).repeat(513);
    let modules = longs(&[0x1000, 0x1000, 0, 0]).repeat(9);
    let parse_counts = |modules_count, map_count| {
        let info = start_info(1, (0x10_0000, modules_count), (0x20_0000, map_count), 0);
        let memory = Memory::new(&[(AT, &info), (0x10_0000, &modules), (0x20_0000, &map)]);
        parse(&memory, AT).map(|_| ())
    };
    assert_eq!(parse_counts(8, 512), Ok(()));
    assert_eq!(parse_counts(8, 513), Err(Error::MemoryMapTooLong));
    assert_eq!(parse_counts(9, 512), Err(Error::BadHandoff("too many modules")));
}

#[test]
fn text_without_an_end_is_cut() {
    let endless = vec![b'x'; 10_000];
    let memory = Memory::new(&[(0x8000, &endless)]);
    assert_eq!(string(&memory, 0x8000).len(), MAX_TEXT as usize);
    assert_eq!(string(&memory, 0x8000 + 9_990), "xxxxxxxxxx");
    assert_eq!(string(&memory, u64::MAX), "");
}

proptest! {
    #[test]
    fn garbage_never_panics(mut info in prop::collection::vec(any::<u8>(), 56)) {
        info[..4].copy_from_slice(&MAGIC.to_le_bytes());
        let _ = parse(&Memory::new(&[(AT, &info)]), AT);
    }

    #[test]
    fn garbage_tables_never_panic(map in prop::collection::vec(any::<u8>(), 96)) {
        let info = start_info(1, (0x6000, 3), (0x6000, 4), 0x6001);
        let handoff = parse(&Memory::new(&[(AT, &info), (0x6000, &map)]), AT).map(|_| ());
        prop_assert!(!matches!(handoff, Err(Error::BadHandoff(_))));
    }
}
