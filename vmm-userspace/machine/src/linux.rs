//! Loading a Linux kernel by its boot protocol (Documentation/arch/x86/boot.rst), entered in 64-bit mode.
//!
//! ```text
//! 6000 GDT   7000 boot_params   9000 page tables   2_0000 command line   pref_address kernel   top: initrd
//! ```

mod boot_params;
mod header;

use abi::vcpu::{Segment, VcpuState};
use core::fmt;

pub use header::Header;

use crate::memory::{GuestMemory, MIB, MemoryMap, NotRam};

/// Where the global descriptor table goes.
const GDT: u64 = 0x6000;
/// Where the zero page goes.
const BOOT_PARAMS: u64 = 0x7000;
/// Where the identity-mapping page tables go: one page, one page, four pages.
const TABLES: u64 = 0x9000;
/// Where the command line goes.
const COMMAND_LINE: u64 = 0x2_0000;
/// Command lines end here at the latest, whatever the kernel could take.
const COMMAND_LINE_MAX: u64 = 0x1_0000;

/// What to boot.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// The bzImage.
    pub kernel: &'a [u8],
    /// The initial RAM disk.
    pub initrd: Option<&'a [u8]>,
    /// The command line, without a terminating zero.
    pub command_line: &'a str,
    /// Guest-physical address of the ACPI root pointer.
    pub rsdp: u64,
}

/// Where things went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Guest-physical address of the kernel.
    pub kernel: u64,
    /// Guest-physical address and length of the initrd; zeros if there is none.
    pub initrd: (u64, u64),
}

/// Why an image cannot be booted. The caller adds the file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The file is shorter than the header.
    TooShort {
        /// Bytes in the file.
        len: u64,
        /// Bytes the header needs.
        needed: u64,
    },
    /// No boot flag or no "HdrS".
    NotBzImage {
        /// What is at 0x1fe instead of 0xaa55.
        boot_flag: u16,
        /// What is at 0x202 instead of "HdrS".
        magic: u32,
    },
    /// Boot protocol below 2.12.
    OldProtocol {
        /// The version, major number in the high byte.
        version: u16,
    },
    /// The kernel has no 64-bit entry point.
    No64BitEntry,
    /// The header promises more than the file holds.
    Truncated {
        /// Bytes in the file.
        len: u64,
        /// Bytes the header promises.
        needed: u64,
    },
    /// The kernel does not fit into the memory below the hole.
    KernelTooLarge {
        /// Lowest address it can be loaded at.
        at: u64,
        /// Bytes it needs from there while it unpacks.
        needed: u64,
        /// End of the memory.
        memory: u64,
    },
    /// The initrd does not fit between the kernel and the end of memory.
    InitrdTooLarge {
        /// Bytes of the initrd.
        len: u64,
        /// Bytes that are free for it.
        available: u64,
    },
    /// The command line is longer than the kernel takes.
    CommandLineTooLong {
        /// Bytes of the command line.
        len: u64,
        /// Bytes the kernel takes.
        max: u64,
    },
    /// Guest memory could not be written where the memory map says it is.
    NotRam {
        /// The guest-physical address.
        address: u64,
    },
}

impl From<NotRam> for Error {
    fn from(NotRam(address): NotRam) -> Self {
        Self::NotRam { address }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TooShort { len, needed } => write!(
                f,
                "not a Linux kernel: {len} bytes, but the header of a bzImage alone takes {needed}"
            ),
            Self::NotBzImage { boot_flag, magic } => write!(
                f,
                "not a Linux bzImage: boot flag {boot_flag:#06x} instead of 0xaa55, \
                 magic {magic:#010x} instead of 0x53726448 (\"HdrS\")"
            ),
            Self::OldProtocol { version } => write!(
                f,
                "boot protocol {}.{:02} is too old, 2.12 (Linux 3.8) is needed",
                version >> 8,
                version & 0xff
            ),
            Self::No64BitEntry => f.write_str("the kernel has no 64-bit entry point"),
            Self::Truncated { len, needed } => write!(
                f,
                "the kernel is truncated: its header promises {needed} bytes, the file has {len}"
            ),
            Self::KernelTooLarge { at, needed, memory } => write!(
                f,
                "the kernel does not fit: it needs {} KiB from address {at:#x} on, but memory \
                 below 4 GiB ends at {memory:#x} ({} MiB); give the partition more memory",
                needed.div_ceil(1024),
                memory >> 20
            ),
            Self::InitrdTooLarge { len, available } => write!(
                f,
                "the initrd does not fit: it has {} KiB, {} KiB are free above the kernel; \
                 give the partition more memory",
                len.div_ceil(1024),
                available >> 10
            ),
            Self::CommandLineTooLong { len, max } => {
                write!(f, "the command line has {len} bytes, the kernel takes {max}")
            }
            Self::NotRam { address } => write!(f, "no guest memory at {address:#x}"),
        }
    }
}

impl core::error::Error for Error {}

