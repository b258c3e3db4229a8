//! The state image: what is written is there, what is not asked for is not.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::mem::offset_of;

use abi::cap::NULL;
use abi::hypercall::Status;
use abi::vcpu::{Exit, Groups, Segment, TableRegister, VcpuState};
use runtime::abi::cap::MemRights;
use runtime::ec::Ec;
use runtime::handler::Handler;
use runtime::hypercall;
use runtime::lock::Lock;
use runtime::pd::Pd;
use runtime::protocol::startup::Share;
use runtime::pt::Pt;
use runtime::sc::Sc;
use runtime::selector::FREE;
use runtime::sm::Sm;
use runtime::space::GuestSpace;

use super::exits::vm;
use super::modes::{self, Mode};
use super::vm::CODE;
use crate::processor::{Extension, extension, is_tcg};
use crate::report::{Bench, Check, Test};
use crate::{check, check_eq, code};

pub const TESTS: &[Test] = &[
    ("state.round-trip", round_trip),
    ("state.general-registers", general_registers),
    ("state.real-mode", real_mode),
    ("state.only-what-is-asked-for", only_asked),
    ("state.nothing-written-back", nothing_back),
    ("state.bad", bad),
    ("state.bad-at-first-entry", bad_at_first),
    ("state.bad-event", bad_event),
    ("state.nothing-pending", nothing_pending),
    ("state.step-pending", step_pending),
];

/// A long-mode state in which hardly a field has its usual value.
fn unusual() -> VcpuState {
    let mut state = modes::state(Mode::Long);
    for (index, register) in (0..16).zip([0; 16]) {
        *state.gpr.reg_mut(index) = 0x0101_0101_0101_0101 * u64::from(index) + register;
    }
    state.rflags = 0x0ed7 & !(1 << 8) | 2;
    state.blocking = 0;
    state.exceptions = 0x0002_4002;
    state.intercepts = 7;
    (state.cr0_mask, state.cr4_mask) = (1 << 3 | 1 << 16, 1 << 7);
    state.tsc_offset = 0x1122_3344_5566;
    state.cr0 |= 1 << 16 | 1 << 18 | 1 << 1;
    state.cr2 = 0xdead_beef_0123_4567;
    state.cr4 |= 1 << 3;
    state.dr = [0x1111_2222_3333, 0x2222_3333_4444, 0x3333_4444_5555, 0x4444_5555_6666];
    (state.dr6, state.dr7) = (0xffff_4ff3, 0x0000_0700);
    (state.efer, state.pat) = (0xd01, 0x0006_0401_0007_0500);
    state.fs = Segment { selector: 0x33, attr: 0x93 | 0x60, limit: 0xfff, base: 0x1234_5678_9abc };
    state.gs = Segment { selector: 0, attr: Segment::UNUSABLE, limit: 0, base: 0x7fff_0000_1111 };
    state.es = Segment { selector: 0x1b, attr: 0xcf3, limit: 0xffff_ffff, base: 0x1000 };
    state.ldtr = Segment { selector: 0x28, attr: 0x82, limit: 0x7f, base: 0xffff_8000_0000_1000 };
    state.tr = Segment { selector: 0x40, attr: 0x8b, limit: 0x2067, base: 0xffff_ffff_8000_0000 };
    state.gdtr = TableRegister { base: 0xffff_ffff_0000_2000, limit: 0x77 };
    state.idtr = TableRegister { base: 0x0000_7777_0000_0000, limit: 0xfff };
    (state.sysenter_cs, state.sysenter_esp, state.sysenter_eip) =
        (0x10, 0xffff_ffff_8123_0000, 0xffff_ffff_8123_4567);
    (state.star, state.lstar, state.cstar) =
        (0x0023_0010_0000_0000, 0xffff_ffff_8765_4321, 0x1234_5678);
    (state.fmask, state.kernel_gs_base, state.tsc_aux) = (0x4_7700, 0xffff_8888_7777_6666, 0x123);
    state
}

