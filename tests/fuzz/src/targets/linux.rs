//! The Linux loader: a kernel image that somebody else made, into a guest's memory.

use std::ops::Range;

use machine::linux::{self, Image};
use machine::memory::{GuestMemory, MemoryMap, NotRam};

use super::Target;
use crate::input::{Bytes, Input};

/// Guest memory in 64 KiB units, lengths of initrd and command line, the kernel's file.
pub const TARGET: Target =
    Target { name: "linux", longest: 0xb00, dictionary: &[b"HdrS"], seeds, run };

/// Guest memory that only knows where it was written.
struct Written {
    map: MemoryMap,
    ranges: Vec<Range<u64>>,
}

impl GuestMemory for Written {
    fn read(&self, gpa: u64, _: &mut [u8]) -> Result<(), NotRam> {
        panic!("the loader reads {gpa:#x}");
    }

    fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), NotRam> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = gpa.checked_add(bytes.len() as u64).expect("an address");
        let inside = self.map.ranges().iter().any(|ram| ram.start <= gpa && end <= ram.end);
        if !inside {
            return Err(NotRam(gpa));
        }
        for earlier in &self.ranges {
            let apart = end <= earlier.start || earlier.end <= gpa;
            assert!(apart, "{gpa:#x}..{end:#x} is written over {earlier:#x?}");
        }
        self.ranges.push(gpa..end);
        Ok(())
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let file = Bytes::default().pad(0x800).at(0x1f1, &[3]).at(0x1f4, &[0x20, 0, 0, 0]);
    let file = file.at(0x1fe, &[0x55, 0xaa]).at(0x201, &[0x6a]).at(0x202, b"HdrS");
    let file = file.at(0x206, &[0x0f, 2]).at(0x211, &[1]).at(0x22c, &[0xff, 0xff, 0xff, 0x7f]);
    let file = file.at(0x230, &[0, 0, 0x20, 0]).at(0x234, &[1, 0, 1]).at(0x238, &[0xff, 7, 0, 0]);
    let file = file.at(0x258, &[0, 0, 0, 1]).at(0x260, &[0, 0, 0x80, 0]).put(&[0x90; 0x200]).0;
    let with =
        |memory, initrd, text| Bytes::default().u32(memory).u16(initrd).u16(text).put(&file).0;
    let mut fixed = with(0x1_0800, 0x1000, 13);
    fixed[8 + 0x234] = 0;
    vec![with(0x1000, 0x1234, 20), with(0x1000, 0, 0), fixed]
}

fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let map = MemoryMap::new(u64::from(input.u32()) << 16);
    let initrd = vec![0x11; input.u16().into()];
    let text = "x".repeat(input.u16().into());
    let image = Image {
        kernel: input.rest(),
        initrd: Some(initrd.as_slice()).filter(|initrd| !initrd.is_empty()),
        command_line: &text,
        rsdp: 0xe_0000,
    };
    let mut memory = Written { map, ranges: Vec::new() };
    match linux::load(&image, &map, &mut memory) {
        Ok(loaded) => {
            assert!(loaded.kernel >= 0x10_0000 && loaded.kernel < map.low_end());
            let (start, length) = loaded.initrd;
            assert_eq!(length, initrd.len() as u64);
            assert!(start + length <= map.low_end() && start % 0x1000 == 0);
            let mut state = abi::vcpu::VcpuState::default();
            loaded.enter(&mut state);
            assert_eq!(state.rip, loaded.kernel + 0x200);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
