//! A guest that computes a checksum whose value is known, over and over, until somebody types something.
//!
//! Between the halves of a round it sleeps, with its numbers in general, vector and system-call registers: whoever runs then
//! must not be seen in the result.

use alloc::format;

use abi::vcpu::{Exit, Groups};
use runtime::console::Input;
use runtime::pd::Pd;
use runtime::sm::Sm;

use crate::report::{Bench, Check};
use crate::vcpu::modes::Mode;
use crate::vcpu::vm::{DATA, Spaces, Vm};
use crate::{check, check_eq, code};

/// Steps of a round's half.
const STEPS: u32 = 20_000;
/// Words of memory that take part.
const WORDS: u64 = 512;

/// One step of the checksum, as the guest's code below does it.
const fn step(sum: u64, word: u64) -> u64 {
    (sum ^ word).rotate_left(13).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(word)
}

/// What a round starts from.
const fn word(index: u64, round: u64) -> u64 {
    (index + round).wrapping_mul(0xd134_2543_de82_ef95)
}

/// The sum of a round: 2 * [`STEPS`] steps over the words.
fn expected(round: u64) -> u64 {
    let mut sum = round;
    for number in 0..2 * u64::from(STEPS) {
        sum = step(sum, word(number % WORDS, round));
    }
    sum
}

/// Works until there is input. Returns the number of rounds.
///
/// # Errors
/// A sum that is wrong, or an exit that is.
pub fn work(bench: &Bench<'_>, input: &mut Input) -> Result<u64, alloc::string::String> {
    let mut vm = Vm::new(bench, 0, Spaces::default())?;
    // The hostile neighbour has all the time that is left over; and the host may be busy.
    vm.patience = 20_000;
    let sleep = Sm::create(Pd::OWN, 0).map_err(|status| format!("{status:?}"))?;
    let mut rounds = 0;
    while input.read(&mut [0; 16]) == 0 {
        round(bench, &mut vm, &sleep, rounds).map_err(|why| format!("round {rounds}: {why}"))?;
        rounds += 1;
    }
    Ok(rounds)
}

fn round(bench: &Bench<'_>, vm: &mut Vm, sleep: &Sm, round: u64) -> Check {
    // RAX: sum. RSI: index. RCX: steps. R8: factor. At CPUID everything lies in registers of another kind as well.
    let code = code!(
        64,
        "4:",
        "mov rdx, [rbx + rsi * 8]",
        "xor rax, rdx",
        "rol rax, 13",
        "imul rax, r8",
        "add rax, rdx",
        "inc esi",
        "and esi, 511",
        "dec ecx",
        "jnz 4b",
        "test ebp, ebp",
        "jnz 5f",
        "inc ebp",
        "movq xmm7, rax",
        "pinsrw xmm7, esi, 4",
        "cpuid",
        "movq rax, xmm7",
        "pextrw esi, xmm7, 4",
        "mov ecx, edi",
        "jmp 4b",
        "5:",
        "hlt",
    );
    vm.load(Mode::Long, code)?;
    for index in 0..WORDS {
        vm.poke(DATA + 8 * index, &word(index, round).to_le_bytes())?;
    }
    let gpr = &mut vm.state.gpr;
    (gpr.rax, gpr.rbx, gpr.rsi, gpr.rbp) = (round, DATA, 0, 0);
    (gpr.rcx, gpr.rdi, gpr.r8) = (STEPS.into(), STEPS.into(), 0x9e37_79b9_7f4a_7c15);
    vm.state.rflags = 0x202;
    vm.state.lstar = 0xffff_8000_0000_0000 + round;
    vm.state.dr[3] = 0x77_0000 + round;
    vm.expect(Groups::ALL, Exit::Cpuid)?;
    let _ = sleep.down_until(bench.in_ms(20));
    // The registers that the checksum does not need: the vector register has it.
    let gpr = &mut vm.state.gpr;
    (gpr.rax, gpr.rcx) = (0, 0);
    vm.expect(Groups::DONE | Groups::ACDB, Exit::Hlt)?;
    check_eq!(vm.state.gpr.rax, expected(round), "checksum");
    check_eq!(vm.state.lstar, 0xffff_8000_0000_0000 + round, "LSTAR");
    check_eq!(vm.state.dr[3], 0x77_0000 + round, "DR3");
    check!(vm.state.gpr.rbp == 1, "one exit");
    Ok(())
}