fn round_trip(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    vm.load(Mode::Long, code!(64, "hlt"))?;
    vm.state = unusual();
    vm.expect(Groups::ALL, Exit::Hlt)?;
    let expected = unusual();
    let got = vm.state;
    // Each by its name, so that the report says which one it is.
    macro_rules! same {
        ($($field:ident),+) => {
            $(check_eq!(got.$field, expected.$field, stringify!($field));)+
        };
    }
    same!(
        gpr,
        rip,
        event,
        window,
        blocking,
        exceptions,
        intercepts,
        cr0_mask,
        cr4_mask,
        tsc_offset,
        deadline,
        cr0,
        cr2,
        cr3,
        cr4,
        dr,
        dr6,
        dr7,
        efer,
        pat,
        cs,
        ss,
        ds,
        es,
        fs,
        tr,
        ldtr,
        gdtr,
        idtr,
        sysenter_cs,
        sysenter_esp,
        sysenter_eip,
        star,
        lstar,
        cstar,
        fmask,
        kernel_gs_base,
        xcr0
    );
    check_eq!(got.gs.base, expected.gs.base, "gs.base");
    check_eq!(got.gs.attr & Segment::UNUSABLE, Segment::UNUSABLE, "gs.attr");
    // RF and what the exit may set aside.
    check_eq!(got.rflags & !(1 << 16), expected.rflags, "rflags");
    if got.tsc_aux != expected.tsc_aux {
        check_eq!(got.tsc_aux, 0, "tsc_aux of a processor without it");
    }
    Ok(())
}

fn general_registers(bench: &mut Bench<'_>) -> Check {
    // The guest adds to each, and to what is written back at an exit in between.
    let mut vm = vm(bench)?;
    let code = code!(
        64, "inc rax", "inc rcx", "inc rdx", "inc rbx", "inc rsp", "inc rbp", "inc rsi", "inc rdi",
        "inc r8", "inc r9", "inc r10", "inc r11", "inc r12", "inc r13", "inc r14", "inc r15",
        "hlt", "jmp 771b",
    );
    vm.load(Mode::Long, code)?;
    for index in 0..16 {
        *vm.state.gpr.reg_mut(index) = 0x1_0000 * u64::from(index);
    }
    vm.expect(Groups::ALL, Exit::Hlt)?;
    for (index, value) in (0..).zip(vm.state.gpr.to_array()) {
        check_eq!(value, 0x1_0000 * index + 1, "register {index}");
    }
    // Only the named group changes.
    let groups = [
        (Groups::ACDB, 0b1111),
        (Groups::RSP, 1 << 4),
        (Groups::BSD, 7 << 5),
        (Groups::R8_R15, 0xff << 8),
    ];
    for (turn, (group, members)) in (2..).zip(groups) {
        let before = vm.state.gpr.to_array();
        for index in 0..16 {
            *vm.state.gpr.reg_mut(index) = 0x7000 + u64::from(index);
        }
        vm.expect(group | Groups::DONE, Exit::Hlt)?;
        for (index, (value, before)) in (0..).zip(vm.state.gpr.to_array().into_iter().zip(before)) {
            let expected = if members >> index & 1 == 1 { 0x7000 + index } else { before };
            check_eq!(value, expected + 1, "register {index} in turn {turn}");
        }
    }
    Ok(())
}

fn real_mode(bench: &mut Bench<'_>) -> Check {
    // Segments with bases of their own.
    let mut vm = vm(bench)?;
    vm.load(Mode::Real, code!(16, "mov ax, [bx]", "mov es:[bx], ax", "hlt"))?;
    vm.state.ds = Segment { selector: 0x900, attr: 0x93, limit: 0xffff, base: 0x9000 };
    vm.state.es = Segment { selector: 0x2000, attr: 0x93, limit: 0xffff, base: 0x2_0000 };
    vm.state.gpr.rbx = 0x10;
    vm.poke(0x9010, &[0x34, 0x12])?;
    vm.expect(Groups::ALL, Exit::Hlt)?;
    check_eq!(vm.state.gpr.rax & 0xffff, 0x1234, "AX");
    check_eq!(vm.peek::<2>(0x2_0010)?, [0x34, 0x12], "what was stored");
    Ok(())
}

struct Filled {
    state: Lock<VcpuState>,
    stopped: Sm,
    go: Sm,
}

/// For processors that do not tell; others overlook it.
const CPUID_LENGTH: u64 = 2;

/// No field of a state has this value by itself.
const SENTINEL: u64 = 0x5e5e_5e5e_5e5e_5e5e;

fn sentinels() -> VcpuState {
    // SAFETY: a state is numbers, for which any bits will do.
    unsafe { core::mem::transmute::<[u64; WORDS], VcpuState>([SENTINEL; WORDS]) }
}

const WORDS: usize = size_of::<VcpuState>() / 8;

