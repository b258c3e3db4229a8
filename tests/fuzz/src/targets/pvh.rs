//! The start info of the PVH boot protocol, and everything the loader makes of it.

use boot::pvh;

use super::loader::{BASE, Memory, start_kernel};
use super::{Target, elf};
use crate::input::Bytes;

/// The structure is at the start of the input, what it points to may lie behind it.
pub const TARGET: Target =
    Target { name: "pvh", longest: 0x600, dictionary: &[b"hypervisor"], seeds, run };

fn seeds() -> Vec<Vec<u8>> {
    let kernel = elf::kernel_file();
    let head = Bytes::default().u32(pvh::MAGIC).u32(1).u32(0).u32(1);
    let head = head.u64(BASE + 0x40).u64(BASE + 0xa0).u64(0xf_5a40).u64(BASE + 0x60).u32(2).u32(0);
    let list = head.pad(0x40).u64(BASE + 0x100).u64(kernel.len() as u64).u64(BASE + 0xb0).u64(0);
    let map = list.u64(0).u64(0x9_fc00).u32(1).u32(0).u64(0x10_0000).u64(0x800_0000).u32(1).u32(0);
    let text = map.pad(0xa0).put(b"quiet\0").pad(0xb0).put(b"hypervisor\0");
    vec![text.pad(0x100).put(&kernel).0]
}

fn run(bytes: &[u8]) {
    let memory = Memory(bytes);
    match pvh::parse(&memory, BASE) {
        Ok(handoff) => start_kernel(&memory, &handoff),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
