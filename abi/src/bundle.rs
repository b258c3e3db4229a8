//! The boot bundle: the flat archive that the image builder makes and the loader hands over.
//!
//! ```text
//! 0    "FERRITE1"  count:u32  0:u32        little-endian
//! 16   count x { name:[u8;40], offset:u64, length:u64, 0:u64 }
//! ...  the contents, each at a multiple of 4096
//! ```

/// First eight bytes.
pub const MAGIC: [u8; 8] = *b"FERRITE1";
/// The entry that holds the root task: a `program`, as every task is.
pub const ROOT: &str = "root";
/// The entry that holds the compiled system description.
pub const SYSTEM: &str = "system";
/// The entry that holds the kernel, in bundles for direct boot; an ELF file, which the loader reads.
pub const HYPERVISOR: &str = "hypervisor";

const HEADER: usize = 16;
const ENTRY: usize = 64;
const NAME: usize = 40;

/// A checked view of a bundle in memory.
#[derive(Clone, Copy, Debug)]
pub struct Bundle<'a> {
    bytes: &'a [u8],
    count: usize,
}

/// One entry of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where its content starts, in bytes from the start of the bundle; a multiple of 4096.
    pub offset: usize,
    /// Its content.
    pub data: &'a [u8],
}

/// Why a bundle cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleError {
    /// It does not start with [`MAGIC`].
    BadMagic,
    /// The table or an entry reaches beyond the end.
    Truncated,
    /// The content of entry number `.0` is not aligned, or its name is not text.
    BadEntry(usize),
}

/// The little-endian number at `at`.
pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl<'a> Bundle<'a> {
    /// Checks the whole table.
    ///
    /// # Errors
    /// Says what is wrong with the bytes; after success every entry can be read.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BundleError> {
        if bytes.first_chunk::<8>() != Some(&MAGIC) {
            return Err(BundleError::BadMagic);
        }
        let count = word(bytes, 8).ok_or(BundleError::Truncated)? & 0xffff_ffff;
        let count = usize::try_from(count).map_err(|_| BundleError::Truncated)?;
        let table = count.checked_mul(ENTRY).and_then(|n| n.checked_add(HEADER));
        if table.is_none_or(|end| end > bytes.len()) {
            return Err(BundleError::Truncated);
        }
        let bundle = Self { bytes, count };
        for i in 0..count {
            bundle.entry(i)?;
        }
        Ok(bundle)
    }

    fn entry(&self, index: usize) -> Result<Entry<'a>, BundleError> {
        let bad = BundleError::BadEntry(index);
        let at = HEADER + index * ENTRY;
        let raw = self.bytes.get(at..at + ENTRY).ok_or(BundleError::Truncated)?;
        let name = raw.get(..NAME).ok_or(bad)?;
        let name = name.split(|b| *b == 0).next().ok_or(bad)?;
        let name = core::str::from_utf8(name).map_err(|_| bad)?;
        let offset = word(raw, NAME).ok_or(bad)?;
        let length = word(raw, NAME + 8).ok_or(bad)?;
        let offset = usize::try_from(offset).map_err(|_| BundleError::Truncated)?;
        let length = usize::try_from(length).map_err(|_| BundleError::Truncated)?;
        if !offset.is_multiple_of(4096) {
            return Err(bad);
        }
        let end = offset.checked_add(length).ok_or(BundleError::Truncated)?;
        let data = self.bytes.get(offset..end).ok_or(BundleError::Truncated)?;
        Ok(Entry { name, offset, data })
    }

    /// All entries in order.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'a>> {
        let this = *self;
        (0..this.count).filter_map(move |i| this.entry(i).ok())
    }

    /// The first entry called `name`.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Entry<'a>> {
        self.entries().find(|entry| entry.name == name)
    }
}
