//! Making a task's program out of its executable. The form of the result is specified in
//! `abi::program`; whoever loads it does not read ELF.

use abi::cap::MemRights;
use abi::layout::PAGE_SIZE;
use abi::program::{MAGIC, Program, ProgramError};
use elf::ElfBytes;
use elf::abi::{
    DT_NULL, DT_PLTRELSZ, DT_RELASZ, DT_RELSZ, EM_X86_64, ET_DYN, ET_EXEC, PF_W, PF_X, PT_LOAD,
};
use elf::endian::LittleEndian;
use elf::file::Class;
use elf::segment::ProgramHeader;
use miette::{IntoDiagnostic, Result, WrapErr, bail, miette};

const HEADER: usize = 24;
const SEGMENT: usize = 40;
/// `DT_RELRSZ` of the generic ABI, which the crate has no name for.
const DT_RELRSZ: i64 = 35;

type Elf<'a> = ElfBytes<'a, LittleEndian>;

/// A segment as the program's table has it.
struct Segment {
    address: u64,
    size: u64,
    content: Vec<u8>,
    rights: MemRights,
}

/// The program that is in an executable.
///
/// # Errors
/// When the file is no executable for x86-64, or one that nobody could load as it is.
pub fn from_elf(file: &[u8]) -> Result<Vec<u8>> {
    let elf = Elf::minimal_parse(file).into_diagnostic().wrap_err("it is not an ELF file")?;
    let header = &elf.ehdr;
    if header.class != Class::ELF64
        || header.e_machine != EM_X86_64
        || ![ET_EXEC, ET_DYN].contains(&header.e_type)
    {
        bail!("it is not an executable for x86-64");
    }
    if needs_relocations(&elf)? {
        return Err(miette!(
            help = "tasks are linked where they run, with `relocation-model=static`",
            "it needs relocations"
        ));
    }
    let segments: Vec<Segment> = elf
        .segments()
        .into_iter()
        .flatten()
        .filter(|header| header.p_type == PT_LOAD && header.p_memsz != 0)
        .map(|header| segment(&elf, &header))
        .collect::<Result<_>>()?;
    let bytes = write(header.e_entry, &segments);
    match Program::parse(&bytes) {
        Ok(_) => Ok(bytes),
        Err(ProgramError::Overlap(number)) => {
            let address = segments[number].address;
            bail!("its segment at {address:#x} is out of order, or shares a page with another")
        }
        Err(ProgramError::BadAddress(number)) => {
            bail!("its segment at {:#x} is not where tasks may be", segments[number].address)
        }
        Err(ProgramError::BadEntry) => bail!("its entry point is outside of its code"),
        Err(ProgramError::TooMany) => bail!("it has {} segments: too many", segments.len()),
        Err(error) => bail!("it cannot be loaded ({error:?})"),
    }
}

/// Whether the dynamic section names a relocation table that is not empty.
fn needs_relocations(elf: &Elf<'_>) -> Result<bool> {
    let dynamic = elf.dynamic().into_diagnostic().wrap_err("its dynamic section is damaged")?;
    Ok(dynamic.into_iter().flatten().take_while(|entry| entry.d_tag != DT_NULL).any(|entry| {
        [DT_PLTRELSZ, DT_RELASZ, DT_RELSZ, DT_RELRSZ].contains(&entry.d_tag) && entry.d_val() != 0
    }))
}

/// The whole pages around a segment.
fn segment(elf: &Elf<'_>, header: &ProgramHeader) -> Result<Segment> {
    let ProgramHeader { p_vaddr, p_memsz, p_filesz, p_flags, .. } = *header;
    if p_flags & PF_W != 0 && p_flags & PF_X != 0 {
        bail!("its segment at {p_vaddr:#x} is both writable and executable");
    }
    if p_filesz > p_memsz {
        bail!("its segment at {p_vaddr:#x} is larger in the file than in memory");
    }
    let data = elf
        .segment_data(header)
        .into_diagnostic()
        .wrap_err_with(|| format!("its segment at {p_vaddr:#x} is cut off"))?;
    let inside = p_vaddr % PAGE_SIZE;
    let size =
        p_memsz.checked_add(inside).and_then(|size| size.checked_next_multiple_of(PAGE_SIZE));
    let size = size.ok_or_else(|| miette!("its segment at {p_vaddr:#x} is too large"))?;
    let mut content = vec![0; inside as usize];
    content.extend(data);
    let rights = match (p_flags & PF_W != 0, p_flags & PF_X != 0) {
        (true, _) => MemRights::RW,
        (false, true) => MemRights::RX,
        (false, false) => MemRights::R,
    };
    Ok(Segment { address: p_vaddr - inside, size, content, rights })
}

