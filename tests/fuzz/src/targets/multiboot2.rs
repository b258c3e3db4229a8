//! The Multiboot2 information structure, as GRUB hands it over, and everything the loader makes
//! of it.

use boot::multiboot2;

use super::loader::{BASE, Memory, start_kernel};
use super::{Target, bundle, elf};
use crate::input::Bytes;

/// The structure is at the start of the input, modules may lie behind it.
pub const TARGET: Target = Target {
    name: "multiboot2",
    longest: 0x1400,
    dictionary: &[b"hypervisor", b"bundle"],
    seeds,
    run,
};

fn tag(bytes: Bytes, kind: u32, content: &[u8]) -> Bytes {
    let end = (bytes.0.len() + 8 + content.len()).next_multiple_of(8);
    bytes.u32(kind).u32(8 + content.len() as u32).put(content).pad(end)
}

/// A module that lies `from..to` bytes into the input.
fn module(bytes: Bytes, from: u32, to: u32, text: &[u8]) -> Bytes {
    let base = BASE as u32;
    tag(bytes, 3, &Bytes::default().u32(base + from).u32(base + to).put(text).put(b"\0").0)
}

fn map(bytes: Bytes, entries: &[(u64, u64, u32)]) -> Bytes {
    let head = Bytes::default().u32(24).u32(0);
    let put = |map: Bytes, &(start, length, kind): &_| map.u64(start).u64(length).u32(kind).u32(0);
    tag(bytes, 6, &entries.iter().fold(head, put).0)
}

fn finish(bytes: Bytes) -> Bytes {
    let bytes = tag(bytes, 0, &[]);
    let length = bytes.0.len() as u32;
    bytes.at(0, &length.to_le_bytes())
}

fn seeds() -> Vec<Vec<u8>> {
    let ram = [(0, 0x9_f000, 1), (0xf_0000, 0x1_0000, 2), (0x10_0000, 0x4000_0000, 1)];
    let kernel = elf::kernel_file();
    let length = kernel.len() as u32;
    let bios = tag(Bytes::default().u64(0), 1, b"quiet\0");
    let bios = module(bios, 0x200, 0x200 + length, b"hypervisor");
    let bios = tag(map(bios, &ram), 14, b"RSD PTR \0OEMID\0\0\0\0\0");
    let screen = Bytes::default().u64(0x8000_0000).u32(4096).u32(800).u32(600);
    let screen = screen.put(&[32, 1, 0, 0, 16, 8, 8, 8, 0, 8]);
    let uefi = tag(tag(Bytes::default().u64(0), 12, &[0; 8]), 8, &screen.0);
    let uefi = tag(uefi, 15, &Bytes::default().put(b"RSD PTR \0OEMID\x02").pad(36).0);
    let uefi = module(uefi, 0x200, 0x200 + length, b"hypervisor");
    let empty = bundle::bundle(&[]);
    let uefi = module(uefi, 0x1000, 0x1000 + empty.len() as u32, b"bundle");
    let many = [(0x10_0000, 0x1000_0000, 1), (0x800_0000, 0x1000, 3), (1 << 40, 1 << 30, 1)];
    let uefi = finish(map(uefi, &many)).pad(0x200).put(&kernel).pad(0x1000).put(&empty);
    vec![finish(bios).pad(0x200).put(&kernel).0, uefi.0]
}

fn run(bytes: &[u8]) {
    let memory = Memory(bytes);
    match multiboot2::parse(&memory, BASE) {
        Ok(handoff) => start_kernel(&memory, &handoff),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
