//! The processor that runs this test is the oracle: the same instruction is executed natively and by the
//! emulator, from the same registers, flags and memory, and must leave the same.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod common;

use abi::vcpu::{Groups, VcpuState};
use common::Ram;
use emulate::{End, Hint, alu};
use iced_x86::{IcedError, code_asm::*};
use proptest::prelude::*;

const FLAGS: u64 = alu::STATUS;
const DATA_LEN: usize = 0x2000;
/// The operand lies so that positive and negative offsets and a page boundary are reached.
const MIDDLE: u64 = 0x1000;

/// Executable and data memory below 4 GiB at fixed offsets from each other.
struct Host {
    base: u64,
}

impl Host {
    fn new() -> Self {
        // SAFETY: an anonymous mapping at an address the system chooses; the result is checked.
        let base = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                0x4000,
                libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
                -1,
                0,
            )
        };
        assert_ne!(base, libc::MAP_FAILED);
        Self { base: base as u64 }
    }

    fn data(&self) -> u64 {
        self.base + 0x1000
    }

    /// Executes `code` once with the registers, flags and data given, and returns what it leaves.
    fn execute(&self, code: &[u8], gpr: &mut [u64; 16], flags: &mut u64, data: &mut [u8]) {
        // 16 registers, flags, saved stack pointer.
        let frame = self.base + 0x3000;
        let mut a = CodeAssembler::new(64).unwrap();
        for r in [rbx, rbp, r12, r13, r14, r15] {
            a.push(r).unwrap();
        }
        a.mov(rax, frame).unwrap();
        a.mov(qword_ptr(rax + 17 * 8), rsp).unwrap();
        a.push(qword_ptr(rax + 16 * 8)).unwrap();
        a.popfq().unwrap();
        let all = [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15];
        for (i, r) in all.into_iter().enumerate().skip(1) {
            a.mov(r, qword_ptr(rax + i as i32 * 8)).unwrap();
        }
        a.mov(rax, qword_ptr(rax)).unwrap();
        a.db(code).unwrap();
        for (i, r) in all.into_iter().enumerate() {
            a.mov(qword_ptr(frame + i as u64 * 8), r).unwrap();
        }
        a.mov(rsp, qword_ptr(frame + 17 * 8)).unwrap();
        a.pushfq().unwrap();
        a.pop(qword_ptr(frame + 16 * 8)).unwrap();
        a.cld().unwrap();
        for r in [r15, r14, r13, r12, rbp, rbx] {
            a.pop(r).unwrap();
        }
        a.ret().unwrap();
        let stub = a.assemble(self.base).unwrap();
        assert!(stub.len() < 0x800);
        // SAFETY: all addresses lie in the mapping of 0x4000 bytes that `new` made; the stub keeps the
        // calling convention, and the tested instructions only touch the data area.
        unsafe {
            core::ptr::copy_nonoverlapping(stub.as_ptr(), self.base as *mut u8, stub.len());
            core::ptr::copy_nonoverlapping(data.as_ptr(), self.data() as *mut u8, DATA_LEN);
            let words = frame as *mut u64;
            for (i, value) in gpr.iter().enumerate() {
                words.add(i).write(*value);
            }
            words.add(16).write(*flags | 2);
            let function: extern "C" fn() = core::mem::transmute(self.base as *const ());
            function();
            for (i, value) in gpr.iter_mut().enumerate() {
                *value = words.add(i).read();
            }
            *flags = words.add(16).read();
            core::ptr::copy_nonoverlapping(self.data() as *const u8, data.as_mut_ptr(), DATA_LEN);
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made; nothing refers to it any more.
        unsafe { libc::munmap(self.base as *mut _, 0x4000) };
    }
}

