//! The decoder for common MOVs against `iced-x86`.

mod common;

use emulate::{
    End, Hint,
    fast::{self, Kind},
};
use iced_x86::{Decoder, DecoderOptions, Mnemonic, OpKind};
use proptest::prelude::*;

/// Bytes that look like a MOV: prefixes, an opcode, a random tail.
fn movs() -> impl Strategy<Value = [u8; 16]> {
    let prefix = prop::sample::select(vec![0x66u8, 0x67, 0x2e, 0x3e, 0x26, 0x64, 0x65, 0x36]);
    let opcode = prop::sample::select(vec![
        &[0x88u8][..],
        &[0x89],
        &[0x8a],
        &[0x8b],
        &[0xc6],
        &[0xc7],
        &[0x0f, 0xb6],
        &[0x0f, 0xb7],
        &[0xa0],
        &[0xa1],
        &[0xa2],
        &[0xa3],
        &[0x0f, 0xbe],
        &[0x8c],
        &[0xf0, 0x89],
        &[0xf3, 0x89],
    ]);
    let prefixes = prop::collection::vec(prefix, 0..3);
    (prefixes, prop::option::of(0x40..0x50u8), opcode, any::<[u8; 16]>()).prop_map(
        |(prefixes, rex, opcode, tail)| {
            let mut bytes = prefixes;
            bytes.extend(rex);
            bytes.extend_from_slice(opcode);
            bytes.extend_from_slice(&tail);
            bytes[..16].try_into().unwrap()
        },
    )
}

fn compare(bytes: &[u8; 16], bits: u32) -> Result<bool, TestCaseError> {
    let Some(mov) = fast::decode(bytes, bits) else { return Ok(false) };
    let i = Decoder::with_ip(bits, bytes, 0, DecoderOptions::NONE).decode();
    prop_assert!(matches!(i.mnemonic(), Mnemonic::Mov | Mnemonic::Movzx), "{} {:02x?}", i, bytes);
    prop_assert!(!i.has_lock_prefix());
    prop_assert_eq!(usize::from(mov.len), i.len());
    prop_assert_eq!(usize::from(mov.size), i.memory_size().size());
    match mov.kind {
        Kind::Store(part) => {
            prop_assert_eq!(i.op0_kind(), OpKind::Memory);
            prop_assert_eq!(Some(part), emulate::registers::part(i.op1_register()));
        }
        Kind::Load(part) => {
            prop_assert_eq!(i.op1_kind(), OpKind::Memory);
            prop_assert_eq!(Some(part), emulate::registers::part(i.op0_register()));
        }
        Kind::StoreImmediate(value) => {
            prop_assert_eq!(i.op0_kind(), OpKind::Memory);
            let mask = emulate::registers::mask(mov.size);
            prop_assert_eq!(value & mask, i.immediate(1) & mask);
        }
    }
    Ok(true)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn agrees_on_movs(bytes in movs(), bits in prop::sample::select(vec![16u32, 32, 64])) {
        compare(&bytes, bits)?;
    }

    #[test]
    fn agrees_on_garbage(bytes: [u8; 16], bits in prop::sample::select(vec![16u32, 32, 64])) {
        compare(&bytes, bits)?;
    }
}

#[test]
fn common_forms_are_recognized() {
    for (bits, code) in [
        (64, &[0x88u8, 0x07][..]),
        (64, &[0x89, 0x87, 0x80, 0, 0, 0]),
        (64, &[0x8b, 0x04, 0x25, 0xb0, 0, 0xe0, 0xfe]),
        (64, &[0x44, 0x89, 0x40, 0x10]),
        (64, &[0xc7, 0x07, 1, 0, 0, 0]),
        (64, &[0x0f, 0xb6, 0x07]),
        (16, &[0x26, 0x88, 0x07]),
        (16, &[0xa3, 0, 0]),
        (16, &[0x66, 0x67, 0x89, 0x03]),
        (32, &[0xa1, 0, 0, 0, 0xfe]),
    ] {
        let mut bytes = [0; 16];
        bytes[..code.len()].copy_from_slice(code);
        assert!(compare(&bytes, bits).unwrap(), "{code:02x?}");
        assert_eq!(usize::from(fast::decode(&bytes, bits).unwrap().len), code.len());
    }
}

#[test]
fn the_start_of_a_page_is_not_trusted_for_wide_operands() {
    // An operand that crosses into the device page is reported at the page's first byte.
    let mut ram = common::Ram::default();
    let mut state = common::long(&mut ram);
    ram.put(0x1000, &[0x89, 0x06]);
    (state.rip, state.gpr.rsi, state.gpr.rax) = (0x1000, 0x4ffe, 0x1122_3344);
    let hint = Hint { linear: 0x5000, gpa: 0x5000 };
    assert_eq!(emulate::emulate(&mut state, &mut ram, Some(hint)).end, End::Done);
    assert_eq!(ram.get(0x4ffe, 4), [0x44, 0x33, 0x22, 0x11]);
}
