//! How the firmware says that the machine is turned off and reset: ACPI's fixed registers.
//!
//! Turning off needs two numbers that only the DSDT has, in its object `\_S5`. That is a package of
//! constants at the top level on every PC, so it can be found without an interpreter of AML.

use alloc::vec::Vec;

/// Reads physical memory.
pub trait Memory {
    /// `len` bytes from physical address `pa` on, if they can be read.
    fn bytes(&self, pa: u64, len: usize) -> Option<Vec<u8>>;
}

/// What is known about turning the machine off and resetting it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Power {
    /// PM1a control register, a port.
    pub pm1a: u16,
    /// PM1b control register, a port, on machines that have it.
    pub pm1b: Option<u16>,
    /// What to put into the SLP_TYP fields of the two.
    pub sleep_type: Option<[u8; 2]>,
    /// Port and value that switch from the firmware's power management to the system's.
    pub enable: Option<(u16, u8)>,
    /// Port and value that reset the machine.
    pub reset: Option<(u16, u8)>,
}

/// Longest table that is looked at.
const MAX_TABLE: usize = 4 << 20;
/// Tables that a root table may list before the rest is ignored.
const MAX_TABLES: usize = 256;
/// Length of the header of every table (ACPI 6.5 5.2.6).
const HEADER: usize = 36;
/// Where a PC keeps the root pointer if nobody says where it is (ACPI 6.5 5.2.5.1).
const BIOS: (u64, usize) = (0xe_0000, 0x2_0000);

fn u8_at(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn sums_to_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)) == 0
}

/// A port number that is not 0.
fn port(value: u32) -> Option<u16> {
    u16::try_from(value).ok().filter(|port| *port != 0)
}

impl Power {
    /// Reads the tables. `known` starts with a copy of the root pointer, or is zeros if nobody
    /// knows where it is.
    #[must_use]
    pub fn find(memory: &impl Memory, known: &[u8]) -> Option<Self> {
        let root = root_pointer(memory, known)?;
        let fadt = root_table(memory, &root).find_map(|pa| table(memory, pa, b"FACP"))?;
        Self::from_fadt(memory, &fadt)
    }

    /// Fields of the FADT: ACPI 6.5 5.2.9.
    fn from_fadt(memory: &impl Memory, fadt: &[u8]) -> Option<Self> {
        const RESET_REG_SUP: u32 = 1 << 10;
        const IO_SPACE: u8 = 1;
        let enable = port(u32_at(fadt, 48)?).zip(u8_at(fadt, 52).filter(|value| *value != 0));
        let reset = u32_at(fadt, 112)
            .filter(|flags| flags & RESET_REG_SUP != 0 && u8_at(fadt, 116) == Some(IO_SPACE))
            .and_then(|_| port(u32::try_from(u64_at(fadt, 120)?).ok()?).zip(u8_at(fadt, 128)));
        let dsdt = u64_at(fadt, 140).filter(|pa| *pa != 0).or(u32_at(fadt, 40).map(u64::from))?;
        let dsdt = table(memory, dsdt, b"DSDT");
        Some(Self {
            pm1a: port(u32_at(fadt, 64)?)?,
            pm1b: port(u32_at(fadt, 68)?),
            sleep_type: dsdt.and_then(|dsdt| soft_off(dsdt.get(HEADER..)?)),
            enable,
            reset,
        })
    }
}

/// The root pointer (ACPI 6.5 5.2.5.3): what is known, or what the BIOS area has.
fn root_pointer(memory: &impl Memory, known: &[u8]) -> Option<Vec<u8>> {
    let valid = |bytes: &Vec<u8>| {
        bytes.starts_with(b"RSD PTR ") && bytes.get(..20).is_some_and(sums_to_zero)
    };
    Some(known.to_vec()).filter(valid).or_else(|| {
        let (base, len) = BIOS;
        let area = memory.bytes(base, len)?;
        area.windows(36).step_by(16).map(<[u8]>::to_vec).find(valid)
    })
}

/// The addresses that the XSDT or the RSDT lists (ACPI 6.5 5.2.7, 5.2.8).
fn root_table(memory: &impl Memory, root: &[u8]) -> impl Iterator<Item = u64> {
    let extended = (u8_at(root, 15) >= Some(2)).then(|| table(memory, u64_at(root, 24)?, b"XSDT"));
    let (list, width) = match extended.flatten() {
        Some(list) => (Some(list), 8),
        None => (u32_at(root, 16).and_then(|pa| table(memory, pa.into(), b"RSDT")), 4),
    };
    let list = list.unwrap_or_default();
    (HEADER..list.len()).step_by(width).take(MAX_TABLES).filter_map(move |at| match width {
        8 => u64_at(&list, at),
        _ => u32_at(&list, at).map(u64::from),
    })
}