/// Puts the kernel, the initrd and everything the kernel expects into guest memory.
///
/// # Errors
/// See [`Error`]. Guest memory may then have been written in part.
pub fn load(
    image: &Image<'_>,
    map: &MemoryMap,
    memory: &mut impl GuestMemory,
) -> Result<Loaded, Error> {
    let header = Header::parse(image.kernel)?;
    let len = image.command_line.len() as u64;
    let max = u64::from(header.cmdline_size).min(COMMAND_LINE_MAX - 1);
    if len > max {
        return Err(Error::CommandLineTooLong { len, max });
    }
    let kernel = place_kernel(&header, map)?;
    let kernel_end = kernel + u64::from(header.init_size);
    let initrd = match image.initrd {
        Some(bytes) if !bytes.is_empty() => {
            (place_initrd(&header, map, kernel_end, bytes.len() as u64)?, bytes)
        }
        _ => (0, &[][..]),
    };
    memory.write(kernel, header.code)?;
    memory.write(initrd.0, initrd.1)?;
    memory.write(COMMAND_LINE, image.command_line.as_bytes())?;
    memory.write(COMMAND_LINE + len, &[0])?;
    let loaded = Loaded { kernel, initrd: (initrd.0, initrd.1.len() as u64) };
    let params = boot_params::build(&header, &loaded, COMMAND_LINE, image.rsdp, map);
    memory.write(BOOT_PARAMS, &params)?;
    write_gdt(memory)?;
    write_tables(memory)?;
    Ok(loaded)
}

/// The preferred address, or for a relocatable kernel without one the lowest aligned one above 1 MiB. Wherever it is loaded, it
/// unpacks itself at the preferred address or above, so there is no use in a lower one (Linux boot protocol, `init_size`).
fn place_kernel(header: &Header<'_>, map: &MemoryMap) -> Result<u64, Error> {
    let needed = u64::from(header.init_size).max(header.code.len() as u64);
    let preferred = header.pref_address;
    let at = if header.relocatable {
        // An address that cannot be aligned is far outside of memory as it is.
        let alignment = u64::from(header.kernel_alignment.max(1));
        preferred.max(MIB).checked_next_multiple_of(alignment).unwrap_or(preferred)
    } else {
        preferred
    };
    let fits = at >= MIB && at.checked_add(needed).is_some_and(|end| end <= map.low_end());
    if fits { Ok(at) } else { Err(Error::KernelTooLarge { at, needed, memory: map.low_end() }) }
}

/// As high as the kernel and the memory allow, on a page boundary.
fn place_initrd(
    header: &Header<'_>,
    map: &MemoryMap,
    kernel_end: u64,
    len: u64,
) -> Result<u64, Error> {
    let end = map.low_end().min(u64::from(header.initrd_addr_max) + 1);
    let floor = kernel_end.next_multiple_of(0x1000);
    let at = end.checked_sub(len).map(|at| at & !0xfff).filter(|&at| at >= floor);
    at.ok_or(Error::InitrdTooLarge { len, available: end.saturating_sub(floor) })
}

/// Null, unused, 64-bit code at 0x10, data at 0x18, as the boot protocol wants.
fn write_gdt(memory: &mut impl GuestMemory) -> Result<(), Error> {
    let gdt = [0, 0, 0x00af_9b00_0000_ffff_u64, 0x00cf_9300_0000_ffff];
    for (at, descriptor) in (GDT..).step_by(8).zip(gdt) {
        memory.write(at, &descriptor.to_le_bytes())?;
    }
    Ok(())
}

/// Identity-maps the first 4 GiB with 2 MiB pages.
fn write_tables(memory: &mut impl GuestMemory) -> Result<(), Error> {
    let mut page = [0; 0x1000];
    let mut fill = |at: u64, count: usize, first: u64, step: u64| {
        page.fill(0);
        for (i, slot) in page.chunks_exact_mut(8).take(count).enumerate() {
            slot.copy_from_slice(&(first + step * i as u64).to_le_bytes());
        }
        memory.write(at, &page)
    };
    fill(TABLES, 1, (TABLES + 0x1000) | 3, 0)?;
    fill(TABLES + 0x1000, 4, (TABLES + 0x2000) | 3, 0x1000)?;
    for gib in 0..4 {
        fill(TABLES + 0x2000 + gib * 0x1000, 512, gib << 30 | 0x83, 2 << 20)?;
    }
    Ok(())
}

impl Loaded {
    /// The state in which the kernel is entered: 64-bit mode, interrupts off, RSI = the zero page. `state` holds
    /// the power-on state and keeps what the protocol does not name.
    pub fn enter(&self, state: &mut VcpuState) {
        let data = Segment { selector: 0x18, attr: 0xc93, limit: u32::MAX, base: 0 };
        state.gpr = abi::vcpu::Gprs { rsi: BOOT_PARAMS, ..Default::default() };
        state.rip = self.kernel + 0x200;
        state.rflags = 2;
        state.cr0 = 0x8000_0011;
        state.cr3 = TABLES;
        state.cr4 = 0x20;
        state.efer = 0x500;
        state.cs = Segment { selector: 0x10, attr: 0xa9b, limit: u32::MAX, base: 0 };
        state.ss = data;
        state.ds = data;
        state.es = data;
        state.fs = data;
        state.gs = data;
        state.tr = Segment { selector: 0, attr: 0x8b, limit: 0xffff, base: 0 };
        state.gdtr.base = GDT;
        state.gdtr.limit = 0x1f;
        state.idtr.base = 0;
        state.idtr.limit = 0;
    }
}
