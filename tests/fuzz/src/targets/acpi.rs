//! The firmware's tables: what the kernel reads of them, and what the root task does.

use hypervisor_logic::acpi::{MachineInfo, PhysRead};
use root_task::acpi::{Memory, Power};

use super::Target;
use crate::input::Bytes;

/// Processors and interrupt controllers.
pub const KERNEL: Target =
    Target { name: "acpi-kernel", longest: 0x500, dictionary: WORDS, seeds, run: kernel };

/// Registers that turn the machine off.
pub const POWER: Target =
    Target { name: "acpi-power", longest: 0x500, dictionary: WORDS, seeds, run: power };

const WORDS: &[&[u8]] = &[
    b"RSD PTR ",
    b"XSDT",
    b"RSDT",
    b"APIC",
    b"FACP",
    b"DSDT",
    b"\x08_S5_\x12\x06\x04",
    b"\x08\\_S5_\x12",
];

/// Bits of the first byte of an input. What follows is memory from address 0 on, which begins with
/// the root pointer.
mod flag {
    /// The sums of all tables are put right first: a random change would spoil them.
    pub const REPAIR: u8 = 1 << 0;
    /// Nobody knows where the root pointer is, so it is looked for.
    pub const SEARCH: u8 = 1 << 1;
}

/// Physical memory: the input at address 0, and again where a BIOS keeps its tables.
struct Image(Vec<u8>);

/// The area of the BIOS.
const BIOS: u64 = 0xe_0000;

impl PhysRead for Image {
    fn read(&self, pa: u64, buf: &mut [u8]) -> bool {
        let found = self.bytes(pa, buf.len());
        found.inspect(|bytes| buf.copy_from_slice(bytes)).is_some()
    }
}

impl Memory for Image {
    fn bytes(&self, pa: u64, len: usize) -> Option<Vec<u8>> {
        if (pa, len) == (BIOS, 0x2_0000) {
            let mut area = self.0.clone();
            area.resize(len, 0);
            return Some(area);
        }
        let start = usize::try_from(pa).ok()?;
        Some(self.0.get(start..start.checked_add(len)?)?.to_vec())
    }
}

fn repair(image: &mut [u8], start: usize, length: usize, sum_at: usize) {
    let Some(table) = image.get_mut(start..start + length) else { return };
    table[sum_at] = 0;
    table[sum_at] = table.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
}

fn image(bytes: &[u8]) -> (u8, Image) {
    let (flags, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    let mut image = bytes.to_vec();
    if flags & flag::REPAIR != 0 {
        for start in (0..image.len()).step_by(4).rev() {
            let here = &image[start..];
            if WORDS[1..6].iter().any(|signature| here.starts_with(signature))
                && let Some(length) = here.get(4..8)
                && let length @ 36..=0x500 = u32::from_le_bytes(length.try_into().expect("four"))
            {
                repair(&mut image, start, length as usize, 9);
            }
        }
        repair(&mut image, 0, 20, 8);
        repair(&mut image, 0, 36, 32);
    }
    (*flags, Image(image))
}

fn kernel(bytes: &[u8]) {
    let (_, image) = image(bytes);
    let Ok(info) = MachineInfo::read(&image, 0) else { return };
    assert!(info.local_apics.len() <= 64 && info.io_apics.len() <= 8);
}

fn power(bytes: &[u8]) {
    let (flags, image) = image(bytes);
    let known = match flags & flag::SEARCH {
        0 => image.0.get(..36.min(image.0.len())).unwrap_or_default().to_vec(),
        _ => vec![0; 36],
    };
    let Some(power) = Power::find(&image, &known) else { return };
    assert!(power.pm1a != 0 && power.pm1b != Some(0));
    assert!(power.enable.is_none_or(|(port, value)| port != 0 && value != 0));
    assert!(power.reset.is_none_or(|(port, _)| port != 0));
    assert!(power.sleep_type.is_none_or(|types| types.iter().all(|value| *value < 8)));
}

fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let head = Bytes::default().put(signature).u32(36 + body.len() as u32).pad(36);
    head.put(body).0
}

fn seeds() -> Vec<Vec<u8>> {
    let madt = Bytes::default().u32(0xfee0_0000).u32(1);
    let madt =
        madt.put(&[0, 8, 0, 0, 1, 0, 0, 0]).put(&[1, 12, 2, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
    let madt = madt.put(&[2, 10, 0, 0, 2, 0, 0, 0, 0, 0]).put(&[2, 10, 0, 9, 9, 0, 0, 0, 0xd, 0]);
    let madt = madt.put(&[5, 12, 0, 0, 0, 0, 0xe0, 0xfe, 0, 0, 0, 0]);
    let madt = madt.put(&[9, 16, 0, 0, 1, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
    let madt = table(b"APIC", &madt.0);
    let dsdt = table(b"DSDT", b"\x10\x20\\_SB_ \x08_S5_\x12\x06\x04\x0a\x05\x0a\x05\x00\x00");
    // Offsets of the FADT count from its header (ACPI 6.5 5.2.9).
    let old = Bytes::default().pad(116).at(40, &0x280_u32.to_le_bytes()).at(48, &[0xb2, 0, 0, 0]);
    let old = old.at(52, &[0xf1]).at(64, &[4, 0xb0]).at(76, &[8, 0xb0]);
    let old = table(b"FACP", &old.0[36..]);
    let new = Bytes::default().pad(244).at(64, &[4, 6]).at(68, &[4, 7]).at(112, &[0, 5, 0, 0]);
    let new = new.at(116, &[1, 8, 0, 1, 0xf9, 0x0c]).at(128, &[0x0f]).at(140, &[0x80, 2]);
    let new = table(b"FACP", &new.at(208, &[1, 32, 0, 3, 8, 6]).0[36..]);
    let rsdt = table(b"RSDT", &Bytes::default().u32(0x80).u32(0x180).0);
    let xsdt = table(b"XSDT", &Bytes::default().u64(0x80).u64(0x180).0);
    let root = |revision: u8, address: &[u8; 4]| {
        let root = Bytes::default().put(b"RSD PTR \0OEMID\0").pad(36).at(15, &[revision]);
        root.at(if revision == 0 { 16 } else { 24 }, address).at(20, &[36])
    };
    let all = |flags: u8, root: Bytes, list: &[u8], fadt: &[u8]| {
        let image = root.pad(0x40).put(list).pad(0x80).put(&madt).pad(0x180).put(fadt);
        Bytes::default().put(&[flags]).put(&image.pad(0x280).put(&dsdt).0).0
    };
    vec![
        all(flag::REPAIR, root(0, &[0x40, 0, 0, 0]), &rsdt, &old),
        all(flag::REPAIR, root(2, &[0x40, 0, 0, 0]), &xsdt, &new),
        all(flag::REPAIR | flag::SEARCH, root(0, &[0x40, 0, 0, 0]), &rsdt, &old),
        all(0, root(2, &[0x40, 0, 0, 0]), &xsdt, &new),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A seed that is refused at once would be no help.
    #[test]
    fn the_seeds_are_read_to_the_end() {
        let seeds = seeds();
        for (seed, reset) in seeds.iter().zip([false, true, false]) {
            let (_, image) = image(seed);
            let info = MachineInfo::read(&image, 0).unwrap();
            assert_eq!(info.local_apics.len(), 2);
            let known = image.0[..36].to_vec();
            let power = Power::find(&image, &known).unwrap();
            assert_eq!(power.sleep_type, Some([5, 5]));
            assert_eq!(power.reset.is_some(), reset);
            assert_eq!(Power::find(&image, &[0; 36]), Some(power));
        }
    }
}