/// The words of a state that belong to a group, as a range of bytes.
fn fields(group: u32) -> &'static [(usize, usize)] {
    macro_rules! range {
        ($first:ident .. $end:ident) => {
            (offset_of!(VcpuState, $first), offset_of!(VcpuState, $end))
        };
    }
    const G: usize = offset_of!(VcpuState, gpr);
    match group {
        0 => &[(G, G + 32)],
        1 => &[(G + 40, G + 64)],
        2 => &[(G + 32, G + 40)],
        3 => &[(G + 64, G + 128)],
        4 => &[range!(rip..rflags)],
        5 => &[range!(rflags..qual)],
        6 => &[range!(qual..event)],
        7 => &[range!(event..window)],
        8 => &[range!(window..blocking)],
        9 => &[range!(blocking..exceptions)],
        10 => &[range!(exceptions..tsc_offset)],
        11 => &[range!(tsc_offset..deadline)],
        12 => &[range!(deadline..cr0)],
        13 => &[range!(cr0..dr)],
        14 => &[range!(dr..efer)],
        15 => &[range!(efer..cs)],
        16 => &[range!(cs..ds)],
        17 => &[range!(ds..fs)],
        18 => &[range!(fs..tr)],
        19 => &[range!(tr..sysenter_cs)],
        20 => &[range!(sysenter_cs..star)],
        21 => &[range!(star..xcr0)],
        22 => &[(offset_of!(VcpuState, xcr0), size_of::<VcpuState>())],
        _ => &[range!(cr2..cr3)],
    }
}

fn only_asked(bench: &mut Bench<'_>) -> Check {
    let make = || -> Result<(Pt, &'static Filled), Status> {
        let space = GuestSpace::create(Pd::OWN)?;
        let region = bench.memory.region(0, 0x1_0000).map_err(|_| Status::BadParam)?;
        space.grant(region, 0, MemRights::RWX)?;
        let code = code!(16, "cpuid", "jmp 771b");
        bench.memory.write(CODE, code).map_err(|_| Status::BadParam)?;
        let filled: &'static Filled = Box::leak(Box::new(Filled {
            state: Lock::new(VcpuState::default()),
            stopped: Sm::create(Pd::OWN, 0)?,
            go: Sm::create(Pd::OWN, 0)?,
        }));
        let handler = Handler::new(filled)?;
        let portals = FREE.range(abi::vcpu::EXITS)?;
        handler.portal_at(
            portals + Exit::Startup as u32,
            0,
            0,
            |_: &mut &'static Filled, state: &mut VcpuState, _, _| {
                *state = modes::state(Mode::Real);
                Groups::ALL
            },
        )?;
        let cpuid = handler.portal_at(
            portals + Exit::Cpuid as u32,
            0,
            0,
            |filled: &mut &'static Filled, state: &mut VcpuState, _, _| {
                *filled.state.lock() = *state;
                *state = sentinels();
                state.inst_len = CPUID_LENGTH;
                let _ = filled.stopped.up();
                while filled.go.down().is_err() {}
                Groups::DONE
            },
        )?;
        let vcpu = FREE.one()?;
        hypercall::create_vcpu(
            vcpu,
            Pd::OWN.selector(),
            (0, portals),
            (space.selector(), NULL, NULL),
        )?;
        let share = Share { priority: bench.priority - 2, budget: bench.hz / 100, period: 0 };
        Sc::create(Pd::OWN, Ec::at(vcpu), share)?;
        Ok((cpuid, filled))
    };
    let (portal, filled) = make().map_err(|status| format!("{status:?}"))?;
    let next = || -> Result<[u64; WORDS], String> {
        filled.stopped.down_until(bench.in_ms(100)).map_err(|_| "no exit")?;
        // SAFETY: a state is numbers without gaps.
        Ok(unsafe { core::mem::transmute::<VcpuState, [u64; WORDS]>(*filled.state.lock()) })
    };
    next()?;
    for group in 0..24_u32 {
        portal.change(0, 1 << group).map_err(|status| format!("{status:?}"))?;
        filled.go.up().map_err(|status| format!("{status:?}"))?;
        let words = next()?;
        // SAFETY: words are bytes.
        let bytes = unsafe { core::mem::transmute::<[u64; WORDS], [u8; WORDS * 8]>(words) };
        let length = offset_of!(VcpuState, inst_len)..offset_of!(VcpuState, rflags);
        let untouched = |at: usize, byte| {
            let old = if length.contains(&at) {
                CPUID_LENGTH.to_le_bytes()[at - length.start]
            } else {
                0x5e
            };
            byte == old
        };
        let inside = |at: usize| fields(group).iter().any(|(from, to)| (*from..*to).contains(&at));
        for (at, byte) in bytes.into_iter().enumerate() {
            check!(untouched(at, byte) || inside(at), "group {group} fills byte {at} of the state");
        }
        let filled = (0..bytes.len()).any(|at| inside(at) && !untouched(at, bytes[at]));
        check!(filled, "group {group} fills nothing");
    }
    Ok(())
}

