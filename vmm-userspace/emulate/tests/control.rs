//! Accesses to control registers that the processor does not describe.

mod common;

use abi::vcpu::{ControlAccess, Groups, VcpuState};
use common::Ram;
use emulate::{Control, Fault};
use iced_x86::code_asm::*;
use proptest::prelude::*;

fn run(state: &mut VcpuState, ram: &mut Ram, code: &[u8]) -> Result<Control, Fault> {
    ram.put(state.cs.base + state.rip, code);
    state.inst_len = 0;
    emulate::control(state, ram)
}

fn access(register: u64, kind: u64, gpr: u64, lmsw: u64) -> Result<Control, Fault> {
    let bits = register | kind << 4 | 1 << 7 | gpr << 8 | lmsw << 16;
    Ok(Control::Access(ControlAccess(bits)))
}

proptest! {
    /// Every register, in every mode, with and without prefixes that change nothing.
    #[test]
    fn moves(from: bool, register in prop::sample::select(vec![0u8, 2, 3, 4, 8]), gpr in 0..16u8, mode in 0..3u8, junk: bool, mode_bits in 0..4u8) {
        let mut ram = Ram::default();
        let mut state = match mode {
            0 => common::real(),
            1 => common::protected(),
            _ => common::long(&mut ram),
        };
        // CR8 and R8 to R15 only exist in 64-bit mode.
        let (register, gpr) = if mode == 2 { (register, gpr) } else { (register & 7, gpr & 7) };
        state.rip = 0x1000;
        let mut code = vec![];
        if junk {
            code.push(0x66);
        }
        let rex = 0x40 | register >> 3 << 2 | gpr >> 3;
        if rex != 0x40 {
            code.push(rex);
        }
        // The mode bits of ModR/M are ignored (SDM 2B, MOV control registers).
        code.extend([0x0f, if from { 0x20 } else { 0x22 }, mode_bits << 6 | (register & 7) << 3 | gpr & 7]);
        let expected = access(register.into(), from.into(), gpr.into(), 0);
        prop_assert_eq!(run(&mut state, &mut ram, &code), expected);
        prop_assert_eq!(state.inst_len, code.len() as u64);
    }
}

#[test]
fn the_rest_of_the_machine_status_word() {
    for mode in 0..3 {
        let mut ram = Ram::default();
        let mut state = match mode {
            0 => common::real(),
            1 => common::protected(),
            _ => common::long(&mut ram),
        };
        state.rip = 0x1000;
        (state.gpr.rax, state.gpr.rbx) = (0x1111_2222_3333_4449, 0x2000);
        ram.put(0x2000, &[0x0a, 0x80, 0xff]);
        assert_eq!(run(&mut state, &mut ram, &[0x0f, 0x06]), access(0, 2, 0, 0));
        assert_eq!(run(&mut state, &mut ram, &[0x0f, 0x01, 0xf0]), access(0, 3, 0, 0x4449));
        // LMSW [BX], [EBX], [RBX].
        let memory = if mode == 0 { 0x37 } else { 0x33 };
        assert_eq!(run(&mut state, &mut ram, &[0x0f, 0x01, memory]), access(0, 3, 0, 0x800a));
        assert_eq!(state.inst_len, 3);
        // SMSW to the same place takes two bytes of it.
        let stored = run(&mut state, &mut ram, &[0x0f, 0x01, memory & !0x10]);
        assert_eq!(stored, Ok(Control::Stored(Groups::NONE)));
        let low = state.cr0.to_le_bytes();
        assert_eq!(ram.get(0x2000, 3), [low[0], low[1], 0xff]);
    }
}

#[test]
fn smsw_fills_the_register_that_is_named() {
    let old = 0x1111_2222_3333_4444_u64;
    let mut ram = Ram::default();
    let mut state = common::long(&mut ram);
    state.rip = 0x1000;
    let mut asm = CodeAssembler::new(64).unwrap();
    asm.smsw(ax).unwrap();
    asm.smsw(ecx).unwrap();
    asm.smsw(r9).unwrap();
    let code = asm.assemble(0x1000).unwrap();
    ram.put(0x1000, &code);
    (state.gpr.rax, state.gpr.rcx, state.gpr.r9) = (old, old, old);
    for groups in [Groups::ACDB, Groups::ACDB, Groups::R8_R15] {
        assert_eq!(emulate::control(&mut state, &mut ram), Ok(Control::Stored(groups)));
        state.rip += state.inst_len;
    }
    assert_eq!(state.rip, 0x1000 + code.len() as u64);
    let whole = state.cr0;
    assert_eq!(state.gpr.rax, old & !0xffff | whole & 0xffff);
    assert_eq!((state.gpr.rcx, state.gpr.r9), (whole, whole));
}

#[test]
fn operands_in_memory_are_checked() {
    let mut ram = Ram::default();
    let mut state = common::long(&mut ram);
    state.rip = 0x1000;
    state.gpr.rbx = 0x8000_0000_0000;
    assert_eq!(run(&mut state, &mut ram, &[0x0f, 0x01, 0x33]), Err(Fault::General(0)));
    state.gpr.rbx = 0x2_0000_0000;
    let fault = Err(Fault::Page { address: 0x2_0000_0000, code: 2 });
    assert_eq!(run(&mut state, &mut ram, &[0x0f, 0x01, 0x23]), fault);
    // An instruction of another kind has no place here.
    assert!(matches!(run(&mut state, &mut ram, &[0x8b, 0x03]), Ok(Control::Other(_))));
    assert!(matches!(run(&mut state, &mut ram, &[0x0f, 0x21, 0xc0]), Ok(Control::Other(_))));
}
