//! Grants and revocations of memory, capabilities, registers and ports.

use alloc::vec::Vec;

use abi::cap::{MemRights, Perms, SELECTORS, Selector, own};
use abi::hypercall::Status;
use abi::layout::{PAGE_SHIFT, PAGE_SIZE};
use runtime::Task;
use runtime::hypercall::{self, Span};
use runtime::memory::GuestMemory;
use runtime::pd::Pd;
use runtime::selector::FREE;
use runtime::space::{GuestSpace, HostSpace, MsrSpace, ObjectSpace, PortSpace};

use super::{Case, FEW, Longest, ROUNDS, TABLE, destroy, sm};

/// Whether a call did what it was to do, or part of it.
fn worked((status, done): (Status, u64)) -> Result<u64, Status> {
    match status {
        Status::Success | Status::Partial => Ok(done),
        error => Err(error),
    }
}

/// A grant that takes as many hypercalls as it needs.
fn grant(from: Selector, to: Selector, span: Span) -> Result<(), Status> {
    // SAFETY: guest memory, which nobody has a reference to; or a space of which nobody uses anything.
    unsafe { hypercall::grant(from, to, span, MemRights::RWX.0.into()) }
}

/// One hypercall of a grant.
#[inline(always)]
fn grant_once(from: Selector, to: Selector, span: Span, rights: MemRights) -> (Status, u64) {
    // SAFETY: as above.
    unsafe { hypercall::grant_once(from, to, span, rights.0.into()) }
}

/// One hypercall of a revocation, of everything there is to take away.
#[inline(always)]
fn revoke_once(space: Selector, first: u64, count: u64) -> (Status, u64) {
    // SAFETY: none of the spaces here is this task's memory.
    unsafe { hypercall::revoke_once(space, first, count, u64::MAX) }
}

/// The first page of 2 MiB of guest memory that can be one leaf.
fn large_page(memory: GuestMemory) -> Result<u64, Status> {
    const LARGE: u64 = TABLE * PAGE_SIZE;
    let base = memory.region(0, PAGE_SIZE).map_err(|_| Status::BadParam)?.base();
    let offset = base.next_multiple_of(LARGE) - base;
    let region = memory.region(offset, LARGE).map_err(|_| Status::BadParam)?;
    Ok(region.base() >> PAGE_SHIFT)
}

/// Maps the same 2 MiB `count` times, from page `at` on.
fn tile(to: Selector, page: u64, at: u64, count: u64, small: bool) -> Result<(), Status> {
    for nth in 0..count {
        // In halves, it cannot be a large leaf.
        let piece = if small { TABLE / 2 } else { TABLE };
        for part in (0..TABLE).step_by(piece as usize) {
            let span = Span { from: page + part, to: at + nth * TABLE + part, count: piece };
            grant(own::MEMORY, to, span)?;
        }
    }
    Ok(())
}

