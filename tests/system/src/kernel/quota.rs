//! Kernel memory: who runs out gets an error, and nothing else happens.

use alloc::format;
use alloc::string::String;

use abi::cap::{MemRights, Selector, SpaceKind};
use abi::hypercall::{EcKind, Number, Status};
use runtime::pd::Pd;
use runtime::selector::FREE;
use runtime::space::{GuestSpace, ObjectSpace};

use super::raw;
use crate::report::{Bench, Check, Test};
use crate::{check, check_eq};

pub const TESTS: &[Test] = &[
    ("quota.exhausted", exhausted),
    ("quota.grant", grant),
    ("quota.transfer", transfer),
    ("quota.objects-come-back", come_back),
];

fn show(status: Status) -> String {
    format!("{status:?}")
}

fn free(pd: Pd) -> Result<u64, String> {
    pd.quota().map(|quota| quota.free).map_err(show)
}

/// Tries something that `pd` pays for, with one page more each time, until it works. Each failure must leave what there was.
fn grow(pd: Pd, name: &str, attempt: impl FnMut() -> Status) -> Check {
    grow_with_tables(pd, name, 0, attempt)
}

/// The same for what needs up to `tables` page tables, which stay for the next try.
fn grow_with_tables(pd: Pd, name: &str, tables: u64, mut attempt: impl FnMut() -> Status) -> Check {
    let mut kept = 0;
    for pages in 0..32 {
        let before = free(pd)?;
        let status = attempt();
        if status == Status::Success {
            return Ok(());
        }
        check_eq!(status, Status::Quota, "{name} with {before} pages");
        kept += before - free(pd)?;
        check!(kept <= tables, "{name}: {kept} pages are gone after the failure {pages}");
        pd.give(1).map_err(show)?;
    }
    Err(format!("{name} does not work with 32 pages"))
}

fn exhausted(bench: &mut Bench<'_>) -> Check {
    let child = Pd::OWN.create_pd(0).map_err(show)?;
    let fresh = || FREE.one().map_err(show);
    let pd = child.selector();
    // SAFETY: makes objects that do nothing yet.
    let make = |number, new: Selector, arguments: [u64; 4]| unsafe {
        let [a, b, c, d] = arguments;
        raw::hypercall(number, 0, pd, [new.into(), a, b, c, d]).0
    };
    let mut guest = 0;
    for (name, kind) in [
        ("object space", SpaceKind::Object),
        ("host space", SpaceKind::Host),
        ("guest space", SpaceKind::Guest),
        ("port space", SpaceKind::Port),
        ("MSR space", SpaceKind::Msr),
    ] {
        let new = fresh()?;
        grow(child, name, || make(Number::CreateSpace, new, [kind as u64, 0, 0, 0]))?;
        if kind == SpaceKind::Guest {
            guest = new;
        }
    }
    let thread = fresh()?;
    let utcb = 0x5000_0000_0000;
    // Three levels of tables lead to a page.
    grow_with_tables(child, "thread", 3, || {
        make(Number::CreateEc, thread, [EcKind::Thread as u64, utcb, 0x1000, 0x1000])
    })?;
    let handler = fresh()?;
    grow_with_tables(child, "handler", 3, || {
        make(Number::CreateEc, handler, [EcKind::Handler as u64, utcb + 0x4000_0000, 0x1000, 0])
    })?;
    let vcpu = fresh()?;
    grow(child, "virtual CPU", || {
        make(Number::CreateEc, vcpu, [EcKind::Vcpu as u64, guest.into(), 0, 0])
    })?;
    let pt = fresh()?;
    grow(child, "portal", || make(Number::CreatePt, pt, [handler.into(), 0x1000, 0, 0]))?;
    let sm = fresh()?;
    grow(child, "semaphore", || make(Number::CreateSm, sm, [0; 4]))?;
    // It would run into nothing at once, if it did not have the lowest priority of all.
    let sc = fresh()?;
    check!(bench.priority > 0, "the main thread has the lowest priority");
    grow(child, "scheduling context", || {
        make(Number::CreateSc, sc, [thread.into(), 0, 1_000_000, 0])
    })?;
    // Selectors are taken from the caller's own table; a full one is the caller's problem.
    Ok(())
}

fn grant(bench: &mut Bench<'_>) -> Check {
    let child = Pd::OWN.create_pd(0).map_err(show)?;
    let new = FREE.one().map_err(show)?;
    grow(child, "guest space", || {
        runtime::hypercall::create_space(new, child.selector(), SpaceKind::Guest)
            .err()
            .unwrap_or(Status::Success)
    })?;
    let space = GuestSpace::at(new);
    let region = bench.memory.region(0, 4096).map_err(|_| "no memory")?;
    // Each address takes tables of its own.
    for gpa in [0, 0x4000_0000, 0x80_0000_0000] {
        for _ in 0..8 {
            let status = space.grant(region, gpa, MemRights::RW);
            // The upper tables of a grant that failed may stay, but trying again costs nothing.
            let before = free(child)?;
            if status == Ok(()) {
                break;
            }
            check_eq!(status, Err(Status::Quota), "grant at {gpa:#x} with {before} pages");
            check_eq!(space.grant(region, gpa, MemRights::RW), status, "the same again");
            check_eq!(free(child)?, before, "free pages after that");
            child.give(1).map_err(show)?;
        }
        check_eq!(space.grant(region, gpa, MemRights::RW), Ok(()), "in the end, at {gpa:#x}");
    }
    // A neighbour needs no more.
    let before = free(child)?;
    space.grant(region, 0x1000, MemRights::RW).map_err(show)?;
    check_eq!(free(child)?, before, "free pages after another grant");
    Ok(())
}

fn transfer(_: &mut Bench<'_>) -> Check {
    let own = Pd::OWN.quota().map_err(show)?;
    let child = Pd::OWN.create_pd(5).map_err(show)?;
    let made = Pd::OWN.quota().map_err(show)?;
    check!(own.free - made.free <= 6, "a child with 5 pages costs {}", own.free - made.free);
    check_eq!(made.limit, own.limit - 5, "the parent's limit");
    let quota = child.quota().map_err(show)?;
    check_eq!((quota.free, quota.limit), (5, 5), "the child's");
    let quota = child.give(3).map_err(show)?;
    check_eq!((quota.free, quota.limit), (8, 8), "the child's after giving");
    check_eq!(child.take(9), Err(Status::Quota), "taking too much");
    let quota = child.take(8).map_err(show)?;
    check_eq!((quota.free, quota.limit), (0, 0), "the child's after taking all");
    check_eq!(free(Pd::OWN)?, made.free + 5, "the parent's after all");
    Ok(())
}

/// Semaphores and portals die with their last capability, and their memory comes back.
fn come_back(_: &mut Bench<'_>) -> Check {
    const COUNT: u32 = 200;
    let first = FREE.range(COUNT).map_err(show)?;
    let make = || {
        for selector in first..first + COUNT {
            runtime::hypercall::create_sm(selector, abi::cap::own::PD, 0)?;
        }
        ObjectSpace::OWN.revoke(first, COUNT)
    };
    make().map_err(show)?;
    let before = free(Pd::OWN)?;
    for _ in 0..20 {
        make().map_err(show)?;
    }
    check_eq!(free(Pd::OWN)?, before, "free pages after 4,000 semaphores");
    Ok(())
}
