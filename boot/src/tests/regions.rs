use proptest::prelude::*;

use super::*;
use MemoryRegionKind::{Bootloader, UnknownBios, Usable};

fn map(entries: &[(u64, u64, u32)]) -> MemoryMap {
    let mut map = MemoryMap::new();
    for (start, length, kind) in entries {
        map.push(Span::new(*start, *length), *kind).unwrap();
    }
    map
}

fn regions(map: &MemoryMap, taken: &[Span], limit: u64) -> Vec<(u64, u64, MemoryRegionKind)> {
    let mut out = vec![MemoryRegion::empty(); MAX_REGIONS];
    let count = build(map, taken, limit, &mut out).unwrap();
    out[..count].iter().map(|region| (region.start, region.end, region.kind)).collect()
}

#[test]
fn a_pc() {
    let map = map(&[
        (0x10_0000, 0x7ee_0000, 1),
        (0, 0x9_fc00, 1),
        (0x9_fc00, 0x400, 2),
        (0x7fe_0000, 0x2_0000, 3),
        (0x1_0000_0000, 0x10_0000, 1),
    ]);
    let taken = [Span::new(0x10_0000, 0x2_0000), Span::new(0x700_0800, 0x900), Span::default()];
    let expected = [
        (0, 0x9_f000, Usable),
        (0x9_f000, 0xa_0000, UnknownBios(2)),
        (0x10_0000, 0x12_0000, Bootloader),
        (0x12_0000, 0x700_0000, Usable),
        (0x700_0000, 0x700_2000, Bootloader),
        (0x700_2000, 0x7fe_0000, Usable),
        (0x7fe_0000, 0x800_0000, UnknownBios(3)),
        (0x1_0000_0000, 0x1_0010_0000, Usable),
    ];
    assert_eq!(regions(&map, &taken, 1 << 45), expected);
    assert_eq!(regions(&map, &taken, 0x1_0000_0000), expected[..7]);
}

#[test]
fn reserved_beats_ram_and_neighbours_merge() {
    let map = map(&[(0, 0x4000, 1), (0x4000, 0x4000, 1), (0x2000, 0x1000, 2), (0x2000, 0x800, 4)]);
    let expected =
        [(0, 0x2000, Usable), (0x2000, 0x3000, UnknownBios(4)), (0x3000, 0x8000, Usable)];
    assert_eq!(regions(&map, &[], 1 << 45), expected);
}

#[test]
fn a_short_list_is_an_error() {
    let map = map(&[(0, 0x1000, 1), (0x2000, 0x1000, 1)]);
    let mut out = [MemoryRegion::empty(); 1];
    assert_eq!(build(&map, &[], 1 << 45, &mut out), Err(Error::MemoryMapTooLong));
}

#[test]
fn free_memory_is_aligned_and_in_the_window() {
    let usable = |start, end| MemoryRegion { start, end, kind: Usable };
    let regions = [
        usable(0, 0x9_f000),
        MemoryRegion { start: 0x10_0000, end: 0x60_0000, kind: Bootloader },
        usable(0x60_0000, 0x70_0000),
        usable(0x70_1000, 0x100_0000),
    ];
    let window = Span { start: 0x10_0000, end: 1 << 32 };
    assert_eq!(find_free(&regions, 0x1000, 0x1000, window), Some(0x60_0000));
    assert_eq!(find_free(&regions, 0x10_0000, 0x20_0000, window), Some(0x60_0000));
    assert_eq!(find_free(&regions, 0x10_1000, 0x20_0000, window), Some(0x80_0000));
    assert_eq!(find_free(&regions, 0x80_0001, 0x20_0000, window), None);
    assert_eq!(find_free(&regions, u64::MAX, 0x1000, window), None);
    let low = Span { start: 0x10_0000, end: 0x60_0800 };
    assert_eq!(find_free(&regions, 0x1000, 0x1000, low), None);
}

prop_compose! {
    /// Spans that often touch and overlap, in units smaller than a page.
    fn spans(count: usize)(raw in prop::collection::vec((0u64..200, 0u64..60, 0u32..5), 0..count))
        -> Vec<(u64, u64, u32)>
    {
        raw.into_iter().map(|(start, length, kind)| (start * 0x400, length * 0x400, kind)).collect()
    }
}

proptest! {
    /// The list is sorted and aligned, and says of every page what a look at all inputs says.
    #[test]
    fn every_page_is_what_it_must_be(entries in spans(12), takes in spans(5)) {
        let memory = map(&entries);
        let taken: Vec<_> = takes.iter().map(|(start, length, _)| Span::new(*start, *length)).collect();
        let limit = 0x2_0000;
        let list = regions(&memory, &taken, limit);
        for pair in list.windows(2) {
            prop_assert!(pair[0].1 <= pair[1].0);
            prop_assert!(pair[0].1 < pair[1].0 || pair[0].2 != pair[1].2);
        }
        for (start, end, _) in &list {
            prop_assert!(start < end && start % PAGE == 0 && end % PAGE == 0);
        }
        for page in (0..0x4_8000).step_by(PAGE as usize) {
            let page_span = Span::new(page, PAGE);
            let found = list.iter().find(|r| r.0 <= page && page < r.1).map(|r| r.2);
            let is_taken = taken.iter().any(|span| span.overlaps(page_span));
            let reserved = entries.iter().filter(|e| e.2 != 1)
                .filter(|e| Span::new(e.0, e.1).overlaps(page_span)).map(|e| e.2).max();
            let is_ram = page < limit && entries.iter()
                .any(|e| e.2 == 1 && Span::new(e.0, e.1).contains(page_span));
            let expected = match (is_taken, reserved, is_ram) {
                (true, _, _) => Some(Bootloader),
                (false, Some(kind), _) => Some(UnknownBios(kind)),
                (false, None, true) => Some(Usable),
                (false, None, false) => None,
            };
            prop_assert_eq!(found, expected, "page {:#x}", page);
        }
    }

    #[test]
    fn wild_numbers_never_panic(
        entries in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u32>()), 0..20),
        limit in any::<u64>(),
        size in any::<u64>(),
        shift in 12u32..31,
    ) {
        let memory = map(&entries);
        let mut out = vec![MemoryRegion::empty(); MAX_REGIONS];
        let count = build(&memory, &[Span::new(limit, size)], limit, &mut out).unwrap();
        let window = Span { start: 0, end: u64::MAX };
        let _ = find_free(&out[..count], size, 1 << shift, window);
    }
}
