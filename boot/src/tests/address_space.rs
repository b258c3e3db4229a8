use proptest::prelude::*;

use super::*;
use crate::arena::Arena;
use crate::elf::Image;
use crate::elf::tests::{file, kernel_headers};
use crate::handoff::MemoryMap;
use crate::testing::{Leaf, Tables};

const TRAMPOLINE: u64 = 0x10_8000;

/// The file of a small kernel.
fn kernel() -> Vec<u8> {
    file(2, kernel_headers()[0].3, &kernel_headers())
}

fn plan<'a>(
    image: &'a Image<'_>,
    physical_end: u64,
    huge_pages: bool,
    framebuffer: Option<Span>,
) -> Plan<'a> {
    Plan { physical_end, huge_pages, framebuffer, image, trampoline: TRAMPOLINE }
}

#[test]
fn the_kernel_sees_what_is_promised() {
    let kernel = kernel();
    let image = Image::parse(&kernel).unwrap();
    let framebuffer = Span::new(0x80_0010_0000, 0x30_0000);
    for huge_pages in [false, true] {
        let plan = plan(&image, 5 << 30, huge_pages, Some(framebuffer));
        let mut tables = Tables::new(plan.tables());
        let root = plan.build(&mut tables, 0x20_0000, 0x80_0000).unwrap();
        let walk = |address| tables.walk(root, address);
        let data =
            |physical, page| Some(Leaf { physical, writable: true, executable: false, page });

        let size = if huge_pages { 1 << 30 } else { 2 << 20 };
        for physical in [0, 0x1234, 0xfee0_0000, (5 << 30) - 1] {
            assert_eq!(walk(PHYSICAL_MEMORY_OFFSET + physical), data(physical, size));
        }
        assert_eq!(walk(PHYSICAL_MEMORY_OFFSET + (5 << 30)), None);
        for physical in [framebuffer.start, framebuffer.end - 1] {
            assert_eq!(walk(PHYSICAL_MEMORY_OFFSET + physical), data(physical, 2 << 20));
        }

        let base = image.span.start;
        let code = Leaf { physical: 0x20_0010, writable: false, executable: true, page: PAGE };
        assert_eq!(walk(base + 0x10), Some(code));
        let constants =
            Leaf { physical: 0x20_3000, writable: false, executable: false, page: PAGE };
        assert_eq!(walk(base + 0x3000), Some(constants));
        assert_eq!(walk(base + 0x9fff), data(0x20_9fff, PAGE));
        assert_eq!(walk(base - 1), None);
        assert_eq!(walk(base + 0xa000), None);

        assert_eq!(walk(STACK_BOTTOM), data(0x80_0000, PAGE));
        assert_eq!(walk(STACK_BOTTOM - 1), None);
        assert_eq!(walk(STACK_BOTTOM + STACK_LENGTH), None);

        let jump = Leaf { physical: TRAMPOLINE, writable: false, executable: true, page: PAGE };
        assert_eq!(walk(TRAMPOLINE), Some(jump));
        assert_eq!(walk(TRAMPOLINE - 1), None);
        assert_eq!(walk(TRAMPOLINE + PAGE), None);
    }
}

#[test]
fn the_mapping_ends_after_ram() {
    assert_eq!(physical_end(0), 4 << 30);
    assert_eq!(physical_end((4 << 30) + 1), 5 << 30);
    assert_eq!(physical_end(u64::MAX), PHYSICAL_LIMIT);
}

#[test]
fn an_image_across_boundaries_takes_every_table() {
    // 20 KiB below a 1 GiB boundary: two page directories and two page tables for ten pages.
    let shift = (1 << 30) - 0x10_5000;
    let mut headers = kernel_headers();
    headers.iter_mut().filter(|header| header.5 != 0).for_each(|header| header.3 += shift);
    let kernel = file(2, headers[0].3, &headers);
    let image = Image::parse(&kernel).unwrap();
    for (end, huge_pages) in [(4 << 30, false), (4 << 30, true), (513 << 30, true)] {
        let plan = plan(&image, end, huge_pages, None);
        let mut tables = Tables::new(plan.tables());
        plan.build(&mut tables, 0x20_0000, 0x80_0000).unwrap();
        assert_eq!(tables.tables.len() as u64, plan.tables());
    }
}

#[test]
fn a_missing_table_is_an_error() {
    let kernel = kernel();
    let image = Image::parse(&kernel).unwrap();
    let plan = plan(&image, 4 << 30, false, None);
    let mut tables = Tables::new(9);
    let error = plan.build(&mut tables, 0x20_0000, 0x80_0000).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { .. }));
}

#[test]
fn the_arena_avoids_what_is_taken() {
    let kernel = kernel();
    let image = Image::parse(&kernel).unwrap();
    let plan = plan(&image, 4 << 30, false, None);
    let mut map = MemoryMap::new();
    map.push(Span::new(0, 0x9_f000), 1).unwrap();
    map.push(Span::new(0x10_0000, 0x400_0000), 1).unwrap();
    let free = Arena::place(&map, &[], &plan).unwrap();
    assert_eq!(free.image.start, 0x20_0000);
    let module = Span::new(0x10_0000, 0x12_3456);
    let arena = Arena::place(&map, &[module], &plan).unwrap();
    assert_eq!(arena.image.start, 0x40_0000);
    assert_eq!(arena.image.length(), image.span.length());
    assert!(arena.stack.start >= arena.image.end && arena.boot_info.start >= arena.stack.end);
    assert!(arena.tables.start >= arena.boot_info.end && arena.span().end == arena.tables.end);
    let all = Span::new(0x10_0000, 0x400_0000);
    let none = Arena::place(&map, &[all], &plan).unwrap_err();
    assert_eq!(none, Error::OutOfMemory { bytes: arena.span().length() });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// The bound on tables holds for any amount of RAM and any framebuffer, and no mapping clashes.
    #[test]
    fn the_bound_on_tables_holds(
        ram in 0u64..(6 << 40),
        start in 0u64..PHYSICAL_LIMIT,
        length in 1u64..(64 << 20),
        low in any::<bool>(),
        huge_pages in any::<bool>(),
    ) {
        // Without 1 GiB pages a large machine takes thousands of tables; a smaller one will do.
        let ram = if huge_pages { ram } else { ram >> 9 };
        let kernel = kernel();
    let image = Image::parse(&kernel).unwrap();
        let start = if low { start >> 13 } else { start };
        let plan = plan(&image, physical_end(ram), huge_pages, Some(Span::new(start, length)));
        let mut tables = Tables::new(plan.tables());
        let root = plan.build(&mut tables, 0x20_0000, 0x80_0000);
        prop_assert!(root.is_ok(), "{root:?}");
        let last = (start + length).min(PHYSICAL_LIMIT) - 1;
        for physical in [start, last] {
            let leaf = tables.walk(root.unwrap(), PHYSICAL_MEMORY_OFFSET + physical);
            prop_assert_eq!(leaf.map(|leaf| leaf.physical), Some(physical));
        }
    }
}