fn nothing_back(bench: &mut Bench<'_>) -> Check {
    // Whatever the image says, a reply without groups changes nothing.
    let mut vm = vm(bench)?;
    vm.load(Mode::Long, code!(64, "cpuid", "hlt"))?;
    let before = vm.state;
    vm.expect(Groups::ALL, Exit::Cpuid)?;
    vm.state = sentinels();
    vm.expect(Groups::NONE, Exit::Cpuid)?;
    vm.state = sentinels();
    vm.expect(Groups::DONE, Exit::Hlt)?;
    check_eq!(vm.state.gpr, before.gpr, "general registers");
    check_eq!(
        (vm.state.cr0, vm.state.cr3, vm.state.cr4),
        (before.cr0, before.cr3, before.cr4),
        "CRs"
    );
    check_eq!((vm.state.cs, vm.state.ss), (before.cs, before.ss), "CS and SS");
    check_eq!(vm.state.rip, CODE + 2, "RIP");
    check_eq!((vm.state.efer, vm.state.deadline), (before.efer, before.deadline), "EFER, deadline");
    Ok(())
}

/// What is wrong, in which mode, who refuses it, and how to make it so.
type Spoiler = (&'static str, Mode, Refused, fn(&mut VcpuState));

/// Who refuses to enter a guest in a bad state.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// All processors (SDM 3C 27.3, APM 2 15.5.1).
    Always,
    /// Those with VT-x. Others take it for something that there is, and what the guest does then concerns nobody else.
    ByVmx,
    /// The kernel, where QEMU would not find back from it. Processors do.
    ForQemu,
}

use Refused::{Always, ByVmx, ForQemu};

impl Refused {
    fn here(self) -> bool {
        match self {
            Always => true,
            ByVmx => extension() == Extension::Vmx,
            ForQemu => extension() == Extension::Svm && is_tcg(),
        }
    }
}

/// Ways to spoil a state.
const SPOILERS: [Spoiler; 20] = [
    ("RFLAGS bit 1", Mode::Long, ByVmx, |s| s.rflags = 0),
    ("RFLAGS reserved", Mode::Long, ByVmx, |s| s.rflags |= 1 << 15),
    ("VM flag in long mode", Mode::Long, ByVmx, |s| s.rflags |= 1 << 17),
    ("CS unusable", Mode::Long, ByVmx, |s| s.cs.attr = Segment::UNUSABLE),
    ("CS of 16, 32 and 64 bits", Mode::Long, Always, |s| s.cs.attr |= 1 << 10),
    ("TR unusable", Mode::Protected, ByVmx, |s| s.tr.attr = Segment::UNUSABLE),
    ("TR available", Mode::Long, ByVmx, |s| s.tr.attr = 0x89),
    ("paging without protection", Mode::Real, ByVmx, |s| s.cr0 |= 1 << 31),
    ("long mode without protection", Mode::Long, Always, |s| s.cr0 &= !1),
    ("long mode without PAE", Mode::Long, Always, |s| s.cr4 &= !(1 << 5)),
    ("CR0 beyond 32 bits", Mode::Long, Always, |s| s.cr0 |= 1 << 40),
    ("CR4 reserved", Mode::Long, Always, |s| s.cr4 |= 1 << 40),
    ("EFER reserved", Mode::Long, Always, |s| s.efer |= 1 << 40),
    ("RIP beyond 32 bits", Mode::Protected, ByVmx, |s| s.rip = 1 << 32),
    ("GDT base not canonical", Mode::Protected, ByVmx, |s| s.gdtr.base = 0x8000_0000_0000),
    ("LME before PAE and paging", Mode::Protected, ForQemu, |s| s.efer |= 1 << 8),
    ("LME in real mode", Mode::Real, ForQemu, |s| s.efer |= 1 << 8),
    ("LMA without LME", Mode::Long, ByVmx, |s| s.efer = 1 << 10),
    ("blocked by STI and MOV SS", Mode::Real, ByVmx, |s| s.blocking = 3),
    ("SS of another privilege", Mode::Protected, ByVmx, |s| s.ss.attr |= 3 << 5),
];

/// What every processor refuses.
const fn spoil(state: &mut VcpuState) {
    state.cr4 &= !(1 << 5);
}