/// The table at `pa`, if it is the one with that signature and whole.
fn table(memory: &impl Memory, pa: u64, signature: &[u8; 4]) -> Option<Vec<u8>> {
    let header = memory.bytes(pa, HEADER)?;
    let len = usize::try_from(u32_at(&header, 4)?).ok()?;
    if !header.starts_with(signature) || !(HEADER..=MAX_TABLE).contains(&len) {
        return None;
    }
    memory.bytes(pa, len).filter(|bytes| sums_to_zero(bytes))
}

/// The sleep types in `\_S5` (ACPI 6.5 7.4.2; the encoding is in 20.2).
fn soft_off(aml: &[u8]) -> Option<[u8; 2]> {
    const NAME: u8 = 0x08;
    const PACKAGE: u8 = 0x12;
    (0..aml.len()).find_map(|at| {
        let rest = aml.get(at..)?.strip_prefix(&[NAME])?;
        let rest = rest.strip_prefix(b"\\").unwrap_or(rest);
        let rest = rest.strip_prefix(b"_S5_")?.strip_prefix(&[PACKAGE])?;
        // The package's length is in 1 to 4 bytes; the first says how many follow.
        let more = usize::from(u8_at(rest, 0)? >> 6);
        let elements = rest.get(more + 2..)?;
        let (a, rest) = constant(elements)?;
        // A package may leave the second out.
        let b = constant(rest).map_or(a, |(b, _)| b);
        Some([a, b])
    })
}

