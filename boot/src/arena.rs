//! The one stretch of memory in which the loader makes everything the kernel starts with.

use bootloader_api::BootInfo;
use bootloader_api::info::MemoryRegion;

use crate::address_space::{PHYSICAL_LIMIT, Plan};
use crate::error::Error;
use crate::handoff::MemoryMap;
use crate::regions::{self, MAX_REGIONS};
use crate::span::{PAGE, Span, align_up};

/// Bytes of the kernel's first stack.
pub const STACK_LENGTH: u64 = 128 << 10;

/// Bytes for the `BootInfo` and, from [`REGIONS_OFFSET`] on, the memory regions it points to.
pub const BOOT_INFO_LENGTH: u64 =
    align_up(REGIONS_OFFSET + (MAX_REGIONS * size_of::<MemoryRegion>()) as u64, PAGE);

/// Distance of the memory regions from the `BootInfo`.
pub const REGIONS_OFFSET: u64 = align_up(size_of::<BootInfo>() as u64, 64);

/// Alignment of the arena, and so of the kernel image: 2 MiB.
const ALIGNMENT: u64 = 2 << 20;

/// Memory below is left to firmware and to whoever starts the other processors.
const LOWEST: u64 = 1 << 20;

/// The loader's own page tables reach this far.
const HIGHEST: u64 = 4 << 30;

/// Physical addresses of the arena's parts, in ascending order without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arena {
    /// The kernel image, in one piece, 2 MiB aligned.
    pub image: Span,
    /// The kernel's first stack.
    pub stack: Span,
    /// The `BootInfo` and the memory regions.
    pub boot_info: Span,
    /// Room for page tables; what is left over is given back.
    pub tables: Span,
}

impl Arena {
    /// Finds room for `plan` in free RAM outside of what is `taken`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if there is none; errors of [`regions::build`].
    pub fn place(map: &MemoryMap, taken: &[Span], plan: &Plan<'_>) -> Result<Self, Error> {
        let mut free = [MemoryRegion::empty(); MAX_REGIONS];
        let count = regions::build(map, taken, PHYSICAL_LIMIT, &mut free)?;
        let free = free.get(..count).unwrap_or(&[]);
        let arena = Self::at(0, plan);
        let bytes = arena.tables.end;
        let window = Span { start: LOWEST, end: HIGHEST };
        let start = regions::find_free(free, bytes, ALIGNMENT, window);
        Ok(Self::at(start.ok_or(Error::OutOfMemory { bytes })?, plan))
    }

    fn at(start: u64, plan: &Plan<'_>) -> Self {
        let image = Span::new(start, plan.image.span.length());
        let stack = Span::new(image.end, STACK_LENGTH);
        let boot_info = Span::new(stack.end, BOOT_INFO_LENGTH);
        let tables = Span::new(boot_info.end, plan.tables() * PAGE);
        Self { image, stack, boot_info, tables }
    }

    /// Everything up to the last part.
    pub fn span(&self) -> Span {
        Span { start: self.image.start, end: self.tables.end }
    }
}
