use super::pool::Pool;
use crate::paging::{Cursor, Extent, Run, Source};
use crate::physical::PhysicalSpace;
use abi::cap::MemRights;
use proptest::prelude::*;

fn at(space: &PhysicalSpace, page: u64) -> Run {
    let mut cursor = Cursor::NONE;
    space.at(&Pool::new(0), &mut cursor, page, 1)
}

#[test]
fn only_whole_pages_are_ram_and_every_touched_page_is_kept() {
    let mut space = PhysicalSpace::new(36);
    space.add_ram(0x800, 0x3000).unwrap();
    let device = MemRights::RW.union(MemRights::UNCACHED);
    assert_eq!(at(&space, 0), Ok(Extent { pa: 0, pages: 1, rights: device }));
    let ram = Extent { pa: 0x1000, pages: 2, rights: MemRights::RWX };
    assert_eq!(at(&space, 1), Ok(ram));
    space.keep(0x1fff, 2).unwrap();
    assert_eq!(at(&space, 1), Err(2));
    assert_eq!(at(&space, 1 << 24), Err(1));
    assert_eq!(at(&space, u64::MAX), Err(1));
}

#[test]
fn what_does_not_fit_is_refused_whole() {
    let mut space = PhysicalSpace::new(39);
    let taken = (0..300).take_while(|i| space.keep(i << 14, 4096).is_ok()).count() as u64;
    assert!(taken >= 120, "{taken}");
    assert_eq!(at(&space, taken << 2), at(&PhysicalSpace::new(39), taken << 2));
    assert_eq!(at(&space, (taken - 1) << 2), Err(1));
}

proptest! {
    #[test]
    fn any_order_gives_the_same(
        ranges in prop::collection::vec((0..64_u64, 1..16_u64, any::<bool>()), 0..20),
        page in 0..96_u64,
    ) {
        let mut space = PhysicalSpace::new(39);
        for (base, len, keep) in &ranges {
            let (base, len) = (base << 12, len << 12);
            if *keep { space.keep(base, len) } else { space.add_ram(base, len) }.unwrap();
        }
        let kind = |page: u64| {
            let hit = |keep| {
                ranges.iter().any(|(base, len, k)| *k == keep && (*base..base + len).contains(&page))
            };
            if hit(true) { 2 } else { u8::from(hit(false)) }
        };
        let (found, pages) = match at(&space, page) {
            Err(pages) => (2, pages),
            Ok(extent) => {
                prop_assert_eq!(extent.pa, page << 12);
                (u8::from(extent.rights == MemRights::RWX), extent.pages)
            }
        };
        for page in page..(page + pages).min(200) {
            prop_assert_eq!(kind(page), found);
        }
    }
}
