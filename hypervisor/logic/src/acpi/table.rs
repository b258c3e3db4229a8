//! One table (ACPI 6.5 5.2.6).

use super::PhysRead;

/// Longer tables are not what the kernel looks for.
const MAX_LENGTH: u32 = 1 << 16;

/// A table whose signature, length and checksum are right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    address: u64,
    length: u64,
}

/// `N` bytes at a physical address.
pub(super) fn bytes<const N: usize>(mem: &impl PhysRead, pa: u64) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    pa.checked_add(N as u64)?;
    mem.read(pa, &mut bytes).then_some(bytes)
}

/// The sum that must be 0.
pub(super) fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

impl Table {
    /// Length of the header that every table begins with.
    pub const HEADER: u64 = 36;

    pub fn open(mem: &impl PhysRead, address: u64, signature: [u8; 4]) -> Option<Self> {
        let [s0, s1, s2, s3, length @ ..]: [u8; 8] = bytes(mem, address)?;
        let length = u32::from_le_bytes(length);
        if [s0, s1, s2, s3] != signature || length > MAX_LENGTH {
            return None;
        }
        let length = u64::from(length);
        address.checked_add(length)?;
        let table = (length >= Self::HEADER).then_some(Self { address, length })?;
        let total = (0..length)
            .try_fold(0_u8, |total, at| table.get(mem, at).map(|[byte]| total.wrapping_add(byte)));
        (total? == 0).then_some(table)
    }

    pub const fn body_len(&self) -> u64 {
        self.length.saturating_sub(Self::HEADER)
    }

    /// `N` bytes at an offset, if the table has so many.
    pub fn get<const N: usize>(&self, mem: &impl PhysRead, offset: u64) -> Option<[u8; N]> {
        if offset.checked_add(N as u64)? > self.length {
            return None;
        }
        bytes(mem, self.address.checked_add(offset)?)
    }
}
