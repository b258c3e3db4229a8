//! States that no guest can be entered in: each comes back as an exit, nothing else happens, and a state that is right runs again.
//!
//! | module | what it holds |
//! |---|---|
//! | [`rules`] | what the manuals demand of a state, and who demands it |
//! | [`fields`] | the generator: changes of every field |
//!
//! Nothing here is picked by hand: a valid state of each mode is changed field by field, the rules say which of the changed states
//! are refused, and the processor must agree in both directions.

pub mod fields;
pub mod rules;

use alloc::format;
use alloc::string::String;
use core::fmt::Write;

use abi::vcpu::{Event, Exit, Groups, Segment, VcpuState};

use crate::processor::{Extension, extension, is_tcg};
use crate::report::{Bench, Check, Test};
use crate::vcpu::modes;
use crate::vcpu::vm::{CODE, Spaces, Vm};
use crate::{check, check_eq};
use fields::Change;
use rules::RULES;

/// One for each mode.
pub const TESTS: &[Test] = &[
    ("invalid.real", |bench| mode(bench, Mode::Real)),
    ("invalid.virtual-8086", |bench| mode(bench, Mode::Virtual8086)),
    ("invalid.protected", |bench| mode(bench, Mode::Protected)),
    ("invalid.pae", |bench| mode(bench, Mode::Pae)),
    ("invalid.long", |bench| mode(bench, Mode::Long)),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Real,
    Virtual8086,
    Protected,
    Pae,
    Long,
}

impl Mode {
    /// The least number of changes that must be refused: with VT-x, and with AMD-V as QEMU emulates it. A generator that has lost
    /// its teeth is noticed.
    const fn least(self) -> (u32, u32) {
        match self {
            Self::Real => (1790, 250),
            Self::Virtual8086 => (2030, 250),
            Self::Protected => (1780, 250),
            Self::Pae => (1780, 250),
            Self::Long => (1730, 250),
        }
    }

    /// Where a guest in its valid state is left, at its first instruction, HLT.
    const fn exit(self) -> Exit {
        match self {
            // HLT is not for user programs.
            Self::Virtual8086 => Exit::Exception,
            _ => Exit::Hlt,
        }
    }
}

/// Page-directory pointers of PAE paging; the page directory is in the next page.
const PAE_TABLES: u64 = 0x2_0000;

/// A state in which a guest runs, and its memory with HLT.
fn prepare(vm: &mut Vm, mode: Mode) -> Result<VcpuState, String> {
    let base = if mode == Mode::Long { modes::Mode::Long } else { modes::Mode::Protected };
    vm.load(base, &[0xf4])?;
    let mut state = match mode {
        Mode::Real => modes::state(modes::Mode::Real),
        Mode::Pae => {
            // Two large pages, which map the guest's memory as it is.
            let (pointer, large) = ((PAE_TABLES + 0x1000) | 1, 0x87_u64);
            vm.poke(PAE_TABLES, &pointer.to_le_bytes())?;
            for index in 0..2 {
                let entry = index << 21 | large;
                vm.poke(PAE_TABLES + 0x1000 + 8 * index, &entry.to_le_bytes())?;
            }
            let mut state = vm.state;
            // PG; PAE.
            (state.cr0, state.cr4) = (state.cr0 | 1 << 31, state.cr4 | 1 << 5);
            (state.cr3, state.pdpte) = (PAE_TABLES, [pointer, 0, 0, 0]);
            state
        }
        _ => vm.state,
    };
    if mode == Mode::Virtual8086 {
        let segment = Segment { selector: 0, attr: 0xf3, limit: 0xffff, base: 0 };
        (state.cs, state.ss, state.ds) = (segment, segment, segment);
        (state.es, state.fs, state.gs) = (segment, segment, segment);
        state.rflags |= 1 << 17;
    }
    // With a table in use there is more to be wrong.
    state.ldtr = Segment { selector: 0x28, attr: 0x82, limit: 0x7f, base: 0x9000 };
    state.rip = CODE;
    // With interrupts on: Bochs takes none of the host's from a guest that is entered without.
    state.rflags |= 1 << 9;
    // Whatever the guest raises ends its run.
    state.exceptions = u32::MAX;
    if is_tcg() {
        // QEMU takes the stack for an event that raises the privilege only from a task that is not busy, or ends itself.
        state.tr.attr &= !2;
    }
    Ok(state)
}

