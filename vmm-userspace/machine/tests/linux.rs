//! The Linux loader on made-up images, against `linux-loader`, and on garbage.

use linux_loader::loader::{BzImage, KernelLoader};
use machine::{
    linux::{self, Error, Header, Image},
    memory::{GuestMemory, MemoryMap, NotRam},
    reset,
};
use proptest::prelude::*;
use std::io::Cursor;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

struct Ram {
    map: MemoryMap,
    bytes: Vec<u8>,
}

impl Ram {
    fn new(size: u64) -> Self {
        Self { map: MemoryMap::new(size), bytes: vec![0; size as usize] }
    }
    fn get(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.read(gpa, &mut bytes).unwrap();
        bytes
    }
    fn get32(&self, gpa: u64) -> u32 {
        u32::from_le_bytes(self.get(gpa, 4).try_into().unwrap())
    }
    fn get64(&self, gpa: u64) -> u64 {
        u64::from_le_bytes(self.get(gpa, 8).try_into().unwrap())
    }
}

impl GuestMemory for Ram {
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), NotRam> {
        for (at, byte) in (gpa..).zip(bytes) {
            *byte = self.bytes[self.map.offset(at).ok_or(NotRam(at))? as usize];
        }
        Ok(())
    }
    fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), NotRam> {
        for (at, byte) in (gpa..).zip(bytes) {
            let offset = self.map.offset(at).ok_or(NotRam(at))?;
            self.bytes[offset as usize] = *byte;
        }
        Ok(())
    }
}

/// A well-formed image with `code` bytes of protected-mode code.
fn bzimage(code: usize) -> Vec<u8> {
    let mut file = vec![0u8; 4 * 512];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[3]);
    put(0x1f4, &(code as u32 / 16).to_le_bytes());
    put(0x1fe, &0xaa55u16.to_le_bytes());
    put(0x201, &[0x6a]);
    put(0x202, b"HdrS");
    put(0x206, &0x20fu16.to_le_bytes());
    put(0x211, &[1]);
    put(0x214, &0x10_0000u32.to_le_bytes());
    put(0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(0x230, &0x20_0000u32.to_le_bytes());
    put(0x234, &[1]);
    put(0x236, &1u16.to_le_bytes());
    put(0x238, &2047u32.to_le_bytes());
    put(0x258, &0x100_0000u64.to_le_bytes());
    put(0x260, &0x80_0000u32.to_le_bytes());
    file.extend((0..code).map(|i| (i * 7 + i / 256) as u8));
    file
}

fn image(kernel: &[u8]) -> Image<'_> {
    Image { kernel, initrd: None, command_line: "console=ttyS0", rsdp: 0xe_0000 }
}

fn load(image: &Image<'_>, size: u64) -> (Result<linux::Loaded, Error>, Ram) {
    let mut ram = Ram::new(size);
    let map = ram.map;
    (linux::load(image, &map, &mut ram), ram)
}

#[test]
fn everything_is_where_the_protocol_wants_it() {
    let file = bzimage(0x4000);
    let initrd: Vec<u8> = (0..5000u32).map(|i| i as u8).collect();
    let image = Image { initrd: Some(&initrd), ..image(&file) };
    let (loaded, ram) = load(&image, 64 << 20);
    let loaded = loaded.unwrap();
    assert_eq!(loaded.kernel, 0x100_0000);
    assert_eq!(ram.get(0x100_0000, 0x4000), file[4 * 512..]);
    assert_eq!(loaded.initrd, ((64 << 20) - 0x2000, 5000));
    assert_eq!(ram.get(loaded.initrd.0, 5000), initrd);
    let mut state = reset::power_on(0);
    loaded.enter(&mut state);
    let zero = state.gpr.rsi;
    assert_eq!(u64::from(ram.get32(zero + 0x218)), loaded.initrd.0);
    assert_eq!(ram.get32(zero + 0x21c), 5000);
    assert_eq!(ram.get64(zero + 0x70), 0xe_0000);
    assert_eq!(ram.get(zero + 0x210, 1), [0xff]);
    assert_eq!(ram.get(zero + 0x202, 4), b"HdrS");
    let command_line = u64::from(ram.get32(zero + 0x228));
    assert_eq!(ram.get(command_line, 14), b"console=ttyS0\0");
    assert_eq!(ram.get(zero + 0x1e8, 1), [3]);
    assert_eq!((ram.get64(zero + 0x2d0), ram.get64(zero + 0x2d8)), (0, 0xa_0000));
    assert_eq!(ram.get32(zero + 0x2d0 + 36), 2);
    let last = zero + 0x2d0 + 40;
    assert_eq!((ram.get64(last), ram.get64(last + 8)), (0x10_0000, (64 << 20) - 0x10_0000));
    // Entered in 64-bit mode: the tables map RIP, the stackless entry needs no more.
    assert_eq!((state.rip, state.cs.selector, state.ds.selector), (0x100_0200, 0x10, 0x18));
    assert_eq!(ram.get64(state.gdtr.base + 0x10), 0x00af_9b00_0000_ffff);
    for linear in [state.rip, zero, 0xfee0_0000] {
        let pml4e = ram.get64(state.cr3 + (linear >> 39) * 8);
        let pdpte = ram.get64((pml4e & !0xfff) + (linear >> 30 & 511) * 8);
        let pde = ram.get64((pdpte & !0xfff) + (linear >> 21 & 511) * 8);
        assert_eq!(pde, linear & !0x1f_ffff | 0x83);
        assert_eq!(pml4e & pdpte & 3, 3);
    }
}