pub(super) fn of_memory(memory: GuestMemory, cases: &mut Vec<Case>) -> Result<(), Status> {
    /// Tables that one grant could look through if it did nothing else.
    const TABLES: u64 = 70;
    /// Large leaves that one grant could write.
    const LEAVES: u64 = 20;
    let page = large_page(memory)?;
    let mut ended = Longest::default();
    let all = |count| Span { from: 0, to: 0, count };

    // No two neighbours are neighbours in memory.
    let scattered = HostSpace::create(Pd::OWN)?.selector();
    for nth in 0..3 * TABLE {
        let span = Span { from: page + nth * 5 % TABLE, to: nth, count: 1 };
        grant(own::MEMORY, scattered, span)?;
    }
    let (mut fresh, mut again, mut revoked) =
        (Longest::default(), Longest::default(), Longest::default());
    for _ in 0..FEW {
        let guest = GuestSpace::create(Pd::OWN)?.selector();
        // Not at the same place in the tables.
        let span = Span { from: 0, to: TABLE / 2, count: 2 * TABLE };
        worked(fresh.call(|| grant_once(scattered, guest, span, MemRights::RWX)))?;
        let other = Span { from: 1, ..span };
        worked(again.call(|| grant_once(scattered, guest, other, MemRights::RWX)))?;
        grant(scattered, guest, span)?;
        worked(revoked.call(|| revoke_once(guest, 0, 3 * TABLE)))?;
        destroy(&mut ended, guest)?;
    }
    cases.push(("grant_scattered", fresh.0));
    cases.push(("grant_scattered_again", again.0));
    cases.push(("revoke_pages", revoked.0));

    let (mut split, mut revoked) = (Longest::default(), Longest::default());
    for _ in 0..FEW {
        let guest = GuestSpace::create(Pd::OWN)?.selector();
        tile(guest, page, 0, 8, false)?;
        let span = Span { from: 0, to: TABLE / 2, count: 2 * TABLE };
        worked(split.call(|| grant_once(scattered, guest, span, MemRights::RWX)))?;
        let first = 4 * TABLE + TABLE / 2;
        worked(revoked.call(|| revoke_once(guest, first, 2 * TABLE)))?;
        destroy(&mut ended, guest)?;
    }
    cases.push(("grant_splits", split.0));
    cases.push(("revoke_splits", revoked.0));

    let empty = HostSpace::create(Pd::OWN)?.selector();
    let guest = GuestSpace::create(Pd::OWN)?.selector();
    let (mut granted, mut revoked) = (Longest::default(), Longest::default());
    for _ in 0..ROUNDS {
        let span = all(1 << 36);
        worked(granted.call(|| grant_once(empty, guest, span, MemRights::RWX)))?;
        worked(revoked.call(|| revoke_once(guest, 0, 1 << 36)))?;
    }
    cases.push(("grant_nothing", granted.0));
    cases.push(("revoke_nothing", revoked.0));

    // Small leaves of which each table could be one large leaf.
    let small = HostSpace::create(Pd::OWN)?.selector();
    tile(small, page, 0, TABLES, true)?;
    let mut longest = Longest::default();
    for _ in 0..FEW {
        let span = all(TABLES * TABLE);
        worked(longest.call(|| grant_once(small, guest, span, MemRights(0))))?;
    }
    cases.push(("grant_without_rights", longest.0));
    let (mut to_host, mut to_guest) = (Longest::default(), Longest::default());
    for _ in 0..FEW {
        for (longest, host) in [(&mut to_host, true), (&mut to_guest, false)] {
            let space = if host {
                HostSpace::create(Pd::OWN)?.selector()
            } else {
                GuestSpace::create(Pd::OWN)?.selector()
            };
            tile(space, page, 0, LEAVES, true)?;
            let span = all(LEAVES * TABLE);
            worked(longest.call(|| grant_once(small, space, span, MemRights::RWX)))?;
            destroy(&mut ended, space)?;
        }
    }
    cases.push(("grant_joins_host", to_host.0));
    cases.push(("grant_joins_guest", to_guest.0));
    for space in [small, empty, guest, scattered] {
        destroy(&mut ended, space)?;
    }
    cases.push(("destroy_space", ended.0));
    Ok(())
}

pub(super) fn of_others(task: &Task, cases: &mut Vec<Case>) -> Result<(), Status> {
    const COUNT: u32 = 256;
    let objects = ObjectSpace::OWN;
    let first = FREE.range(COUNT)?;
    let named = sm()?;
    for at in first..first + COUNT {
        objects.grant(named.selector(), objects, at, Perms::ALL)?;
    }
    let (mut granted, mut revoked) = (Longest::default(), Longest::default());
    let mut ended = Longest::default();
    for _ in 0..FEW {
        let space = ObjectSpace::create(Pd::OWN)?.selector();
        let span = Span { from: first.into(), to: 64, count: COUNT.into() };
        let perms = MemRights(Perms::ALL.0.into());
        worked(granted.call(|| grant_once(own::OBJECTS, space, span, perms)))?;
        let mut done = 0;
        while done < u64::from(SELECTORS) {
            done += worked(revoked.call(|| revoke_once(space, done, u64::from(SELECTORS) - done)))?;
        }
        worked(grant_once(own::OBJECTS, space, span, perms))?;
        destroy(&mut ended, space)?;
    }
    cases.push(("grant_capabilities", granted.0));
    cases.push(("revoke_capabilities", revoked.0));
    cases.push(("destroy_object_space", ended.0));

    let all = task.msrs().ok_or(Status::BadCap)?.selector();
    let msrs = MsrSpace::create(Pd::OWN)?.selector();
    // This task's threads would use the first one of its own.
    let child = Pd::OWN.create_pd(8)?;
    let ports = PortSpace::create(child)?.selector();
    let mut longest = [const { Longest(0) }; 3];
    for _ in 0..ROUNDS {
        // SYSENTER's and SYSCALL's registers are among them.
        let span = Span { from: 0xc000_0080, to: 0xc000_0080, count: COUNT.into() };
        let [grant, revoke, ports_revoked] = &mut longest;
        worked(grant.call(|| grant_once(all, msrs, span, MemRights::RWX)))?;
        worked(revoke.call(|| revoke_once(msrs, span.from, span.count)))?;
        worked(ports_revoked.call(|| revoke_once(ports, 0x3f8, span.count)))?;
    }
    let [granted, revoked, ports_revoked] = longest;
    cases.push(("grant_msrs", granted.0));
    cases.push(("revoke_msrs", revoked.0));
    cases.push(("revoke_ports", ports_revoked.0));
    destroy(&mut ended, msrs)?;
    child.destroy()
}