fn bad(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    for (name, mode, refused, spoil) in SPOILERS {
        // QEMU ends itself when the guest, without privilege, raises an exception: it takes the task for one that is not busy.
        if is_tcg() && name == "SS of another privilege" {
            continue;
        }
        vm.load(mode, &[0xf4])?;
        spoil(&mut vm.state);
        if refused.here() {
            vm.expect(Groups::ALL, Exit::BadState).map_err(|why| format!("{name}: {why}"))?;
            check!(vm.state.qual[0] != 0, "{name}: no reason given");
        } else {
            // Wherever that leads, and be it into an endless loop: the guest can be stopped.
            vm.resume(Groups::ALL)?;
            vm.patience = 5;
            let _ = vm.wait();
            vm.patience = 100;
            vm.stop().map_err(|why| format!("{name}: {why}"))?;
        }
        // The image shows what is wrong, so that it can be repaired.
        vm.state = modes::state(mode);
        let exit = vm.run(Groups::ALL)?;
        // If it was stopped just when it left by itself.
        let exit = if exit == Exit::Recall { vm.run(Groups::NONE)? } else { exit };
        check_eq!(exit, Exit::Hlt, "{name}, repaired");
    }
    // A state that is not repaired is refused again, without end and without harm.
    vm.load(Mode::Long, &[0xf4])?;
    spoil(&mut vm.state);
    vm.expect(Groups::ALL, Exit::BadState)?;
    for _ in 0..10 {
        vm.expect(Groups::NONE, Exit::BadState)?;
    }
    Ok(())
}

fn bad_at_first(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    for _ in 0..3 {
        vm.load(Mode::Long, &[0xf4])?;
        spoil(&mut vm.state);
        vm.expect(Groups::ALL, Exit::BadState)?;
    }
    vm.start(Mode::Long, &[0xf4], Exit::Hlt)
}

fn bad_event(bench: &mut Bench<'_>) -> Check {
    // What no processor injects (SDM 3C 27.2.1.3, APM 2 15.20): a reserved kind, an exception above 31; and what only some refuse: an
    // NMI of another vector, reserved bits.
    let mut vm = vm(bench)?;
    for (info, refused) in [
        (1 << 31 | 1 << 8 | 0x40, Always),
        (1 << 31 | 3 << 8 | 40, Always),
        (1 << 31 | 2 << 8 | 3, ByVmx),
        (1 << 31 | 1 << 20, ByVmx),
    ] {
        vm.load(Mode::Long, &[0xf4])?;
        vm.state.event.info = info;
        let exit = vm.run(Groups::ALL)?;
        if refused.here() {
            check_eq!(exit, Exit::BadState, "event {info:#x}");
        }
        vm.start(Mode::Long, &[0xf4], Exit::Hlt)
            .map_err(|why| format!("after {info:#x}: {why}"))?;
    }
    Ok(())
}

/// A single step that is pending when the guest is left does not come to one that starts elsewhere.
fn nothing_pending(bench: &mut Bench<'_>) -> Check {
    const TRAP: u64 = 1 << 8;
    let mut vm = vm(bench)?;
    vm.load(Mode::Protected, code!(32, "hlt"))?;
    vm.state.rflags |= TRAP;
    // The HLT ends the shadow, and leaves before the step is taken.
    vm.state.blocking = abi::vcpu::blocking::MOV_SS;
    vm.expect(Groups::ALL, Exit::Hlt)?;
    vm.load(Mode::Protected, code!(32, "hlt"))?;
    vm.state.exceptions = u32::MAX;
    vm.expect(Groups::ALL, Exit::Hlt)
}

/// A step that is pending when the guest is called out is taken later, although its whole state was read and written.
fn step_pending(bench: &mut Bench<'_>) -> Check {
    const TRAP: u64 = 1 << 8;
    const SINGLE_STEP: u64 = 1 << 14;
    let mut vm = vm(bench)?;
    // Late would be behind the second.
    vm.load(Mode::Long, code!(64, "cpuid", "cpuid", "hlt"))?;
    vm.state.rflags |= TRAP;
    vm.expect(Groups::ALL, Exit::Cpuid)?;
    vm.vcpu.recall().map_err(|status| format!("{status:?}"))?;
    vm.expect(Groups::DONE, Exit::Recall)?;
    check_eq!(vm.state.rip, CODE + 2, "RIP");
    vm.expect(Groups::ALL, Exit::Hlt)?;
    check_eq!(vm.state.rip, modes::stub(1), "the handler of the step");
    check_eq!(vm.state.dr6 & SINGLE_STEP, SINGLE_STEP, "DR6.BS");
    Ok(())
}
