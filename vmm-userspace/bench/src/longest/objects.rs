//! Creation, control and end of objects.

use alloc::vec::Vec;

use abi::cap::{MemRights, NULL, Selector};
use abi::hypercall::{EcOp, FOREVER, IntMode, Number, PdOp, SmOp, Status, pack};
use abi::layout::PAGE_SIZE;
use abi::vcpu::Groups;
use runtime::memory::GuestMemory;
use runtime::pd::{Limits, Pd};
use runtime::selector::FREE;
use runtime::space::{GuestSpace, HostSpace, MsrSpace, ObjectSpace, PortSpace};
use runtime::task::defaults;
use runtime::{Task, hypercall, println};

use super::crowd::{repeating, utcb_address};
use super::{Case, FEW, Longest, ROUNDS, TABLE, destroy, sm};

/// Portals of one handler.
const PORTALS: usize = 300;
/// The kernel memory of a domain with some objects of each kind, in pages.
const QUOTA: u64 = 300;
pub(super) fn contexts(cases: &mut Vec<Case>) -> Result<(), Status> {
    let at = (defaults().cpu, NULL);
    let guest = GuestSpace::create(Pd::OWN)?.selector();
    // Two that take turns, so that the other one is loaded.
    let vcpus = [FREE.one()?, FREE.one()?];
    for new in vcpus {
        hypercall::create_vcpu(new, Pd::OWN.selector(), at, (guest, NULL, NULL))?;
    }
    let ops = [
        ("recall", EcOp::Recall),
        ("stop", EcOp::Stop),
        ("look", EcOp::Look),
        ("read_state", EcOp::Read),
        ("write_state", EcOp::Write),
        ("go", EcOp::Go),
    ];
    let mut longest = [const { Longest(0) }; 6];
    for _ in 0..ROUNDS {
        for ((_, op), longest) in ops.into_iter().zip(&mut longest) {
            for vcpu in vcpus {
                longest.call(|| hypercall::ctrl_ec(vcpu, op, Groups::ALL.0))?;
            }
        }
    }
    for ((name, _), longest) in ops.into_iter().zip(longest) {
        cases.push((name, longest.0));
    }
    let mut ended = Longest::default();
    for vcpu in vcpus {
        destroy(&mut ended, vcpu)?;
    }
    cases.push(("destroy_vcpu", ended.0));

    let child = Pd::OWN.create_pd(8)?;
    let thread = repeating(pack(Number::CtrlSm, SmOp::Down as u8, sm()?.selector()), FOREVER)?;
    let mut longest = [const { Longest(0) }; 2];
    let [quota, look] = &mut longest;
    for _ in 0..ROUNDS {
        quota.call(|| hypercall::ctrl_pd(child.selector(), PdOp::Give, 1))?;
        quota.call(|| hypercall::ctrl_pd(child.selector(), PdOp::Take, 1))?;
        look.call(|| hypercall::look(thread))?;
    }
    cases.push(("ctrl_pd", quota.0));
    cases.push(("look_thread", look.0));
    destroy(&mut ended, thread)?;
    child.destroy()
}

