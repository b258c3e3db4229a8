//! Guest memory: what is granted can be used, the rest arrives as an exit.

use alloc::format;

use abi::cap::MemRights;
use abi::vcpu::{Exit, Groups, MemoryAccess};

use super::exits::vm;
use super::modes::{self, Mode};
use super::vm::{CODE, Vm};
use crate::report::{Bench, Check, Test};
use crate::{check, check_eq, code};

pub const TESTS: &[Test] = &[
    ("memory.absent", absent),
    ("memory.rights", rights),
    ("memory.real-mode", real_mode),
    ("memory.page-walk", page_walk),
    ("memory.revoke", revoke),
    ("memory.replace", replace),
    ("memory.large", large),
    ("memory.beyond", beyond),
];

const READ: u64 = MemoryAccess::READ;
const WRITE: u64 = MemoryAccess::WRITE;
const FETCH: u64 = MemoryAccess::FETCH;
const FINAL: u64 = MemoryAccess::FINAL;
const KNOWN: u64 = READ | WRITE | FETCH | FINAL;

/// The page that the tests take away.
const PAGE: u64 = 0x2_0000;

/// The exit is for that access at that address, guest-physical and linear.
fn arrived(vm: &Vm, access: u64, address: u64) -> Check {
    check_eq!(vm.state.qual[0] & KNOWN, access | FINAL, "access");
    check_eq!(vm.state.qual[1], address, "guest-physical address");
    if let Some(linear) = vm.linear()? {
        check_eq!(linear, address, "linear address");
    }
    Ok(())
}

/// Reads, writes and runs the page at 0x20000.
fn program() -> &'static [u8] {
    code!(
        64,
        "mov rdi, 0x20000",
        "mov eax, [rdi + 0x123]",
        "mov [rdi + 0x456], eax",
        "call rdi",
        "hlt",
    )
}

fn absent(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    for (rights, access, address) in [
        (MemRights(0), READ, PAGE + 0x123),
        (MemRights::R, WRITE, PAGE + 0x456),
        (MemRights::RW, FETCH, PAGE),
    ] {
        vm.load(Mode::Long, program())?;
        // RET.
        vm.poke(PAGE, &[0xc3])?;
        vm.poke(PAGE + 0x123, &0x5566_u32.to_le_bytes())?;
        vm.unmap(PAGE, 0x1000, MemRights::RWX)?;
        vm.map(PAGE, 0x1000, rights)?;
        let result = vm.expect(Groups::ALL, Exit::Memory);
        vm.map(PAGE, 0x1000, MemRights::RWX)?;
        result.map_err(|why| format!("with {rights:?}: {why}"))?;
        arrived(&vm, access, address).map_err(|why| format!("with {rights:?}: {why}"))?;
        // Now that it is there, the instruction works.
        vm.expect(Groups::NONE, Exit::Hlt)?;
        check_eq!(vm.state.gpr.rax, 0x5566, "what the guest read");
        check_eq!(vm.peek::<4>(PAGE + 0x456)?, 0x5566_u32.to_le_bytes(), "what it wrote");
    }
    Ok(())
}

fn rights(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    let accesses = [
        (MemRights::R, READ, code!(64, "mov rdi, 0x20000", "mov eax, [rdi]", "hlt"), PAGE),
        (MemRights::W, WRITE, code!(64, "mov rdi, 0x20000", "mov [rdi + 4], eax", "hlt"), PAGE + 4),
        (MemRights::X, FETCH, code!(64, "mov rdi, 0x20000", "call rdi", "hlt"), PAGE),
    ];
    for given in [MemRights::R, MemRights::RW, MemRights::RX, MemRights::RWX, MemRights(0)] {
        for (need, access, code, address) in accesses {
            vm.load(Mode::Long, code)?;
            vm.poke(PAGE, &[0xc3])?;
            vm.unmap(PAGE, 0x1000, MemRights::RWX)?;
            vm.map(PAGE, 0x1000, given)?;
            let allowed = given.contains(need);
            let result = vm.expect(Groups::ALL, if allowed { Exit::Hlt } else { Exit::Memory });
            vm.map(PAGE, 0x1000, MemRights::RWX)?;
            result.map_err(|why| format!("{need:?} with {given:?}: {why}"))?;
            if !allowed {
                arrived(&vm, access, address).map_err(|why| format!("{need:?}: {why}"))?;
            }
        }
    }
    Ok(())
}

