//! What the kernel tells the root task: the hypervisor information page and the log.

/// First word of a [`Hip`].
pub const MAGIC: u64 = u64::from_le_bytes(*b"FerriteH");

/// Changes whenever anything in this crate changes its meaning.
pub const VERSION: u64 = 1;

/// Memory regions a [`Hip`] can list.
pub const MAX_REGIONS: usize = 96;

/// The hypervisor information page, at [`crate::layout::ROOT_HIP`].
#[derive(Clone, Debug)]
#[repr(C, align(4096))]
pub struct Hip {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`VERSION`].
    pub version: u64,
    /// Time-stamp-counter ticks in a second.
    pub tsc_hz: u64,
    /// CPUs that run.
    pub cpus: u64,
    /// Interrupt semaphores from [`crate::cap::root::INTERRUPTS`] on.
    pub interrupts: u64,
    /// Physical address of the boot bundle; a multiple of 4096.
    pub bundle_base: u64,
    /// Its length in bytes.
    pub bundle_len: u64,
    /// Physical address of the ACPI root pointer, 0 if there is none. It may lie in memory that the kernel keeps.
    pub acpi_rsdp: u64,
    /// Pages of kernel memory in the root task's quota at its start.
    pub quota: u64,
    /// What virtual CPUs can do: [`features`].
    pub features: u64,
    /// The screen as the loader left it.
    pub framebuffer: Framebuffer,
    /// The first 36 bytes of the ACPI root pointer (ACPI 6.5 5.2.5.3); zeros if there is none.
    pub acpi_root: [u8; 40],
    /// Number of valid `regions`.
    pub region_count: u64,
    /// Physical memory, sorted, not overlapping. What the kernel keeps is not listed.
    pub regions: [Region; MAX_REGIONS],
}

/// Bits of [`Hip::features`].
pub mod features {
    /// Guest memory can be mapped with 1 GiB pages.
    pub const GUEST_1G_PAGES: u64 = 1 << 0;
    /// Guests can use XSAVE and what depends on it.
    pub const XSAVE: u64 = 1 << 1;
    /// The kernel was built to count control-structure and MSR accesses.
    pub const COUNTERS: u64 = 1 << 2;
    /// Exits due to an instruction tell its length in [`crate::vcpu::VcpuState::inst_len`]. Without it, that is 0 but for
    /// [`crate::vcpu::Exit::Port`], and a reply with [`crate::vcpu::Groups::DONE`] has to bring the length.
    pub const INSTRUCTION_LENGTH: u64 = 1 << 3;
    /// Exits due to an access to guest memory tell its linear address ([`crate::vcpu::MemoryAccess::LINEAR_VALID`]).
    pub const LINEAR_ADDRESS: u64 = 1 << 4;
}

/// The machine's screen: a linear frame buffer, whatever the order of its colours, or the text screen of a PC, if it has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Framebuffer {
    /// Physical address.
    pub base: u64,
    /// Bytes from one line to the next.
    pub stride: u32,
    /// Pixels in a line; characters on a text screen.
    pub width: u32,
    /// Lines of pixels, or of characters.
    pub height: u32,
    /// Bytes in a pixel; 0 for a text screen.
    pub bytes_per_pixel: u32,
}

/// A range of physical memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Region {
    /// First byte; page-aligned.
    pub base: u64,
    /// Bytes; page-aligned.
    pub len: u64,
    /// [`RegionKind`] as a number.
    pub kind: u64,
}

/// What a [`Region`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum RegionKind {
    /// Free memory.
    Free = 1,
    /// The boot bundle.
    Bundle = 2,
    /// Firmware tables and whatever else the memory map names without calling it free.
    Reserved = 3,
}

/// Bytes of text in a [`LogRing`].
pub const LOG_SIZE: usize = 4 * 4096 - 64;

/// Indexes of [`LogRing::counters`].
pub mod counter {
    /// Reads of control-structure fields.
    pub const CONTROL_READ: usize = 0;
    /// Writes of control-structure fields.
    pub const CONTROL_WRITE: usize = 1;
    /// Reads of model-specific registers.
    pub const MSR_READ: usize = 2;
    /// Writes of model-specific registers.
    pub const MSR_WRITE: usize = 3;
}

/// The kernel's log, at [`crate::layout::ROOT_LOG`]: text in a ring.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct LogRing {
    /// Bytes ever written; the next one goes to `text[written % LOG_SIZE]`.
    pub written: core::sync::atomic::AtomicU64,
    /// Interrupts that nobody wanted, of all CPUs.
    pub spurious: core::sync::atomic::AtomicU64,
    /// Interrupts after which a line that is not level-triggered was held back, because whoever serves it was far behind.
    pub storms: core::sync::atomic::AtomicU64,
    /// Non-maskable interrupts, of all CPUs.
    pub nmis: core::sync::atomic::AtomicU64,
    /// How often the kernel did what [`counter`] names, if [`features::COUNTERS`] says that it counts.
    pub counters: [core::sync::atomic::AtomicU64; 4],
    /// The ring.
    pub text: [core::sync::atomic::AtomicU8; LOG_SIZE],
}

impl LogRing {
    /// An empty log.
    #[must_use]
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self {
            written: core::sync::atomic::AtomicU64::new(0),
            spurious: core::sync::atomic::AtomicU64::new(0),
            storms: core::sync::atomic::AtomicU64::new(0),
            nmis: core::sync::atomic::AtomicU64::new(0),
            counters: [const { core::sync::atomic::AtomicU64::new(0) }; 4],
            text: [const { core::sync::atomic::AtomicU8::new(0) }; LOG_SIZE],
        }
    }
}

const _: () = assert!(size_of::<Hip>() == 4096);
const _: () = assert!(size_of::<LogRing>() == 4 * 4096);
