//! From a hand-off to the first instruction of the kernel.

use core::convert::Infallible;
use core::ptr::{self, addr_of, addr_of_mut};

use boot::address_space::{PHYSICAL_MEMORY_OFFSET, Plan, STACK_BOTTOM, physical_end};
use boot::arena::{Arena, REGIONS_OFFSET, STACK_LENGTH};
use boot::elf::Image;
use boot::error::Error;
use boot::handoff::Handoff;
use boot::paging::TableMemory;
use boot::payload::{self, Payload};
use boot::regions::{self, MAX_REGIONS, MAX_TAKEN};
use boot::span::Span;
use bootloader_api::BootInfo;
use bootloader_api::info::{FrameBuffer, MemoryRegion, Optional};

use crate::physical::{ArenaTables, IdentityMap};
use crate::{cpu, trampoline};

unsafe extern "C" {
    static __loader_start: u8;
    static __loader_end: u8;
    static mut first_pml4: [u64; 512];
}

/// Loads the kernel and enters it; returns only the reason why that is impossible.
///
/// # Errors
/// Everything that [`Error`] names.
pub fn start_kernel(memory: &IdentityMap, handoff: &Handoff<'_>) -> Result<Infallible, Error> {
    let features = cpu::features();
    if !features.execute_disable {
        return Err(Error::NoExecuteDisable);
    }
    let payload = payload::select(memory, handoff.modules())?;
    let file = payload::bytes(memory, payload.kernel)?;
    let image = Image::parse(file)?;

    let limit = features.physical_limit();
    let framebuffer = handoff.framebuffer.filter(|screen| screen.span().end <= limit);
    let plan = Plan {
        physical_end: physical_end(handoff.memory.end_of_ram().min(limit)),
        huge_pages: features.huge_pages,
        framebuffer: framebuffer.map(|screen| screen.span()),
        image: &image,
        trampoline: trampoline::address(),
    };
    let mut taken = taken_before(handoff);
    let arena = Arena::place(&handoff.memory, &taken, &plan)?;
    place_image(&image, &arena);
    // SAFETY: the arena is free memory below 4 GiB, and `place_image` has cleared all of it.
    let mut tables = unsafe { ArenaTables::new(arena.tables) };
    let root = plan.build(&mut tables, arena.image.start, arena.stack.start)?;
    cpu::enable_execute_disable();
    share_upper_half(&tables, root);

    taken[ARENA] = Span { start: arena.image.start, end: tables.end() };
    let list = write_regions(handoff, &taken, limit, &arena)?;
    let mut info = BootInfo::new(list.into());
    info.physical_memory_offset = Optional::Some(PHYSICAL_MEMORY_OFFSET);
    info.rsdp_addr = handoff.rsdp.into();
    info.framebuffer = framebuffer
        .map(|screen| {
            let start = PHYSICAL_MEMORY_OFFSET + screen.address;
            // SAFETY: the address space maps it there; the loader does not draw any more.
            unsafe { FrameBuffer::new(start, screen.info) }
        })
        .into();
    describe_payload(&mut info, payload, &image);

    let boot_info = (PHYSICAL_MEMORY_OFFSET + arena.boot_info.start) as *mut BootInfo;
    // SAFETY: the place is mapped through the shared upper half, large enough, aligned to a page,
    // and used for nothing else.
    unsafe { boot_info.write(info) };
    // SAFETY: `root` was filled by `Plan::build`, which maps all that is passed here.
    unsafe {
        trampoline::enter_kernel(root, STACK_BOTTOM + STACK_LENGTH, boot_info as u64, image.entry)
    }
}

/// Index of the arena in the list of taken memory.
const ARENA: usize = 0;

/// What must not be overwritten: the loader, the boot information, the modules.
fn taken_before(handoff: &Handoff<'_>) -> [Span; MAX_TAKEN] {
    let mut taken = [Span::default(); MAX_TAKEN];
    let loader =
        Span { start: addr_of!(__loader_start) as u64, end: addr_of!(__loader_end) as u64 };
    let modules = handoff.modules().iter().map(|module| module.span);
    let spans = [loader, handoff.keep].into_iter().chain(modules);
    taken.iter_mut().skip(ARENA + 1).zip(spans).for_each(|(slot, span)| *slot = span);
    taken
}

/// Clears the arena and copies the segments to its start.
fn place_image(image: &Image<'_>, arena: &Arena) {
    let whole = arena.span();
    // SAFETY: the arena is free memory below 4 GiB, outside of all that anything refers to.
    unsafe { ptr::write_bytes(whole.start as *mut u8, 0, whole.length() as usize) };
    for segment in image.segments() {
        let target = arena.image.start + (segment.span.start - image.span.start);
        let source = segment.file;
        // SAFETY: the image has room for every segment, and a segment's part of the file is not
        // larger than the segment (`Image::parse`). The file is a module, outside of the arena.
        unsafe { ptr::copy_nonoverlapping(source.as_ptr(), target as *mut u8, source.len()) };
    }
}

/// Makes the upper half of the kernel's address space visible to the loader, so that what is
/// written for the kernel is written where the kernel sees it.
fn share_upper_half(tables: &ArenaTables, root: u64) {
    for index in 256..512 {
        let entry = tables.entry(root, index);
        // SAFETY: the entries were not present, so that nothing of the loader is mapped by them
        // and no stale translation exists.
        unsafe { (addr_of_mut!(first_pml4) as *mut u64).add(index).write_volatile(entry) };
    }
}

/// The kernel's memory map, in the arena, as the kernel sees it.
fn write_regions(
    handoff: &Handoff<'_>,
    taken: &[Span],
    limit: u64,
    arena: &Arena,
) -> Result<&'static mut [MemoryRegion], Error> {
    let start = PHYSICAL_MEMORY_OFFSET + arena.boot_info.start + REGIONS_OFFSET;
    let first = start as *mut MemoryRegion;
    for index in 0..MAX_REGIONS {
        // SAFETY: `BOOT_INFO_LENGTH` has room for this many.
        unsafe { first.add(index).write(MemoryRegion::empty()) };
    }
    // SAFETY: mapped, aligned, initialised above, and referred to by nothing else, ever.
    let list = unsafe { core::slice::from_raw_parts_mut(first, MAX_REGIONS) };
    let count = regions::build(&handoff.memory, taken, limit, list)?;
    Ok(&mut list[..count])
}

/// The fields about the kernel and the bundle.
fn describe_payload(info: &mut BootInfo, payload: Payload, image: &Image<'_>) {
    if let Some(bundle) = payload.bundle {
        info.ramdisk_addr = Optional::Some(PHYSICAL_MEMORY_OFFSET + bundle.start);
        info.ramdisk_len = bundle.length();
    }
    info.kernel_addr = payload.kernel.start;
    info.kernel_len = payload.kernel.length();
    info.kernel_image_offset = image.span.start;
    info.kernel_stack_bottom = STACK_BOTTOM;
    info.kernel_stack_len = STACK_LENGTH;
}
