use proptest::prelude::*;

use super::*;

const R: u32 = 4;
const BASE: u64 = KERNEL_BASE + 0x10_0000;

/// Type, flags, file offset, address, size in the file, size in memory.
type Header = (u32, u32, u64, u64, u64, u64);

/// An executable with the given entry point and program headers, 64 KiB long.
pub(crate) fn file(kind: u16, entry: u64, headers: &[Header]) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    bytes.extend(kind.to_le_bytes());
    bytes.extend(EM_X86_64.to_le_bytes());
    bytes.extend(1u32.to_le_bytes());
    bytes.extend(entry.to_le_bytes());
    bytes.extend(64u64.to_le_bytes());
    bytes.extend([0; 12]);
    for half in [64u16, 56, headers.len() as u16, 0, 0, 0] {
        bytes.extend(half.to_le_bytes());
    }
    for (kind, flags, offset, address, file_size, memory_size) in headers {
        bytes.extend(kind.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        for long in [offset, address, address, file_size, memory_size, &0x1000] {
            bytes.extend(long.to_le_bytes());
        }
    }
    bytes.resize(0x1_0000, 0);
    bytes
}

pub(crate) fn kernel_headers() -> Vec<Header> {
    vec![
        (PT_LOAD, R | PF_X, 0x1000, BASE, 0x2345, 0x2345),
        (PT_LOAD, R, 0x4000, BASE + 0x3000, 0x800, 0x800),
        (PT_LOAD, R | PF_W, 0x4800, BASE + 0x4800, 0x100, 0x5000),
        (PT_LOAD, R | PF_W, 0, 0, 0, 0),
    ]
}

fn defect(headers: &[Header]) -> Error {
    Image::parse(&file(ET_EXEC, BASE, headers)).map(|_| ()).expect_err("a defect")
}

#[test]
fn reads_a_kernel() {
    for kind in [ET_EXEC, ET_DYN] {
        let bytes = file(kind, BASE + 0x10, &kernel_headers());
        let image = Image::parse(&bytes).unwrap();
        assert_eq!(image.entry, BASE + 0x10);
        assert_eq!(image.span, Span::new(BASE, 0xa000));
        let segments: Vec<_> = image.segments().collect();
        let [text, rodata, data] = segments.as_slice() else { panic!("three segments") };
        assert!(text.execute && !text.write);
        assert!(!rodata.execute && !rodata.write);
        assert!(data.write && !data.execute);
        assert_eq!(data.file, &bytes[0x4800..0x4900]);
        assert_eq!(data.span, Span::new(BASE + 0x4800, 0x5000));
    }
}

#[test]
fn each_defect_is_named() {
    let change = |index: usize, change: fn(&mut Header)| {
        let mut headers = kernel_headers();
        change(&mut headers[index]);
        defect(&headers)
    };
    let bad = Error::BadKernel;
    let writable_code = change(0, |header| header.1 |= PF_W);
    assert_eq!(writable_code, bad("has a segment that is writable and executable"));
    assert_eq!(change(0, |header| header.1 = R), bad("has an entry point outside its code"));
    assert_eq!(
        change(1, |header| header.3 -= 0x1000),
        bad("has segments out of order, or two in one page")
    );
    assert_eq!(change(1, |header| header.3 = 0x10_0000), bad("is not linked in the top 2 GiB"));
    assert_eq!(
        change(1, |header| header.3 = u64::MAX - 0x1000),
        bad("is not linked in the top 2 GiB")
    );
    assert_eq!(change(2, |header| header.2 = 0xff80), bad("is cut off"));
    assert_eq!(change(2, |header| header.2 = u64::MAX), bad("is cut off"));
    assert_eq!(
        change(2, |header| header.4 = u64::MAX),
        bad("has a segment larger in the file than in memory")
    );
    assert_eq!(change(2, |header| header.5 = 4 << 30), bad("is not linked in the top 2 GiB"));
    assert_eq!(change(2, |header| header.5 = 1 << 30), bad("spans more than 64 MiB"));
    let larger = change(1, |header| header.5 -= 1);
    assert_eq!(larger, bad("has a segment larger in the file than in memory"));
}

#[test]
fn each_wrong_file_is_named() {
    let good = file(ET_EXEC, BASE, &kernel_headers());
    let changed = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        Image::parse(&bytes).map(|_| ()).unwrap_err()
    };
    let not_elf = "is not a 64-bit ELF file for x86-64";
    assert_eq!(changed(0, 0), Error::BadKernel(not_elf));
    assert_eq!(changed(4, 1), Error::BadKernel(not_elf));
    assert_eq!(changed(18, 183), Error::BadKernel(not_elf));
    assert_eq!(changed(16, 1), Error::BadKernel("is not an executable"));
    assert_eq!(changed(54, 32), Error::BadKernel(not_elf));
    assert_eq!(changed(39, 0xff), Error::BadKernel("is cut off"));
    let mut many = file(ET_EXEC, BASE, &kernel_headers());
    many[56..58].fill(0xff);
    assert_eq!(Image::parse(&many).map(|_| ()), Err(Error::BadKernel("is cut off")));
    for length in [0, 3, 20, 57, 100, 0x1100] {
        assert!(Image::parse(&good[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn relocations_are_refused() {
    let parse = |offset, tag: u64, size: u64| {
        let mut headers = kernel_headers();
        headers.push((PT_DYNAMIC, R, offset, BASE + 0x3000, 0x20, 0x20));
        let mut bytes = file(ET_DYN, BASE, &headers);
        bytes[0xffe0..0xffe8].copy_from_slice(&tag.to_le_bytes());
        bytes[0xffe8..0xfff0].copy_from_slice(&size.to_le_bytes());
        Image::parse(&bytes).map(|_| ())
    };
    let refused = Err(Error::BadKernel("needs relocations: link it statically"));
    for tag in [2, 8, 18, 35] {
        assert_eq!(parse(0xffe0, tag, 24), refused);
        assert_eq!(parse(0xffe0, tag, 0), Ok(()), "an empty table asks for nothing");
    }
    assert_eq!(parse(0xffe0, 5, 24), Ok(()), "not a relocation table");
    assert_eq!(parse(0xffd0, 8, 24), Ok(()), "what follows DT_NULL does not count");
    assert_eq!(parse(0xfff0, 5, 24), refused, "a section that is cut off may ask for anything");
}

proptest! {
    #[test]
    fn an_accepted_image_is_loadable(
        changes in prop::collection::vec((0usize..300, any::<u8>()), 0..6),
        length in prop_oneof![Just(0x1_0000_usize), 300..0x1_0000_usize],
    ) {
        let mut bytes = file(ET_EXEC, BASE, &kernel_headers());
        for (at, value) in changes {
            bytes[at] = value;
        }
        bytes.truncate(length);
        let Ok(image) = Image::parse(&bytes) else { return Ok(()) };
        prop_assert!(image.span.length() <= MAX_KERNEL_SPAN && image.span.start >= KERNEL_BASE);
        let mut end = image.span.start;
        for segment in image.segments() {
            let pages = segment.span.pages_around();
            prop_assert!(pages.start >= end && pages.end <= image.span.end);
            prop_assert!(segment.file.len() as u64 <= segment.span.length());
            prop_assert!(!(segment.write && segment.execute));
            end = pages.end;
        }
        prop_assert_eq!(end, image.span.end);
    }
}
