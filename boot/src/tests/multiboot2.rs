use proptest::prelude::*;

use super::*;
use crate::framebuffer::tests::tag as framebuffer_tag;
use crate::handoff::MemoryEntry;
use crate::testing::Memory;

const AT: u64 = 0x9000;

fn plain_tag(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut tag = kind.to_le_bytes().to_vec();
    tag.extend((body.len() as u32 + 8).to_le_bytes());
    tag.extend(body);
    tag
}

fn module_tag(start: u32, end: u32, text: &str) -> Vec<u8> {
    let body = [&start.to_le_bytes(), &end.to_le_bytes(), text.as_bytes(), b"\0"].concat();
    plain_tag(tag::MODULE, &body)
}

fn map_tag(entry_size: u32, entries: &[(u64, u64, u32)]) -> Vec<u8> {
    let mut body = [entry_size.to_le_bytes(), [0; 4]].concat();
    for (start, length, kind) in entries {
        let end = body.len() + entry_size as usize;
        body.extend(start.to_le_bytes());
        body.extend(length.to_le_bytes());
        body.extend(kind.to_le_bytes());
        body.resize(end, 0xee);
    }
    plain_tag(tag::MEMORY_MAP, &body)
}

/// An information structure of the given tags, with an end tag.
fn info(tags: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    for tag in tags {
        bytes.extend(tag);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes.extend(plain_tag(tag::END, &[]));
    let length = bytes.len() as u32;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes
}

fn a_map() -> Vec<u8> {
    map_tag(24, &[(0, 0x9f000, 1), (0x10_0000, 0x700_0000, 1)])
}

#[test]
fn reads_what_grub_writes() {
    let bytes = info(&[
        plain_tag(tag::COMMAND_LINE, b"verbose\0"),
        plain_tag(4, &[0; 8]),
        module_tag(0x20_0000, 0x20_1234, "hypervisor"),
        module_tag(0x30_0000, 0x40_0000, "bundle x"),
        map_tag(40, &[(0, 0x9f000, 1), (0xf0000, 0x10000, 2)]),
        framebuffer_tag(0xb8000, 160, (80, 25), 16, 2),
    ]);
    let memory = Memory::new(&[(AT, &bytes)]);
    let handoff = parse(&memory, AT).unwrap();
    assert_eq!(handoff.command_line, "verbose");
    assert_eq!(handoff.modules()[0].span, Span { start: 0x20_0000, end: 0x20_1234 });
    assert_eq!(handoff.modules()[1].name(), "bundle");
    let reserved = MemoryEntry { span: Span::new(0xf0000, 0x10000), kind: 2 };
    assert_eq!(handoff.memory.entries()[1], reserved);
    assert_eq!(handoff.keep, Span::new(AT, bytes.len() as u64));
    assert!(handoff.text_screen && handoff.framebuffer.is_none());
    assert_eq!(handoff.rsdp, None);
}

#[test]
fn the_new_rsdp_wins_in_either_order() {
    let (old, new) = (
        plain_tag(tag::ACPI_OLD_RSDP, b"RSD PTR old"),
        plain_tag(tag::ACPI_NEW_RSDP, b"RSD PTR new"),
    );
    for tags in [[old.clone(), new.clone(), a_map()], [new, old, a_map()]] {
        let bytes = info(&tags);
        let memory = Memory::new(&[(AT, &bytes)]);
        let rsdp = parse(&memory, AT).unwrap().rsdp.unwrap();
        assert_eq!(memory.bytes(rsdp, 11), Some(&b"RSD PTR new"[..]));
    }
}

#[test]
fn the_screen_is_known_without_a_framebuffer_tag() {
    let bios = info(&[a_map()]);
    assert!(parse(&Memory::new(&[(AT, &bios)]), AT).unwrap().text_screen);
    let efi = info(&[plain_tag(tag::EFI64_SYSTEM_TABLE, &[0; 8]), a_map()]);
    assert!(!parse(&Memory::new(&[(AT, &efi)]), AT).unwrap().text_screen);
    let graphics = info(&[framebuffer_tag(0x8000_0000, 3200, (800, 600), 32, 1), a_map()]);
    let memory = Memory::new(&[(AT, &graphics)]);
    let handoff = parse(&memory, AT).unwrap();
    assert!(!handoff.text_screen);
    assert_eq!(handoff.framebuffer.unwrap().span(), Span::new(0x8000_0000, 3200 * 600));
}

#[test]
fn damage_is_an_error() {
    let parse_bytes = |bytes: &[u8]| parse(&Memory::new(&[(AT, bytes)]), AT).map(|_| ());
    assert_eq!(parse_bytes(&info(&[])), Err(Error::NoMemoryMap));
    assert!(matches!(parse_bytes(&info(&[map_tag(20, &[])])), Err(Error::BadHandoff(_))));
    let mut no_end = info(&[a_map()]);
    no_end.truncate(no_end.len() - 8);
    let length = no_end.len() as u32;
    no_end[..4].copy_from_slice(&length.to_le_bytes());
    assert!(matches!(parse_bytes(&no_end), Err(Error::BadHandoff(_))));
    let mut long_tag = info(&[a_map()]);
    long_tag[12] = 0xff;
    assert!(matches!(parse_bytes(&long_tag), Err(Error::BadHandoff(_))));
    let mut zero_tag = info(&[a_map()]);
    zero_tag[12..16].fill(0);
    assert!(matches!(parse_bytes(&zero_tag), Err(Error::BadHandoff(_))));
    let mut short_tag = info(&[a_map()]);
    short_tag[12..16].copy_from_slice(&7u32.to_le_bytes());
    assert_eq!(parse_bytes(&short_tag), Err(Error::BadHandoff("a Multiboot2 tag is too short")));
    assert!(parse(&Memory::new(&[]), AT).is_err());
}

proptest! {
    #[test]
    fn garbage_tags_never_panic(
        tags in prop::collection::vec((0u32..24, prop::collection::vec(any::<u8>(), 0..80)), 0..12)
    ) {
        let tags: Vec<_> = tags.iter().map(|(kind, body)| plain_tag(*kind, body)).collect();
        let bytes = info(&tags);
        let _ = parse(&Memory::new(&[(AT, &bytes)]), AT);
    }

    #[test]
    fn a_flipped_byte_never_panics(at in 0usize..300, value in any::<u8>()) {
        let mut bytes = info(&[
            module_tag(1, 2, "hypervisor"),
            framebuffer_tag(0x8000_0000, 3200, (800, 600), 32, 1),
            plain_tag(tag::ACPI_OLD_RSDP, &[7; 20]),
            a_map(),
        ]);
        let at = at % bytes.len();
        bytes[at] = value;
        let _ = parse(&Memory::new(&[(AT, &bytes)]), AT);
    }
}