/// A small integer constant, and what follows it.
fn constant(aml: &[u8]) -> Option<(u8, &[u8])> {
    let (value, rest) = match aml {
        [0x00, rest @ ..] => (0, rest),
        [0x01, rest @ ..] => (1, rest),
        [0x0a, value, rest @ ..] | [0x0b, value, 0, rest @ ..] => (*value, rest),
        [0x0c, value, 0, 0, 0, rest @ ..] => (*value, rest),
        _ => return None,
    };
    // SLP_TYP has three bits.
    (value < 8).then_some((value, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Image(Vec<u8>);

    impl Memory for Image {
        fn bytes(&self, pa: u64, len: usize) -> Option<Vec<u8>> {
            let start = usize::try_from(pa).ok()?;
            Some(self.0.get(start..start.checked_add(len)?)?.to_vec())
        }
    }

    /// With the root pointer at 0x100, as far as the image goes.
    fn find(image: Vec<u8>) -> Option<Power> {
        let known = image.get(0x100..0x124).unwrap_or_default().to_vec();
        Power::find(&Image(image), &known)
    }

    fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
        image[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn fix_sum(image: &mut [u8], at: usize, len: usize, sum_at: usize) {
        image[at + sum_at] = 0;
        let sum = image[at..at + len].iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        image[at + sum_at] = sum.wrapping_neg();
    }

    fn put_table(image: &mut [u8], at: usize, signature: &[u8; 4], body: &[u8]) {
        let len = HEADER + body.len();
        put(image, at, signature);
        put(image, at + 4, &(len as u32).to_le_bytes());
        put(image, at + HEADER, body);
        fix_sum(image, at, len, 9);
    }

    /// Tables as Bochs and older QEMU have them: revision 0, an RSDT, a short FADT.
    fn old_machine(s5: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 0x2000];
        put(&mut image, 0x100, b"RSD PTR \0OEMID\0");
        put(&mut image, 0x110, &0x200_u32.to_le_bytes());
        fix_sum(&mut image, 0x100, 20, 8);
        put_table(&mut image, 0x200, b"RSDT", &[0x00, 0x0f, 0, 0, 0x00, 0x03, 0, 0]);
        put_table(&mut image, 0xf00, b"APIC", &[0; 8]);
        let mut fadt = vec![0; 116 - HEADER];
        put(&mut fadt, 40 - HEADER, &0x600_u32.to_le_bytes());
        put(&mut fadt, 48 - HEADER, &0xb2_u32.to_le_bytes());
        fadt[52 - HEADER] = 0xf1;
        put(&mut fadt, 64 - HEADER, &0xb004_u32.to_le_bytes());
        put_table(&mut image, 0x300, b"FACP", &fadt);
        let mut aml = b"\x10\x20\\_SB_ noise _S5_ noise".to_vec();
        aml.extend(s5);
        aml.extend([0x5b, 0x80]);
        put_table(&mut image, 0x600, b"DSDT", &aml);
        image
    }

    #[test]
    fn an_old_machine_is_turned_off_by_its_pm1_registers() {
        let image = old_machine(b"\x08_S5_\x12\x06\x04\x0a\x05\x0a\x06\x00\x00");
        let expected = Power {
            pm1a: 0xb004,
            pm1b: None,
            sleep_type: Some([5, 6]),
            enable: Some((0xb2, 0xf1)),
            reset: None,
        };
        assert_eq!(find(image), Some(expected));
    }

    #[test]
    fn sleep_types_come_in_many_encodings() {
        for (aml, types) in [
            (&b"\x08_S5_\x12\x06\x04\x00\x00\x00\x00"[..], [0, 0]),
            (b"\x08\\_S5_\x12\x06\x04\x01\x0a\x07\x00\x00", [1, 7]),
            (b"\x08_S5_\x12\x49\x00\x04\x0b\x05\x00\x0c\x03\x00\x00\x00", [5, 3]),
            (b"\x08_S5_\x12\x04\x01\x0a\x05", [5, 5]),
        ] {
            let power = find(old_machine(aml));
            assert_eq!(power.and_then(|power| power.sleep_type), Some(types), "{aml:x?}");
        }
        let odd = old_machine(b"\x08_S5_\x12\x06\x04\x0a\x09\x00\x00\x00");
        assert_eq!(find(odd).and_then(|power| power.sleep_type), None);
    }

    #[test]
    fn a_new_machine_has_a_reset_register_and_wide_addresses() {
        let mut image = vec![0; 0x2000];
        put(&mut image, 0x100, b"RSD PTR \0OEMID \x02");
        put(&mut image, 0x114, &36_u32.to_le_bytes());
        put(&mut image, 0x118, &0x200_u64.to_le_bytes());
        fix_sum(&mut image, 0x100, 20, 8);
        fix_sum(&mut image, 0x100, 36, 32);
        put_table(&mut image, 0x200, b"XSDT", &0x300_u64.to_le_bytes());
        let mut fadt = vec![0; 148 - HEADER];
        put(&mut fadt, 64 - HEADER, &0x604_u32.to_le_bytes());
        put(&mut fadt, 68 - HEADER, &0x704_u32.to_le_bytes());
        put(&mut fadt, 112 - HEADER, &(1_u32 << 10).to_le_bytes());
        put(&mut fadt, 116 - HEADER, &[1, 8, 0, 1]);
        put(&mut fadt, 120 - HEADER, &0xcf9_u64.to_le_bytes());
        fadt[128 - HEADER] = 0x0f;
        put(&mut fadt, 140 - HEADER, &0x600_u64.to_le_bytes());
        put_table(&mut image, 0x300, b"FACP", &fadt);
        put_table(&mut image, 0x600, b"DSDT", b"\x08_S5_\x12\x06\x04\x00\x00\x00\x00");
        let expected = Power {
            pm1a: 0x604,
            pm1b: Some(0x704),
            sleep_type: Some([0, 0]),
            enable: None,
            reset: Some((0xcf9, 0x0f)),
        };
        assert_eq!(find(image), Some(expected));
    }

    #[test]
    fn a_root_table_without_end_does_not_keep_the_machine_busy() {
        struct Counted(Vec<u8>, core::cell::Cell<usize>);
        impl Memory for Counted {
            fn bytes(&self, pa: u64, len: usize) -> Option<Vec<u8>> {
                self.1.set(self.1.get() + 1);
                let start = usize::try_from(pa).ok()?;
                Some(self.0.get(start..start.checked_add(len)?)?.to_vec())
            }
        }
        let mut image = old_machine(b"");
        image.resize(0x20_0000, 0);
        let known = image[0x100..0x124].to_vec();
        put_table(&mut image, 0x200, b"RSDT", &0x200_u32.to_le_bytes().repeat(0x4_0000));
        let memory = Counted(image, 0.into());
        assert_eq!(Power::find(&memory, &known), None);
        assert!(memory.1.get() < 1000, "{} reads", memory.1.get());
    }

    #[test]
    fn without_an_address_the_bios_area_is_searched() {
        let mut image = old_machine(b"\x08_S5_\x12\x06\x04\x00\x00\x00\x00");
        image.resize(0x10_0000, 0);
        image.copy_within(0x100..0x124, 0xf_0040);
        image[0x100..0x124].fill(0);
        assert_eq!(image[0x100..0x124], [0; 36]);
        assert!(find(image.clone()).is_some());
        image[0xf_0040] = 0;
        assert!(find(image).is_none());
    }

    proptest! {
        #[test]
        fn garbage_is_survived(
            changes in proptest::collection::vec((0_usize..0x800, any::<u8>()), 0..30),
            len in 0_usize..0x2000,
        ) {
            let mut image = old_machine(b"\x08_S5_\x12\x06\x04\x0a\x05\x0a\x05\x00\x00");
            for (at, value) in changes {
                image[at] = value;
            }
            image.truncate(len);
            // Whatever comes out, nothing panics, and a port is never 0.
            if let Some(power) = find(image) {
                prop_assert!(power.pm1a != 0);
            }
        }

        #[test]
        fn aml_garbage_is_survived(bytes in any::<Vec<u8>>()) {
            let mut aml = b"\x08_S5_\x12".to_vec();
            aml.extend(bytes);
            if let Some(types) = soft_off(&aml) {
                prop_assert!(types.iter().all(|value| *value < 8));
            }
        }
    }
}