fn real_mode(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    vm.load(Mode::Real, code!(16, "mov ax, 0x2000", "mov ds, ax", "mov [0x10], al", "hlt"))?;
    vm.unmap(PAGE, 0x1000, MemRights::W)?;
    let result = vm.expect(Groups::ALL, Exit::Memory);
    vm.map(PAGE, 0x1000, MemRights::RWX)?;
    result?;
    arrived(&vm, WRITE, PAGE + 0x10)?;
    check_eq!(vm.state.ds.base, PAGE, "base of DS");
    vm.expect(Groups::NONE, Exit::Hlt)
}

fn page_walk(bench: &mut Bench<'_>) -> Check {
    // A page table of the guest that is not there: the address is the table entry's.
    let mut vm = vm(bench)?;
    vm.load(Mode::Long, code!(64, "mov rax, [0x200000]", "hlt"))?;
    let table = modes::TABLES + 0x2000;
    vm.unmap(table, 0x1000, MemRights::RWX)?;
    let result = vm.expect(Groups::ALL, Exit::Memory);
    vm.map(table, 0x1000, MemRights::RWX)?;
    result?;
    // Already the first instruction's fetch needs it.
    let access = vm.state.qual[0];
    check_eq!(access & FINAL, 0, "kind of access");
    // Some processors take it for a write: of the accessed bit (APM 2 15.25.6).
    check!(access & (READ | WRITE) != 0, "access {access:#x}");
    check_eq!(vm.state.qual[1], table, "guest-physical address");
    if let Some(linear) = vm.linear()? {
        check_eq!(linear, CODE, "linear address");
    }
    vm.expect(Groups::NONE, Exit::Hlt)
}

fn revoke(bench: &mut Bench<'_>) -> Check {
    // What is taken away between two exits is gone at once, whatever the processor remembers.
    let mut vm = vm(bench)?;
    let code =
        code!(64, "mov rdi, 0x20000", "2:", "mov [rdi], eax", "mov eax, [rdi]", "cpuid", "jmp 2b",);
    for (right, access) in [(MemRights::W, WRITE), (MemRights::RWX, WRITE)] {
        vm.start(Mode::Long, code, Exit::Cpuid)?;
        for _ in 0..3 {
            vm.expect(Groups::DONE, Exit::Cpuid)?;
        }
        vm.unmap(PAGE, 0x1000, right)?;
        let result = vm.expect(Groups::DONE, Exit::Memory);
        vm.map(PAGE, 0x1000, MemRights::RWX)?;
        result?;
        arrived(&vm, access, PAGE)?;
        vm.expect(Groups::NONE, Exit::Cpuid)?;
    }
    // And from a guest that runs: it stops by itself.
    vm.load(Mode::Long, code!(64, "mov rdi, 0x20000", "2:", "mov eax, [rdi]", "jmp 2b"))?;
    vm.state.rflags = 0x202;
    vm.patience = 5;
    vm.resume(Groups::ALL)?;
    check!(vm.wait().is_err(), "a guest without exits has one");
    vm.patience = 100;
    vm.unmap(PAGE, 0x1000, MemRights::RWX)?;
    let result = vm.wait();
    vm.map(PAGE, 0x1000, MemRights::RWX)?;
    check_eq!(result?, Exit::Memory, "exit");
    arrived(&vm, READ, PAGE)
}

