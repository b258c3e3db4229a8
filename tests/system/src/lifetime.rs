//! Virtual machines that are made and destroyed, again and again: the kernel is then where it began.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;

use abi::cap::{MemRights, Perms, Selector, SpaceKind, own};
use abi::hypercall::Status;
use abi::vcpu::{Exit, Groups, VcpuState};
use runtime::handler::Handler;
use runtime::hypercall;
use runtime::pd::{Limits, Pd};
use runtime::selector::FREE;
use runtime::sm::Sm;
use runtime::space::{GuestSpace, ObjectSpace};
use runtime::task::defaults;
use runtime::vcpu::real_mode_state;

use crate::report::{Bench, Check, Test};
use crate::{check, check_eq};

/// Takes minutes.
pub const TESTS: &[Test] = &[("lifetime.virtual-machines", virtual_machines)];

/// Virtual machines, one after the other.
const MACHINES: u32 = 100_000;
/// One in so many runs until its guest halts, and ends while its exit is being answered.
const RUNS: u32 = 8;
/// How often the memory is compared, and progress shown.
const ROUND: u32 = 10_000;
/// Kernel memory of each, in pages.
const PAGES: u64 = 40;
/// First event selector of the virtual CPU, in its own domain.
const EVENTS: Selector = 32;

fn show(status: Status) -> String {
    format!("{status:?}")
}

/// What answers exits: it lives on while the virtual machines come and go.
struct Monitor {
    halted: Sm,
    go: Sm,
}

/// Selectors of what a virtual machine consists of; the monitor's portals come last.
struct Places(Selector);

impl Places {
    const fn pd(&self) -> Selector {
        self.0
    }
    const fn space(&self, kind: SpaceKind) -> Selector {
        self.0 + 1 + kind as Selector
    }
    const fn vcpu(&self) -> Selector {
        self.0 + 8
    }
    const fn time(&self) -> Selector {
        self.0 + 9
    }
    const fn startup(&self) -> Selector {
        self.0 + 10
    }
    const fn halt(&self) -> Selector {
        self.0 + 11
    }
}

fn virtual_machines(bench: &mut Bench<'_>) -> Check {
    let make = || -> Result<_, Status> {
        let (halted, go) = (Sm::create(Pd::OWN, 0)?, Sm::create(Pd::OWN, 0)?);
        let monitor: &'static Monitor = Box::leak(Box::new(Monitor { halted, go }));
        let handler = Handler::new(monitor)?;
        let places = Places(FREE.range(12)?);
        handler.portal_at(places.startup(), 0, Groups::NONE.0, start)?;
        handler.portal_at(places.halt(), 0, Groups::NONE.0, halt)?;
        Ok((monitor, places))
    };
    let (monitor, places) = make().map_err(show)?;
    bench.memory.store_u64(0, 0xf4).map_err(|_| "no memory")?;
    // The first ones take pages that stay, for tables of capabilities.
    for number in 0..2 * RUNS {
        machine(bench, monitor, &places, number)?;
    }
    let before = Pd::OWN.quota().map_err(show)?;
    for number in 0..MACHINES {
        machine(bench, monitor, &places, number)?;
        if number.is_multiple_of(ROUND) {
            let now = Pd::OWN.quota().map_err(show)?;
            check_eq!(now, before, "kernel memory after {number} virtual machines");
            runtime::println!("{number} virtual machines");
        }
    }
    check_eq!(Pd::OWN.quota().map_err(show)?, before, "kernel memory at the end");
    Ok(())
}

/// One virtual machine, from its first page to its last.
fn machine(bench: &Bench<'_>, monitor: &Monitor, places: &Places, number: u32) -> Check {
    let pd = places.pd();
    let runs = number.is_multiple_of(RUNS);
    let region = bench.memory.region(0, 0x20_0000).map_err(|_| "no memory")?;
    let make = || -> Result<(), Status> {
        hypercall::create_pd(
            pd,
            own::PD,
            PAGES,
            Limits { priority: bench.priority, ..Limits::NONE },
        )?;
        for kind in [SpaceKind::Object, SpaceKind::Host, SpaceKind::Guest, SpaceKind::Msr] {
            hypercall::create_space(places.space(kind), pd, kind)?;
        }
        let objects = ObjectSpace::at(places.space(SpaceKind::Object));
        for (from, exit) in [(places.startup(), Exit::Startup), (places.halt(), Exit::Hlt)] {
            ObjectSpace::OWN.grant(from, objects, EVENTS + exit as Selector, Perms::PT_EVENT)?;
        }
        // In small pages and large ones, in turn.
        let gpa = if runs || number.is_multiple_of(2) { 0 } else { 0x1000 };
        let guest = GuestSpace::at(places.space(SpaceKind::Guest));
        guest.grant(region, gpa, MemRights::RWX)?;
        let spaces = (guest.selector(), places.space(SpaceKind::Msr), 0);
        hypercall::create_vcpu(places.vcpu(), pd, (defaults().cpu, EVENTS), spaces)?;
        let priority = if runs { bench.priority } else { 0 };
        hypercall::create_sc(places.time(), pd, places.vcpu(), (priority, bench.hz, 0))
    };
    make().map_err(|status| format!("virtual machine {number} cannot be made: {status:?}"))?;
    if runs {
        let halts = monitor.halted.down_until(bench.in_ms(500));
        halts.map_err(|status| format!("virtual machine {number} does not halt: {status:?}"))?;
    }
    Pd::at(pd).destroy().map_err(|status| format!("virtual machine {number} stays: {status:?}"))?;
    if runs {
        // Its monitor is left with an answer for nobody.
        monitor.go.up().map_err(show)?;
    }
    check!(Pd::at(pd).quota().is_err(), "virtual machine {number} is still there");
    Ok(())
}

fn start(_: &mut &'static Monitor, state: &mut VcpuState, _: u64, _: u64) -> Groups {
    // HLT is at the start of the first page.
    real_mode_state(state, 0)
}

fn halt(monitor: &mut &'static Monitor, _: &mut VcpuState, _: u64, _: u64) -> Groups {
    let _ = monitor.halted.up();
    let _ = monitor.go.down();
    Groups::NONE
}