/// What has been counted.
#[derive(Default)]
struct Counts {
    changes: u32,
    violations: u32,
    refused: u32,
    elsewhere: u32,
}

fn mode(bench: &mut Bench<'_>, mode: Mode) -> Check {
    let mut vm = Vm::new(bench, 0, Spaces::default())?;
    vm.patience = 1000;
    let valid = prepare(&mut vm, mode)?;
    run(&mut vm, &valid, mode)?;
    let mut counts = Counts::default();
    let mut wrong = String::new();
    fields::all(&valid, &mut |change: &Change<'_>| {
        if change.state == &valid || ends_emulator(change.state) {
            return Ok(());
        }
        counts.changes += 1;
        let broken = |known: bool, here: bool| {
            RULES.iter().position(|rule| {
                rule.is_known() == known && rule.is_here() == here && rule.is_broken(change.state)
            })
        };
        let expected = broken(true, true);
        let unknown = broken(false, false).is_some();
        let refused = attempt(&mut vm, change.state, bench.hz)
            .map_err(|why| format!("{} {:#x}: {why}", change.field, change.value))?;
        if expected.is_some() {
            counts.violations += 1;
            counts.refused += u32::from(refused);
        } else if broken(true, false).is_some() {
            counts.elsewhere += 1;
        }
        if refused != expected.is_some() && !unknown && wrong.len() < 1500 {
            let name =
                expected.and_then(|rule| RULES.get(rule)).map_or("nothing", |rule| rule.name);
            let _ = write!(
                wrong,
                "{} {:#x}: refused {refused}, broken: {name}; ",
                change.field, change.value
            );
        }
        run(&mut vm, &valid, mode)
            .map_err(|why| format!("{} {:#x}, mended: {why}", change.field, change.value))
    })?;
    bench.say(format_args!(
        "{mode:?}: {} changes, {} violations, {} refused, {} refused elsewhere only",
        counts.changes, counts.violations, counts.refused, counts.elsewhere
    ));
    check!(wrong.is_empty(), "{wrong}");
    let (vmx, svm) = mode.least();
    let least = if extension() == Extension::Vmx { vmx } else { svm };
    check!(counts.refused >= least, "only {} of at least {least} were refused", counts.refused);
    Ok(())
}

/// Whether the emulator ends itself over such a guest, which is not what this is about.
fn ends_emulator(state: &VcpuState) -> bool {
    const PAGING: u64 = 1 << 31;
    const PHYSICAL_ADDRESSES: u64 = 1 << 5;
    const LONG_MODE: u64 = 1 << 8;
    const LONG_MODE_ACTIVE: u64 = 1 << 10;
    match extension() {
        // Bochs 3.0 overlooks the rule that long mode has paging, and panics.
        Extension::Vmx => state.efer & LONG_MODE_ACTIVE != 0 && state.cr0 & PAGING == 0,
        // QEMU 7.2 does not restore the CR0 of its host when it leaves such a guest.
        Extension::Svm => {
            is_tcg()
                && state.efer & LONG_MODE != 0
                && state.cr0 & PAGING == 0
                && state.cr4 & PHYSICAL_ADDRESSES == 0
        }
    }
}

/// Tries to enter a guest. Whether it was refused; if not, wherever that has led, the guest is called out.
fn attempt(vm: &mut Vm, state: &VcpuState, hz: u64) -> Result<bool, String> {
    vm.state = *state;
    vm.state.deadline = runtime::clock::now() + hz / 500;
    let exit = vm.run(Groups::ALL)?;
    if exit == Exit::BadState {
        check!(vm.state.qual != [0; 3], "no reason given");
        // Refused again, without end and without harm.
        check_eq!(run_on(vm, Groups::NONE)?, Exit::BadState, "once more");
    }
    Ok(exit == Exit::BadState)
}

/// The next exit that is not due to a deadline of before.
fn run_on(vm: &mut Vm, reply: Groups) -> Result<Exit, String> {
    match vm.run(reply)? {
        Exit::Recall => vm.run(Groups::NONE),
        exit => Ok(exit),
    }
}

/// The valid state runs.
fn run(vm: &mut Vm, valid: &VcpuState, mode: Mode) -> Check {
    vm.state = *valid;
    vm.state.event = Event::NONE;
    let exit = run_on(vm, Groups::ALL)?;
    check_eq!((exit, vm.state.rip), (mode.exit(), CODE), "exit, RIP");
    Ok(())
}