fn replace(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    let code = code!(64, "mov rdi, 0x20000", "2:", "mov eax, [rdi]", "hlt", "jmp 2b");
    vm.load(Mode::Long, code)?;
    vm.poke(PAGE, &1_u32.to_le_bytes())?;
    vm.poke(PAGE + 0x1000, &2_u32.to_le_bytes())?;
    vm.expect(Groups::ALL, Exit::Hlt)?;
    check_eq!(vm.state.gpr.rax, 1, "the first page");
    // Another page at the same address.
    let other = bench.memory.region(PAGE + 0x1000, 0x1000).map_err(|_| "outside of memory")?;
    vm.space.grant(other, PAGE, MemRights::RWX).map_err(|status| format!("{status:?}"))?;
    vm.expect(Groups::DONE, Exit::Hlt)?;
    check_eq!(vm.state.gpr.rax, 2, "the second page");
    vm.map(PAGE, 0x1000, MemRights::RWX)?;
    vm.expect(Groups::DONE, Exit::Hlt)?;
    check_eq!(vm.state.gpr.rax, 1, "the first page again");
    Ok(())
}

fn large(bench: &mut Bench<'_>) -> Check {
    // The guest's second 2 MiB come as a large page where the frames allow it; a hole in it is a hole.
    const LARGE: u64 = 0x20_0000;
    let mut vm = vm(bench)?;
    let code = code!(64, "mov eax, [rdi]", "mov [rsi], ebx", "hlt");
    let go = |vm: &mut Vm, read: u64, write: u64, exit: Exit| {
        vm.load(Mode::Long, code)?;
        (vm.state.gpr.rdi, vm.state.gpr.rsi, vm.state.gpr.rbx) = (read, write, 0x99);
        vm.expect(Groups::ALL, exit)
    };
    vm.map(LARGE, LARGE, MemRights::RWX)?;
    vm.poke(LARGE + 0x5008, &[7, 0, 0, 0])?;
    go(&mut vm, LARGE + 0x5008, 2 * LARGE - 4, Exit::Hlt)?;
    check_eq!(vm.state.gpr.rax, 7, "what was read");
    check_eq!(vm.peek::<1>(2 * LARGE - 4)?, [0x99], "what was written");
    vm.unmap(LARGE + 0x5000, 0x1000, MemRights::W)?;
    go(&mut vm, LARGE + 0x5008, LARGE + 0x5ffc, Exit::Memory)?;
    arrived(&vm, WRITE, LARGE + 0x5ffc)?;
    vm.unmap(LARGE + 0x5000, 0x1000, MemRights::RWX)?;
    go(&mut vm, LARGE + 0x5000, LARGE, Exit::Memory)?;
    arrived(&vm, READ, LARGE + 0x5000)?;
    for neighbour in [LARGE + 0x4ffc, LARGE + 0x6000, LARGE, 2 * LARGE - 4] {
        go(&mut vm, neighbour, neighbour, Exit::Hlt)?;
    }
    vm.unmap(LARGE, LARGE, MemRights::RWX)?;
    go(&mut vm, LARGE, 0x9000, Exit::Memory)?;
    vm.map(LARGE, LARGE, MemRights::RWX)?;
    go(&mut vm, LARGE + 0x5008, LARGE + 0x5008, Exit::Hlt)?;
    check_eq!(vm.state.gpr.rax, 7, "what is still there");
    Ok(())
}

fn beyond(bench: &mut Bench<'_>) -> Check {
    // An address that was never granted, where a device might be.
    let mut vm = vm(bench)?;
    let code = code!(32, "mov edi, 0xfee000b0", "mov dword ptr [edi], 0x55", "hlt");
    vm.start(Mode::Protected, code, Exit::Memory)?;
    arrived(&vm, WRITE, 0xfee0_00b0)?;
    let length = code.len() as u64 - 6;
    check_eq!(vm.state.rip, CODE + 5, "RIP");
    // The VMM emulates the store and moves on itself.
    vm.state.rip += length;
    vm.expect(Groups::RIP, Exit::Hlt)?;
    check_eq!(vm.state.rip, CODE + code.len() as u64 - 1, "RIP at the end");
    Ok(())
}