/// Runs one instruction on both and compares. `ignore` = flags the manual leaves undefined.
fn check(code: &[u8], gpr: [u64; 16], flags: u64, seed: u64, ignore: u64) {
    let host = Host::new();
    let relocate =
        |value: u64| if value >> 48 == 0x7777 { host.data() + (value & 0xffff) } else { value };
    let gpr = gpr.map(relocate);
    let mut data: Vec<u8> = (0..DATA_LEN as u64)
        .map(|i| (seed.wrapping_add(i).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect();
    let mut ram = Ram::default();
    let mut state = common::long(&mut ram);
    let at = 0x10_0000;
    ram.put(at, code);
    ram.put(host.data(), &data);
    set(&mut state, &gpr);
    state.rip = at;
    state.rflags = flags | 2;
    let before = state;
    let mut groups = Groups::NONE;
    loop {
        let report = emulate::emulate(&mut state, &mut ram, None);
        groups |= report.groups;
        match report.end {
            End::Done => break,
            End::Again => {}
            end => panic!("{end:?} at {code:02x?}"),
        }
    }
    assert_eq!(state.inst_len, code.len() as u64);
    assert_groups(&before, &state, groups);

    let (mut native, mut native_flags) = (gpr, flags);
    host.execute(code, &mut native, &mut native_flags, &mut data);
    assert_eq!(state.gpr.to_array(), native, "registers after {code:02x?} from {gpr:x?}");
    let which = (FLAGS | alu::DF) & !ignore;
    assert_eq!(
        state.rflags & which,
        native_flags & which,
        "flags after {code:02x?} from {flags:x} {gpr:x?}"
    );
    let emulated = ram.get(host.data(), DATA_LEN);
    let differs = emulated.iter().zip(&data).position(|(a, b)| a != b);
    assert_eq!(differs, None, "memory after {code:02x?}");
}

fn set(state: &mut VcpuState, gpr: &[u64; 16]) {
    for (i, value) in gpr.iter().enumerate() {
        *state.gpr.reg_mut(i as u8) = *value;
    }
}

/// What changed must be named in the groups.
fn assert_groups(before: &VcpuState, after: &VcpuState, groups: Groups) {
    let (a, b) = (before.gpr.to_array(), after.gpr.to_array());
    for i in 0..16 {
        let group = emulate::registers::group(i);
        assert!(a[usize::from(i)] == b[usize::from(i)] || groups.contains(group), "register {i}");
    }
    assert!(before.rflags == after.rflags || groups.contains(Groups::RFLAGS));
}

fn assemble(build: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u8> {
    let mut a = CodeAssembler::new(64).unwrap();
    build(&mut a).unwrap();
    a.assemble(0x10_0000).unwrap()
}

/// An address in the data area that `check` relocates.
const fn data(offset: u64) -> u64 {
    0x7777 << 48 | offset
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        prop::sample::select(vec![
            0,
            1,
            0x7f,
            0x80,
            0xff,
            0x7fff,
            0x8000,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            1 << 63,
            u64::MAX
        ]),
    ]
}

fn flags() -> impl Strategy<Value = u64> {
    any::<u64>().prop_map(|f| f & FLAGS)
}

/// The two-operand ALU operations by the /n of opcode 80 and the base opcode.
const ALU: [u8; 8] = [0x00, 0x08, 0x10, 0x18, 0x20, 0x28, 0x30, 0x38];

fn gprs(a: u64, b: u64, offset: u64) -> [u64; 16] {
    let mut gpr = [0x1111_1111_1111_1111; 16];
    gpr[0] = a;
    gpr[2] = b;
    gpr[4] = data(0x1800);
    gpr[6] = data(offset);
    gpr[7] = data(offset + 0x300);
    gpr[8] = a.rotate_left(13);
    gpr
}

/// Prefix and opcode adjustment for operand sizes 1, 2, 4, 8: legacy prefix, REX.W, opcode bit 0.
fn sized(size: u8, opcode: &[u8], tail: &[u8]) -> Vec<u8> {
    let mut code = Vec::new();
    if size == 2 {
        code.push(0x66);
    }
    if size == 8 {
        code.push(0x48);
    }
    let (last, head) = opcode.split_last().unwrap();
    code.extend_from_slice(head);
    code.push(last | u8::from(size > 1));
    code.extend_from_slice(tail);
    code
}

/// `[rsi]` with register field `reg`.
const fn at_rsi(reg: u8) -> u8 {
    reg << 3 | 6
}

fn size() -> impl Strategy<Value = u8> {
    prop::sample::select(vec![1, 2, 4, 8])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn two_operand_arithmetic(a in value(), b in value(), f in flags(), seed: u64, size in size(), op in 0..8usize, reg in 0..4u8, direction: bool, cross: bool) {
        let opcode = ALU[op] | u8::from(direction) << 1;
        let code = sized(size, &[opcode], &[at_rsi(reg)]);
        let af = if matches!(op, 1 | 4 | 6) { alu::AF } else { 0 };
        check(&code, gprs(a, b, MIDDLE - u64::from(cross)), f, seed, af);
    }

    #[test]
    fn arithmetic_with_constants(a in value(), imm: u32, f in flags(), seed: u64, size in size(), op in 0..8u8, short: bool) {
        let bytes = imm.to_le_bytes();
        let code = match (size, short) {
            (1, _) => sized(1, &[0x80], &[at_rsi(op), bytes[0]]),
            (_, true) => sized(size, &[0x82], &[at_rsi(op), bytes[0]]),
            (2, _) => sized(2, &[0x80], &[at_rsi(op), bytes[0], bytes[1]]),
            _ => sized(size, &[0x80], &[&[at_rsi(op)][..], &bytes].concat()),
        };
        let af = if matches!(op, 1 | 4 | 6) { alu::AF } else { 0 };
        check(&code, gprs(a, 0, MIDDLE), f, seed, af);
    }

    #[test]
    fn one_operand(a in value(), f in flags(), seed: u64, size in size(), op in 0..5usize, imm: u8, reg in 0..4u8) {
        let (opcode, field): (u8, u8) = [(0xfe, 0), (0xfe, 1), (0xf6, 2), (0xf6, 3), (0x84, reg)][op];
        let code = sized(size, &[opcode], &[at_rsi(field)]);
        let af = if op == 4 { alu::AF } else { 0 };
        check(&code, gprs(a, u64::from(imm), MIDDLE), f, seed, af);
    }

    #[test]
    fn shifts(count: u8, f in flags(), seed: u64, size in size(), op in 0..8u8, by_cl: bool) {
        let mut gpr = gprs(0, 0, MIDDLE);
        gpr[1] = u64::from(count);
        let code = if by_cl {
            sized(size, &[0xd2], &[at_rsi(op)])
        } else {
            sized(size, &[0xc0], &[at_rsi(op), count])
        };
        let masked = count & if size == 8 { 63 } else { 31 };
        let mut ignore = if masked == 0 { 0 } else { alu::AF };
        if masked != 1 {
            ignore |= alu::OF;
        }
        if op & 4 == 0 {
            ignore &= !alu::AF;
        } else if u32::from(masked) > u32::from(size) * 8 || u32::from(masked) == u32::from(size) * 8 {
            ignore |= alu::CF;
        }
        check(&code, gpr, f, seed, ignore);
    }

    #[test]
    fn exchanges(a in value(), b in value(), f in flags(), seed: u64, size in size(), op in 0..3usize, reg in 0..4u8, equal: bool, high in 4..8u8) {
        let opcode: &[u8] = [&[0x86][..], &[0x0f, 0xc0], &[0x0f, 0xb0]][op];
        let reg = if size == 1 && op == 0 { high } else { reg };
        let mut gpr = gprs(a, b, MIDDLE);
        if equal {
            // The accumulator as memory has it.
            let byte = |i: u64| (seed.wrapping_add(MIDDLE + i).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) << (8 * i);
            gpr[0] = (0..8).map(byte).sum();
        }
        check(&sized(size, opcode, &[at_rsi(reg)]), gpr, f, seed, 0);
        if size > 2 {
            // CMPXCHG8B and, aligned, CMPXCHG16B.
            let code = sized(size, &[0x0f, 0xc6], &[at_rsi(1)]);
            check(&code, gpr, f, seed, 0);
        }
    }

    #[test]
    fn bits(offset in -2000..2000i64, f in flags(), seed: u64, size in prop::sample::select(vec![2u8, 4, 8]), op in 0..4u8, imm: u8, constant: bool) {
        let mut gpr = gprs(0, 0, MIDDLE);
        gpr[2] = offset as u64;
        let code = if constant {
            sized(size, &[0x0f, 0xba & !1], &[at_rsi(4 + op), imm])
        } else {
            sized(size, &[0x0f, 0xa3 + op * 8], &[at_rsi(2)])
        };
        // With a constant the opcode has no width bit.
        let code = if constant { code.iter().map(|&b| if b == 0xbb { 0xba } else { b }).collect() } else { code };
        check(&code, gpr, f, seed, FLAGS & !alu::CF);
    }

    #[test]
    fn moves(a in value(), b in value(), seed: u64, pick in 0..20usize, displacement in -0x80..0x80i32, cross: bool) {
        let m = rsi + displacement;
        let code = assemble(|asm| match pick {
            0 => asm.mov(byte_ptr(m), ah),
            1 => asm.mov(byte_ptr(rsi + rbx * 4 + displacement), dl),
            2 => asm.mov(word_ptr(m), dx),
            3 => asm.mov(dword_ptr(m), r8d),
            4 => asm.mov(qword_ptr(m), rdx),
            5 => asm.mov(dh, byte_ptr(m)),
            6 => asm.mov(r8b, byte_ptr(m)),
            7 => asm.mov(ax, word_ptr(m)),
            8 => asm.mov(eax, dword_ptr(m)),
            9 => asm.mov(rax, qword_ptr(m)),
            10 => asm.movzx(eax, byte_ptr(m)),
            11 => asm.movzx(rax, word_ptr(m)),
            12 => asm.movsx(ax, byte_ptr(m)),
            13 => asm.movsx(rdx, word_ptr(m)),
            14 => asm.movsxd(rdx, dword_ptr(m)),
            15 => asm.movnti(dword_ptr(m), edx),
            16 => asm.mov(dword_ptr(esi + displacement), eax),
            17 => asm.mov(qword_ptr(m), -5),
            18 => asm.mov(word_ptr(m), 0x1234),
            _ => asm.mov(byte_ptr(m), 0x56),
        });
        let mut gpr = gprs(a, b, MIDDLE - u64::from(cross));
        gpr[3] = 3;
        check(&code, gpr, 0, seed, 0);
    }

    #[test]
    fn conditions(a in value(), f in flags(), seed: u64, cc in 0..16u8, size in prop::sample::select(vec![2u8, 4, 8]), set: bool) {
        let code = if set {
            vec![0x0f, 0x90 + cc, at_rsi(0)]
        } else {
            let code = sized(size, &[0x0f, 0], &[at_rsi(2)]);
            let n = code.len() - 2;
            let mut code = code;
            code[n] = 0x40 + cc;
            code
        };
        check(&code, gprs(a, a, MIDDLE), f, seed, 0);
    }

    #[test]
    fn strings(a in value(), f in flags(), down: bool, seed: u64, op in 0..5usize, size in size(), count in 0..80u64, repeat in 0..3usize, narrow: bool) {
        let opcode = [0xa4, 0xaa, 0xac, 0xa6, 0xae][op];
        let mut code = Vec::new();
        if narrow {
            code.push(0x67);
        }
        code.extend([&[][..], &[0xf3], &[0xf2]][repeat]);
        code.extend(sized(size, &[opcode], &[]));
        let mut gpr = gprs(a, 0, MIDDLE - 0x200);
        gpr[1] = count;
        let flags = f | if down { alu::DF } else { 0 };
        check(&code, gpr, flags, seed & !0xff, 0);
    }

    #[test]
    fn stack(a in value(), seed: u64, pick in 0..5usize) {
        let code = assemble(|asm| match pick {
            0 => asm.push(qword_ptr(rsi)),
            1 => asm.push(word_ptr(rsi)),
            2 => asm.pop(qword_ptr(rsi)),
            3 => asm.pop(word_ptr(rsi)),
            _ => asm.pop(qword_ptr(rsp + 8)),
        });
        check(&code, gprs(a, 0, MIDDLE), 0, seed, 0);
    }

    #[test]
    fn byte_swaps(a in value(), b in value(), seed: u64, size in prop::sample::select(vec![2u8, 4, 8]), store: bool) {
        if std::arch::is_x86_feature_detected!("movbe") {
            let mut code = sized(size, &[0x0f, 0x38, 0], &[at_rsi(2)]);
            let n = code.len() - 2;
            code[n] = 0xf0 | u8::from(store);
            check(&code, gprs(a, b, MIDDLE), 0, seed, 0);
        }
    }
}

#[test]
fn a_hint_changes_nothing() {
    // The same MOVs with the address given, away from a page boundary.
    for code in [&[0x89u8, 0x16][..], &[0x8a, 0x26], &[0x0f, 0xb7, 0x06], &[0xc7, 0x06, 1, 2, 3, 4]]
    {
        let mut ram = Ram::default();
        let mut state = common::long(&mut ram);
        ram.put(0x1000, code);
        ram.put64(0x2010, 0x8877_6655_4433_2211);
        (state.rip, state.gpr.rsi, state.gpr.rdx) = (0x1000, 0x2010, 0x1234_5678_9abc_def0);
        let (mut plain_ram, mut plain) = (ram.clone(), state);
        let hint = Hint { linear: 0x2010, gpa: 0x2010 };
        let with = emulate::emulate(&mut state, &mut ram, Some(hint));
        let without = emulate::emulate(&mut plain, &mut plain_ram, None);
        assert_eq!((with, state), (without, plain));
        assert_eq!(ram.pages, plain_ram.pages);
        assert!(ram.accesses.len() < plain_ram.accesses.len());
    }
}