pub(super) fn creations(cases: &mut Vec<Case>) -> Result<(), Status> {
    use abi::cap::SpaceKind;
    let at = (defaults().cpu, NULL);
    let payer = Pd::OWN.create_pd(QUOTA)?;
    let pd = payer.selector();
    ObjectSpace::create(payer)?;
    HostSpace::create(payer)?;
    let guest = GuestSpace::create(payer)?.selector();
    let [msrs, ports] = [MsrSpace::create(payer)?.selector(), PortSpace::create(payer)?.selector()];
    let kinds = [
        ("create_object_space", SpaceKind::Object),
        ("create_host_space", SpaceKind::Host),
        ("create_guest_space", SpaceKind::Guest),
        ("create_port_space", SpaceKind::Port),
        ("create_msr_space", SpaceKind::Msr),
    ];
    for (name, kind) in kinds {
        let mut make = |new| hypercall::create_space(new, pd, kind);
        cases.push((name, repeat_creation(&mut make)?));
    }
    let mut make = |new| hypercall::create_pd(new, pd, 1, Limits::NONE);
    cases.push(("create_pd", repeat_creation(&mut make)?));
    let mut last = (NULL, NULL);
    let mut make = |new| {
        last.0 = new;
        // SAFETY: it never runs: nobody gives it time for longer than it takes to end it.
        unsafe { hypercall::create_thread(new, pd, at, (utcb_address(true), 0, 0)) }
    };
    cases.push(("create_thread", repeat_creation(&mut make)?));
    let mut make = |new| {
        last.1 = new;
        // SAFETY: nobody calls its portals.
        unsafe { hypercall::create_handler(new, pd, at, (utcb_address(true), 0)) }
    };
    cases.push(("create_handler", repeat_creation(&mut make)?));
    let mut make = |new| hypercall::create_vcpu(new, pd, at, (guest, msrs, ports));
    cases.push(("create_vcpu", repeat_creation(&mut make)?));
    // SAFETY: as above.
    let mut make = |new| unsafe { hypercall::create_pt(new, pd, last.1, (0, 0, Groups::ALL.0)) };
    cases.push(("create_pt", repeat_creation(&mut make)?));
    let mut pt = Longest::default();
    let portal = FREE.one()?;
    make(portal)?;
    for round in 0..ROUNDS as u64 {
        // Other groups each time.
        let groups = if round % 2 == 0 { Groups::ALL.0 } else { 0 };
        pt.call(|| hypercall::ctrl_pt(portal, round, groups))?;
    }
    cases.push(("ctrl_pt", pt.0));
    let mut make = |new| hypercall::create_sm(new, pd, 0);
    cases.push(("create_sm", repeat_creation(&mut make)?));

    let (mut create, mut read) = (Longest::default(), Longest::default());
    let (new, time) = (FREE.one()?, (1, defaults().share.budget, defaults().share.budget));
    create.call(|| hypercall::create_sc(new, pd, last.0, time))?;
    for _ in 0..ROUNDS {
        read.call(|| hypercall::ctrl_sc(new))?;
    }
    cases.push(("create_sc", create.0));
    cases.push(("ctrl_sc", read.0));
    // With a few of everything that there is.
    let mut ended = Longest::default();
    destroy(&mut ended, pd)?;
    cases.push(("destroy_domain", ended.0));
    Ok(())
}

/// The longest of a few creations, of which the first needs a new table for the capability.
fn repeat_creation(make: &mut impl FnMut(Selector) -> Result<(), Status>) -> Result<u64, Status> {
    let first = FREE.range(128 + FEW as u32)?.next_multiple_of(128);
    let mut longest = Longest::default();
    for new in first..first + FEW as u32 {
        longest.call(|| make(new))?;
    }
    Ok(longest.0)
}

/// An interrupt of the machine is sent to this CPU. Its device is quiet.
pub(super) fn interrupts(task: &Task, cases: &mut Vec<Case>) -> Result<(), Status> {
    let interrupts = task.interrupts();
    let (_, interrupt) = interrupts.first().ok_or(Status::BadCap)?;
    let mut assigned = Longest::default();
    for _ in 0..ROUNDS {
        assigned.call(|| interrupt.assign(IntMode::ISA, defaults().cpu))?;
    }
    cases.push(("assign_interrupt", assigned.0));
    Ok(())
}

pub(super) fn ends(memory: GuestMemory, cases: &mut Vec<Case>) -> Result<(), Status> {
    let own_pd = Pd::OWN.selector();
    let (handler, at) = (FREE.one()?, (defaults().cpu, NULL));
    // SAFETY: nobody calls its portals.
    unsafe { hypercall::create_handler(handler, own_pd, at, (utcb_address(false), 0)) }?;
    let portals = FREE.range(PORTALS as u32)?;
    for new in portals..portals + PORTALS as u32 {
        // SAFETY: as above.
        unsafe { hypercall::create_pt(new, own_pd, handler, (0, 0, 0)) }?;
    }
    let mut ended = Longest::default();
    destroy(&mut ended, handler)?;
    cases.push(("destroy_handler", ended.0));
    ObjectSpace::OWN.revoke(portals, PORTALS as u32)?;

    // A page in each table, as many tables as there is memory for.
    let guest = GuestSpace::create(Pd::OWN)?;
    let page = memory.region(0, PAGE_SIZE).map_err(|_| Status::BadParam)?;
    let mut tables = 0;
    loop {
        match guest.grant(page, tables * TABLE * PAGE_SIZE, MemRights::RWX) {
            Ok(()) => tables += 1,
            Err(Status::Quota) => break,
            Err(error) => return Err(error),
        }
    }
    println!("destroy_guest frees {tables} tables");
    let mut ended = Longest::default();
    destroy(&mut ended, guest.selector())?;
    cases.push(("destroy_guest", ended.0));
    Ok(())
}