fn write(entry: u64, segments: &[Segment]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(entry.to_le_bytes());
    bytes.extend((segments.len() as u64).to_le_bytes());
    let mut offset = HEADER + SEGMENT * segments.len();
    for Segment { address, size, content, rights } in segments {
        let (start, length) = (offset as u64, content.len() as u64);
        for field in [*address, *size, start, length, rights.0.into()] {
            bytes.extend(field.to_le_bytes());
        }
        offset += content.len();
    }
    segments.iter().for_each(|segment| bytes.extend(&segment.content));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use elf::abi::{PF_R, PT_DYNAMIC, PT_NOTE};
    use proptest::prelude::*;

    /// Type, flags, file offset, address, size in the file, size in memory.
    type Header = (u32, u32, u64, u64, u64, u64);

    const TEXT: Header = (PT_LOAD, PF_R | PF_X, 0x200, 0x40_0000, 0x100, 0x100);
    const DATA: Header = (PT_LOAD, PF_R | PF_W, 0x300, 0x40_1300, 0x80, 0x2000);

    /// An executable with the given entry point and program headers, and 1 KiB.
    fn file(entry: u64, headers: &[Header]) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        bytes.extend(ET_EXEC.to_le_bytes());
        bytes.extend(EM_X86_64.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        for long in [entry, 64, 0] {
            bytes.extend(long.to_le_bytes());
        }
        bytes.extend(0_u32.to_le_bytes());
        for half in [64, 56, headers.len() as u16, 0, 0, 0] {
            bytes.extend(half.to_le_bytes());
        }
        for (kind, flags, offset, address, file_size, memory_size) in headers {
            bytes.extend(kind.to_le_bytes());
            bytes.extend(flags.to_le_bytes());
            for long in [offset, address, address, file_size, memory_size, &0x1000] {
                bytes.extend(long.to_le_bytes());
            }
        }
        let used = bytes.len();
        bytes.extend((used..0x400).map(|at| at as u8));
        bytes
    }

    fn error(entry: u64, headers: &[Header]) -> String {
        from_elf(&file(entry, headers)).unwrap_err().to_string()
    }

    #[test]
    fn segments_grow_to_whole_pages() {
        let elf = file(0x40_0010, &[(PT_NOTE, PF_R, 64, 64, 8, 8), TEXT, DATA]);
        let bytes = from_elf(&elf).unwrap();
        let program = Program::parse(&bytes).unwrap();
        assert_eq!(program.entry(), 0x40_0010);
        let segments: Vec<_> = program.segments().collect();
        let [text, data] = segments.as_slice() else { panic!("two segments") };
        assert_eq!((text.address, text.size, text.rights), (0x40_0000, 0x1000, MemRights::RX));
        assert_eq!(text.content, &elf[0x200..0x300]);
        assert_eq!((data.address, data.size, data.rights), (0x40_1000, 0x3000, MemRights::RW));
        assert_eq!(data.content[..0x300], [0; 0x300]);
        assert_eq!(data.content[0x300..], elf[0x300..0x380]);
    }

    #[test]
    fn each_defect_is_named() {
        assert!(error(0x40_1300, &[TEXT, DATA]).contains("entry point"));
        assert!(error(0x40_0000, &[DATA, TEXT]).contains("0x400000 is out of order"));
        let close = (PT_LOAD, PF_R, 0x300, 0x40_0fff, 1, 1);
        assert!(error(0x40_0000, &[TEXT, close]).contains("shares a page"));
        let evil = (PT_LOAD, PF_R | PF_W | PF_X, 0x200, 0x40_0000, 1, 1);
        assert!(error(0x40_0000, &[evil]).contains("writable and executable"));
        let small = (PT_LOAD, PF_R | PF_X, 0x200, 0x40_0000, 2, 1);
        assert!(error(0x40_0000, &[small]).contains("larger in the file"));
        let cut = (PT_LOAD, PF_R | PF_X, 0x3ff, 0x40_0000, 2, 2);
        assert!(error(0x40_0000, &[cut]).contains("cut off"));
        for address in [1 << 47, u64::MAX] {
            let high = (PT_LOAD, PF_R | PF_X, 0x200, address, 1, 1);
            assert!(error(address, &[high]).contains("not where tasks may be"));
        }
        let vast = (PT_LOAD, PF_R | PF_X, 0x200, 0x40_0001, 1, u64::MAX);
        assert!(error(0x40_0001, &[vast]).contains("too large"));
        let many: Vec<Header> =
            (1..=17).map(|page| (PT_LOAD, PF_R | PF_X, 0, page << 12, 1, 1)).collect();
        assert!(error(0x1000, &many).contains("17 segments"));
    }

    #[test]
    fn other_files_are_no_programs() {
        let good = file(0x40_0000, &[TEXT]);
        assert!(from_elf(&good).is_ok());
        for (at, byte) in [(0, 0), (4, 1), (16, 1), (18, 3)] {
            let mut bytes = good.clone();
            bytes[at] = byte;
            assert!(from_elf(&bytes).is_err(), "byte {at}");
        }
        assert!(from_elf(b"#!/bin/sh\n").unwrap_err().to_string().contains("not an ELF file"));
    }

    #[test]
    fn relocations_are_refused() {
        let dynamic = |tag: u64, size: u64| {
            let mut bytes = file(0x40_0010, &[TEXT, (PT_DYNAMIC, PF_R, 0x300, 0, 0x20, 0x20)]);
            bytes[0x300..0x308].copy_from_slice(&tag.to_le_bytes());
            bytes[0x308..0x310].copy_from_slice(&size.to_le_bytes());
            bytes[0x310..0x320].fill(0);
            from_elf(&bytes).map_err(|error| error.to_string())
        };
        assert!(dynamic(5, 24).is_ok() && dynamic(8, 0).is_ok());
        for tag in [2, 8, 18, 35] {
            assert!(dynamic(tag, 24).unwrap_err().contains("relocations"));
        }
    }

    proptest! {
        /// What the builder writes is what whoever loads it finds.
        #[test]
        fn the_reader_finds_every_segment(
            parts in prop::collection::vec(
                (0..3_usize, 0..0x100_u64, 0..0x1000_u64, 0..0x3000_u64, 0..3_u64), 1..7),
        ) {
            let mut next = 0x40_0000;
            let mut headers = vec![(PT_LOAD, PF_R | PF_X, 0x200, 0x3f_f000, 0x10, 0x10)];
            for (kind, length, inside, more, gap) in parts {
                let address = next + (gap << 12) + inside;
                let size = length + more + 1;
                let flags = [PF_R, PF_R | PF_W, PF_R | PF_X][kind];
                headers.push((PT_LOAD, flags, 0x280, address, length, size));
                next = (address + size).next_multiple_of(PAGE_SIZE);
            }
            let elf = file(0x3f_f00f, &headers);
            let bytes = from_elf(&elf).unwrap();
            let program = Program::parse(&bytes).unwrap();
            prop_assert_eq!(program.segments().count(), headers.len());
            for (found, header) in program.segments().zip(headers) {
                let (_, flags, offset, address, length, size) = header;
                let (from, inside) = (offset as usize, (address - found.address) as usize);
                prop_assert!(inside < 4096 && found.size >= inside as u64 + size);
                prop_assert!(found.size < inside as u64 + size + PAGE_SIZE);
                prop_assert!(found.content[..inside].iter().all(|byte| *byte == 0));
                prop_assert_eq!(&found.content[inside..], &elf[from..from + length as usize]);
                prop_assert_eq!(found.rights.contains(MemRights::W), flags & PF_W != 0);
                prop_assert_eq!(found.rights.contains(MemRights::X), flags & PF_X != 0);
            }
        }
    }
}
