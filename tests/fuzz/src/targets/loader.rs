//! What the loader does with a hand-over, whichever boot protocol it came by.

use std::collections::BTreeMap;

use boot::address_space::{PHYSICAL_LIMIT, Plan, physical_end};
use boot::arena::Arena;
use boot::elf::Image;
use boot::error::Error;
use boot::handoff::Handoff;
use boot::memory::PhysicalMemory;
use boot::paging::TableMemory;
use boot::payload;
use boot::regions::{self, MAX_REGIONS, MAX_TAKEN};
use boot::span::Span;
use bootloader_api::info::{MemoryRegion, MemoryRegionKind};

use super::elf;

/// Physical address of the input.
pub const BASE: u64 = 0x10_0000;

/// Physical memory that holds the input and nothing else.
pub struct Memory<'a>(pub &'a [u8]);

impl PhysicalMemory for Memory<'_> {
    fn bytes(&self, address: u64, length: u64) -> Option<&[u8]> {
        let start = usize::try_from(address.checked_sub(BASE)?).ok()?;
        self.0.get(start..start.checked_add(usize::try_from(length).ok()?)?)
    }
}

/// Page tables in a map.
struct Tables {
    tables: BTreeMap<u64, Box<[u64; 512]>>,
    limit: u64,
}

impl TableMemory for Tables {
    fn allocate(&mut self) -> Result<u64, Error> {
        let next = self.tables.len() as u64;
        assert!(next < self.limit, "more tables than were planned");
        self.tables.insert(next << 12, Box::new([0; 512]));
        Ok(next << 12)
    }

    fn entry(&self, table: u64, index: usize) -> u64 {
        self.tables[&table][index]
    }

    fn set_entry(&mut self, table: u64, index: usize, value: u64) {
        self.tables.get_mut(&table).expect("a table")[index] = value;
    }
}

/// Goes on from a hand-over as far as the loader does without a machine.
pub fn start_kernel(memory: &Memory<'_>, handoff: &Handoff<'_>) {
    let taken = taken(handoff);
    let mut list = [MemoryRegion::empty(); MAX_REGIONS];
    if let Ok(count) = regions::build(&handoff.memory, &taken, PHYSICAL_LIMIT, &mut list) {
        check_regions(&list[..count], &taken);
    }
    let Ok(payload) = payload::select(memory, handoff.modules()) else { return };
    let Ok(file) = payload::bytes(memory, payload.kernel) else { return };
    let Ok(image) = Image::parse(file) else { return };
    elf::check(&image);

    let physical_end = physical_end(handoff.memory.end_of_ram());
    let framebuffer = handoff.framebuffer.map(|screen| screen.span());
    let framebuffer = framebuffer.filter(|span| span.end <= PHYSICAL_LIMIT);
    let plan = Plan {
        physical_end,
        // Tables with small pages for terabytes are sound, but take a while.
        huge_pages: physical_end > 8 << 30,
        framebuffer,
        image: &image,
        trampoline: 0x20_0000,
    };
    let Ok(arena) = Arena::place(&handoff.memory, &taken, &plan) else { return };
    let place = arena.span();
    assert!(!taken.iter().any(|span| span.overlaps(place)), "the arena overwrites something");
    assert!(place.end <= 4 << 30 && arena.tables.length() == plan.tables() << 12);
    let is_free = |region: &MemoryRegion| {
        region.kind == MemoryRegionKind::Usable
            && Span { start: region.start, end: region.end }.contains(place)
    };
    assert!(list.iter().any(is_free), "the arena is not in free memory");
    // Mapping gigabytes of screen in small pages would take long here, and prove nothing.
    if framebuffer.is_none_or(|span| span.length() < 1 << 30) {
        let mut tables = Tables { tables: BTreeMap::new(), limit: plan.tables() };
        plan.build(&mut tables, arena.image.start, arena.stack.start).expect("room for tables");
    }
}

/// What must not be overwritten.
fn taken(handoff: &Handoff<'_>) -> [Span; MAX_TAKEN] {
    let mut taken = [Span::default(); MAX_TAKEN];
    let modules = handoff.modules().iter().map(|module| module.span);
    let spans = [Span::new(0x20_0000, 0x1_0000), handoff.keep].into_iter().chain(modules);
    taken.iter_mut().zip(spans).for_each(|(slot, span)| *slot = span);
    taken
}

/// Sorted, page aligned, without overlaps, and nothing that is taken is free.
fn check_regions(regions: &[MemoryRegion], taken: &[Span]) {
    let mut end = 0;
    for region in regions {
        assert!(region.start >= end && region.end > region.start);
        assert!(region.start % 4096 == 0 && region.end % 4096 == 0);
        end = region.end;
        if region.kind == MemoryRegionKind::Usable {
            let span = Span { start: region.start, end: region.end };
            assert!(span.end <= PHYSICAL_LIMIT && !taken.iter().any(|other| other.overlaps(span)));
        }
    }
}
