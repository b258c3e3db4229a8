//! The few addresses that are fixed in every host address space.

/// Bytes in a page.
pub const PAGE_SIZE: u64 = 4096;
/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;

/// User mappings and UTCBs lie below this address; the kernel's own user pages lie above it.
pub const USER_TOP: u64 = 0x7fff_ff00_0000;

/// The page through which a task enters the kernel: `call HYPERCALL_PAGE`.
///
/// The kernel maps it into every host address space, read-only and executable, with the
/// instruction that the processor at hand wants.
pub const HYPERCALL_PAGE: u64 = 0x7fff_fff0_0000;

/// Where the root task finds its [`crate::hip::Hip`], read-only.
pub const ROOT_HIP: u64 = 0x7fff_ffe0_0000;

/// Where the root task's first thread has its UTCB.
pub const ROOT_UTCB: u64 = 0x7fff_ffe1_0000;

/// Where the root task finds the kernel's log ring ([`crate::hip::LogRing`]), read-only.
pub const ROOT_LOG: u64 = 0x7fff_ffe2_0000;