#[test]
fn the_kernel_lands_where_linux_loader_puts_it() {
    for size in [0x1000, 0x2_3450, 0x10_0000] {
        let file = bzimage(size);
        let (loaded, ram) = load(&image(&file), 32 << 20);
        let loaded = loaded.unwrap();
        let oracle: GuestMemoryMmap =
            GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 32 << 20)]).unwrap();
        let result = BzImage::load(
            &oracle,
            Some(GuestAddress(loaded.kernel)),
            &mut Cursor::new(&file),
            Some(GuestAddress(0x10_0000)),
        )
        .unwrap();
        assert_eq!(result.kernel_load.0, loaded.kernel);
        let mut bytes = vec![0; size];
        oracle.read_slice(&mut bytes, GuestAddress(loaded.kernel)).unwrap();
        assert_eq!(ram.get(loaded.kernel, size), bytes);
        let setup = result.setup_header.unwrap();
        let header = Header::parse(&file).unwrap();
        assert_eq!({ setup.init_size }, header.init_size);
        assert_eq!({ setup.pref_address }, header.pref_address);
        assert_eq!({ setup.cmdline_size }, header.cmdline_size);
        assert_eq!({ setup.initrd_addr_max }, header.initrd_addr_max);
        assert_eq!({ setup.version }, header.version);
    }
}

#[test]
fn bad_images_are_refused_with_numbers() {
    let good = bzimage(0x4000);
    let error = |file: &[u8]| load(&image(file), 64 << 20).0.unwrap_err();
    assert_eq!(error(&good[..100]), Error::TooShort { len: 100, needed: 0x268 });
    assert_eq!(error(b"\x7fELF".repeat(500).as_slice()).to_string().matches("HdrS").count(), 1);
    let truncated = error(&good[..good.len() - 100]);
    assert_eq!(truncated, Error::Truncated { len: 2048 + 0x4000 - 100, needed: 2048 + 0x4000 });
    assert!(truncated.to_string().contains("18332") && truncated.to_string().contains("18432"));
    let with = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        error(&file)
    };
    assert_eq!(with(0x206, &[0x0b, 2]), Error::OldProtocol { version: 0x20b });
    assert_eq!(with(0x236, &[0]), Error::No64BitEntry);
    assert!(matches!(with(0x1fe, &[0]), Error::NotBzImage { boot_flag: 0xaa00, .. }));
    // An address that cannot be aligned.
    assert_eq!(
        with(0x258, &[0xff; 8]),
        Error::KernelTooLarge { at: u64::MAX, needed: 0x80_0000, memory: 64 << 20 }
    );
    assert_eq!(
        with(0x260, &0x4000_0000u32.to_le_bytes()),
        Error::KernelTooLarge { at: 0x100_0000, needed: 0x4000_0000, memory: 64 << 20 }
    );
}

#[test]
fn small_memories_are_used_or_refused() {
    let mut file = bzimage(0x4000);
    // Relocatable or not, it unpacks itself at the preferred place or above.
    let fixed = Error::KernelTooLarge { at: 0x100_0000, needed: 0x80_0000, memory: 16 << 20 };
    for relocatable in [0, 1] {
        file[0x234] = relocatable;
        assert_eq!(load(&image(&file), 16 << 20).0.unwrap_err(), fixed);
        assert_eq!(load(&image(&file), 24 << 20).0.unwrap().kernel, 0x100_0000);
    }
    // Without a preferred place, a relocatable one goes as low as it may.
    file[0x258..0x260].fill(0);
    assert_eq!(load(&image(&file), 16 << 20).0.unwrap().kernel, 0x20_0000);
    let initrd = vec![0; 7 << 20];
    let with_initrd = Image { initrd: Some(&initrd), ..image(&file) };
    assert_eq!(
        load(&with_initrd, 16 << 20).0.unwrap_err(),
        Error::InitrdTooLarge { len: 7 << 20, available: 6 << 20 }
    );
    let long = "x".repeat(2048);
    let with_line = Image { command_line: &long, ..image(&file) };
    let error = load(&with_line, 64 << 20).0.unwrap_err();
    assert_eq!(error, Error::CommandLineTooLong { len: 2048, max: 2047 });
}

proptest! {
    #[test]
    fn garbage_never_panics(mut file in prop::collection::vec(any::<u8>(), 0..4000), fix: bool, size in 0..40u64) {
        if fix && file.len() >= 0x268 {
            file[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
            file[0x202..0x206].copy_from_slice(b"HdrS");
            file[0x207] |= 4;
            file[0x236] |= 1;
            file[0x1f4..0x1f8].copy_from_slice(&[20, 0, 0, 0]);
            file[0x1f1] &= 3;
        }
        let (result, _) = load(&Image { initrd: Some(&[1; 100]), ..image(&file) }, size << 20);
        if let Ok(loaded) = result {
            prop_assert!(loaded.kernel >= 0x10_0000 && loaded.initrd.0 > loaded.kernel);
        }
    }
}
