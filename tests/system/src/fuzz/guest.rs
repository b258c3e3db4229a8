//! The guests' memory: tables for every mode, and code that means no good.

use alloc::string::String;

use abi::cap::MemRights;
use runtime::memory::GuestMemory;

use super::layout::PLAY;
use super::rng::Rng;
use crate::code;
use crate::hostile::operation::harmless;
use crate::processor::is_tcg;
use crate::vcpu::modes::{self, Mode};

/// Pages of code, from the second page on: tables and the stack are among them.
pub const CODE_PAGES: u64 = 1;
/// More code, behind the tables.
const MORE_CODE: u64 = 0x1_4000;

/// First page, number of pages and rights of the parts of a guest's memory. What can be executed cannot be written to: QEMU translates
/// code anew whenever its page changes, and would do little else.
pub const PARTS: [(u64, u64, MemRights); 6] = [
    (0, 1, MemRights::RW),
    (1, 1, MemRights::RX),
    (2, 3, MemRights::RW),
    (5, 2, MemRights::RX),
    (7, MORE_CODE / 4096 - 7, MemRights::RW),
    (MORE_CODE / 4096, PLAY.1 - MORE_CODE / 4096, MemRights::RX),
];

/// Pieces of code, in every mode the same bytes.
fn pieces() -> [&'static [u8]; 24] {
    [
        code!(64, "cpuid"),
        code!(64, "hlt"),
        code!(64, "rdtsc"),
        code!(64, "pause"),
        code!(64, "wbinvd"),
        code!(64, "vmcall"),
        code!(64, "vmmcall"),
        code!(64, "rdmsr"),
        code!(64, "wrmsr"),
        code!(64, "mov ecx, 0xc0000080", "rdmsr", "wrmsr"),
        code!(64, "in al, dx"),
        code!(64, "out dx, eax"),
        code!(64, "out 0xf4, al"),
        code!(64, "rep outsb"),
        code!(64, "mov rax, cr0", "mov cr0, rax"),
        code!(64, "mov cr3, rax"),
        code!(64, "mov cr4, rax"),
        code!(64, "lgdt [rdi]"),
        code!(64, "int 0x20"),
        code!(64, "ud2"),
        code!(64, "sti", "cli"),
        code!(64, "mov [rdi], eax", "add edi, 0x1111"),
        code!(64, "mov eax, [rsi]", "add esi, 0x777"),
        code!(64, "invlpg [rdi]"),
    ]
}

/// Fills the part of an arena that guests get.
///
/// # Errors
/// When it is smaller than it should be.
pub fn fill(rng: &mut Rng, memory: GuestMemory) -> Result<(), String> {
    modes::prepare(memory, Mode::Long)?;
    let (pieces, tcg) = (pieces(), is_tcg());
    for (first, end) in [(0x1000, 0x2000), (MORE_CODE, PLAY.1 * 4096)] {
        let mut at = first;
        while at + 16 < end {
            let random = rng.next().to_le_bytes();
            let piece = pieces[rng.below(pieces.len() as u64) as usize];
            let mut bytes = if rng.once_in(8) { random.to_vec() } else { piece.to_vec() };
            bytes.iter_mut().for_each(|byte| *byte = harmless(*byte, tcg));
            memory.write(at, &bytes).map_err(|_| "outside of the arena")?;
            at += bytes.len() as u64;
        }
        // Back to the start, or to what looks like it.
        memory.write(end - 16, &[0xe9, 0, 0xf0, 0xff, 0xff]).map_err(|_| "outside of the arena")?;
    }
    Ok(())
}
