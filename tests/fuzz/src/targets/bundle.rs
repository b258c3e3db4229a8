//! The boot bundle, read by the loader, the kernel and the root task.

use abi::bundle::{Bundle, MAGIC};

use super::Target;
use crate::input::Bytes;

/// The whole table, and what is found through it.
pub const TARGET: Target = Target {
    name: "bundle",
    longest: 0x1100,
    dictionary: &[&MAGIC, b"hypervisor", b"root", b"system"],
    seeds,
    run,
};

/// A bundle that holds `content` under each name, one after the other.
pub fn bundle(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Bytes::default().put(&MAGIC).u32(entries.len() as u32).u32(0);
    let mut offset = 0x1000;
    for (name, content) in entries {
        let start = bytes.0.len();
        bytes = bytes.put(name.as_bytes()).pad(start + 40);
        bytes = bytes.u64(offset).u64(content.len() as u64).u64(0);
        offset += content.len().next_multiple_of(0x1000) as u64;
    }
    for (_, content) in entries {
        let start = bytes.0.len().next_multiple_of(0x1000);
        bytes = bytes.pad(start).put(content);
    }
    bytes.0
}

fn seeds() -> Vec<Vec<u8>> {
    vec![bundle(&[]), bundle(&[("root", b"x")]), bundle(&[("system", b""), ("root", b"ELF")])]
}

fn run(bytes: &[u8]) {
    let Ok(bundle) = Bundle::parse(bytes) else { return };
    let mut count = 0;
    for entry in bundle.entries() {
        count += 1;
        assert_eq!(entry.offset % 4096, 0);
        assert_eq!(bytes.get(entry.offset..entry.offset + entry.data.len()), Some(entry.data));
        let found = bundle.find(entry.name).expect("every entry is found by its name");
        assert_eq!(found.name, entry.name);
    }
    assert!(16 + 64 * count <= bytes.len());
}
