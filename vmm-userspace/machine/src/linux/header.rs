//! The setup header of a bzImage.

use super::Error;

/// First byte of the setup header in the file and in the zero page.
pub(super) const START: usize = 0x1f1;
/// Bytes up to the end of the fields of protocol 2.12 (`handover_offset`).
const END: usize = 0x268;
const MAGIC: u32 = 0x5372_6448;

/// The fields that matter to a loader, and the code.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    /// The header itself, from [`START`] on, as it goes into the zero page.
    pub(super) bytes: &'a [u8],
    /// Protected-mode code and what it unpacks.
    pub code: &'a [u8],
    /// Protocol version.
    pub version: u16,
    /// Highest address the last byte of an initrd may have.
    pub initrd_addr_max: u32,
    /// Alignment of the load address of a relocatable kernel.
    pub kernel_alignment: u32,
    /// Whether the kernel may be loaded elsewhere than at its preferred address.
    pub relocatable: bool,
    /// Longest command line, without the terminating zero.
    pub cmdline_size: u32,
    /// Where the kernel wants to be.
    pub pref_address: u64,
    /// Bytes the kernel needs from its load address on until it can read the memory map.
    pub init_size: u32,
}

fn field<const N: usize>(file: &[u8], at: usize) -> [u8; N] {
    file.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

impl<'a> Header<'a> {
    /// Checks and reads the header of `file`.
    ///
    /// # Errors
    /// [`Error::TooShort`], [`Error::NotBzImage`], [`Error::OldProtocol`], [`Error::No64BitEntry`],
    /// [`Error::Truncated`].
    pub fn parse(file: &'a [u8]) -> Result<Self, Error> {
        let len = file.len() as u64;
        if file.len() < END {
            return Err(Error::TooShort { len, needed: END as u64 });
        }
        let word = |at| u16::from_le_bytes(field(file, at));
        let long = |at| u32::from_le_bytes(field(file, at));
        let [setup_sectors] = field(file, START);
        let (boot_flag, magic, version) = (word(0x1fe), long(0x202), word(0x206));
        if boot_flag != 0xaa55 || magic != MAGIC {
            return Err(Error::NotBzImage { boot_flag, magic });
        }
        if version < 0x20c {
            return Err(Error::OldProtocol { version });
        }
        // XLF_KERNEL_64.
        if word(0x236) & 1 == 0 {
            return Err(Error::No64BitEntry);
        }
        // Zero means four, for the sake of kernels from the last century.
        let sectors = if setup_sectors == 0 { 4 } else { u64::from(setup_sectors) };
        let setup = (sectors + 1) * 512;
        // The length is given in units of 16 bytes, so the last unit may be incomplete.
        let code = u64::from(long(0x1f4)) * 16;
        let needed = setup + code;
        if code == 0 || len + 15 < needed || len <= setup {
            return Err(Error::Truncated { len, needed });
        }
        let [tail] = field(file, 0x201);
        let header_end = (0x202 + usize::from(tail)).max(END);
        let code_start = setup as usize;
        let code_end = (needed as usize).min(file.len());
        let init_size = long(0x260);
        Ok(Self {
            bytes: file.get(START..header_end.min(file.len())).unwrap_or(&[]),
            code: file.get(code_start..code_end).unwrap_or(&[]),
            version,
            initrd_addr_max: long(0x22c),
            kernel_alignment: long(0x230),
            relocatable: field(file, 0x234) != [0],
            cmdline_size: long(0x238),
            pref_address: u64::from_le_bytes(field(file, 0x258)),
            init_size: init_size.max(code.min(u64::from(u32::MAX)) as u32),
        })
    }
}
