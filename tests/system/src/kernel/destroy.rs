//! The end of objects, in every state.

use alloc::format;
use alloc::string::String;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::cap::{MemRights, Perms, Selector, SpaceKind, own};
use abi::hypercall::{EcActivity, EcKind, FOREVER, Number, Status};
use abi::utcb::{MsgTag, Utcb};
use runtime::ec::Ec;
use runtime::handler::Handler;
use runtime::hypercall;
use runtime::pd::Pd;
use runtime::pt::Pt;
use runtime::selector::FREE;
use runtime::sm::Sm;
use runtime::space::{GuestSpace, ObjectSpace, PortSpace};

use super::raw;
use super::threads::{semaphore, settle, spawn, wait};
use crate::report::{Bench, Check, Test};
use crate::{check, check_eq};

pub const TESTS: &[Test] = &[
    ("destroy.capabilities", capabilities),
    ("destroy.permission", permission),
    ("destroy.waiting-thread", waiting_thread),
    ("destroy.semaphore", a_semaphore),
    ("destroy.serving-handler", serving_handler),
    ("destroy.handler-with-waiters", handler_with_waiters),
    ("destroy.caller", caller),
    ("destroy.time", time),
    ("destroy.oneself", oneself),
    ("destroy.domain", domain),
    ("destroy.nested-domains", nested),
    ("destroy.running-domain", running_domain),
    ("destroy.used-space", used_space),
    ("destroy.half-gone-space", half_gone_space),
    ("destroy.ports-of-a-thread", ports_of_a_thread),
];

fn show(status: Status) -> String {
    format!("{status:?}")
}

fn free() -> Result<u64, String> {
    Pd::OWN.quota().map(|quota| quota.free).map_err(show)
}

/// Destroys what no memory of this task depends on.
fn destroy(object: Selector) -> Result<(), Status> {
    // SAFETY: threads and handlers of these tests stand still in code that holds nothing.
    unsafe { hypercall::destroy(object) }
}

/// All capabilities to an object vanish with it, wherever they are.
fn capabilities(_: &mut Bench<'_>) -> Check {
    const COPIES: u32 = 300;
    let before = free()?;
    let sm = semaphore()?;
    let copies = FREE.range(COPIES).map_err(show)?;
    for copy in copies..copies + COPIES {
        let copied = ObjectSpace::OWN.grant(sm.selector(), ObjectSpace::OWN, copy, Perms::ALL);
        copied.map_err(show)?;
    }
    let table = free()?;
    destroy(copies + 7).map_err(show)?;
    for copy in (copies..copies + COPIES).chain([sm.selector()]) {
        check_eq!(Sm::at(copy).up(), Err(Status::BadCap), "an up by {copy:#x}");
    }
    check!(free()? >= table, "memory was lost");
    // The selectors can be used again.
    hypercall::create_sm(copies, own::PD, 1).map_err(show)?;
    check_eq!(Sm::at(copies).down_until(0), Ok(()), "a new semaphore's down");
    destroy(copies).map_err(show)?;
    check!(free()? + 3 >= before, "more was lost than pages of the capability table");
    Ok(())
}

fn permission(_: &mut Bench<'_>) -> Check {
    let sm = semaphore()?;
    let reduced = FREE.one().map_err(show)?;
    let all_but = Perms(!Perms::DESTROY.0);
    let granted = ObjectSpace::OWN.grant(sm.selector(), ObjectSpace::OWN, reduced, all_but);
    granted.map_err(show)?;
    check_eq!(destroy(reduced), Err(Status::BadCap), "without the permission");
    check_eq!(sm.up(), Ok(()), "it is still there");
    for nothing in [0, abi::cap::SELECTORS - 1, abi::cap::SELECTORS, u32::MAX] {
        check_eq!(destroy(nothing), Err(Status::BadCap), "selector {nothing:#x}");
    }
    for (name, own) in [("domain", own::PD), ("memory", own::MEMORY)] {
        check_eq!(destroy(own), Err(Status::BadCap), "the task's own {name}");
    }
    check_eq!(destroy(own::OBJECTS), Err(Status::Busy), "the task's own object space");
    Ok(())
}

/// Who waits for a semaphore is out of its queue, and its deadline is forgotten.
fn waiting_thread(bench: &mut Bench<'_>) -> Check {
    for deadline in [FOREVER, bench.in_ms(20)] {
        let sm = semaphore()?;
        let thread = spawn(bench.priority - 1, move |_| {
            let _ = sm.down_until(deadline);
        })?;
        settle(bench)?;
        let before = free()?;
        destroy(thread.ec.selector()).map_err(show)?;
        check!(free()? > before, "its message page did not come back");
        check_eq!(thread.sc.consumed(), Err(Status::BadCap), "its time");
        sm.up().map_err(show)?;
        check_eq!(sm.down_until(0), Ok(()), "the up is for the next");
        // Its deadline passes, and nothing happens.
        check_eq!(sm.down_until(bench.in_ms(30)), Err(Status::Timeout), "a wait of its own");
    }
    Ok(())
}

fn a_semaphore(bench: &mut Bench<'_>) -> Check {
    const WAITERS: u64 = 40;
    static ABORTED: AtomicU64 = AtomicU64::new(0);
    let (sm, done) = (semaphore()?, semaphore()?);
    for _ in 0..WAITERS {
        spawn(bench.priority - 1, move |_| {
            if sm.down() == Err(Status::Aborted) {
                ABORTED.fetch_add(1, Ordering::Relaxed);
            }
            let _ = done.up();
        })?;
    }
    settle(bench)?;
    destroy(sm.selector()).map_err(show)?;
    for _ in 0..WAITERS {
        wait(bench, done, "a waiter going on")?;
    }
    check_eq!(ABORTED.load(Ordering::Relaxed), WAITERS, "waiters that were told");
    Ok(())
}

/// A handler that waits for a semaphore in the middle of a call.
struct Server {
    handler: Handler<Sm>,
    portal: Pt,
    go: Sm,
}

fn server() -> Result<Server, String> {
    let go = semaphore()?;
    let make = || {
        let handler = Handler::new(go)?;
        let portal = handler.portal(0, 0, |go: &mut Sm, _: &mut Utcb, _, _| {
            let _ = go.down();
            MsgTag::new(0, 0)
        })?;
        Ok((handler, portal))
    };
    let (handler, portal) = make().map_err(show)?;
    Ok(Server { handler, portal, go })
}

/// Threads that call a portal, and put down what they are told.
struct Callers {
    done: Sm,
    told: &'static AtomicU64,
}

impl Callers {
    fn new() -> Result<Self, String> {
        let told = alloc::boxed::Box::leak(alloc::boxed::Box::new(AtomicU64::new(99)));
        Ok(Self { done: semaphore()?, told })
    }

    fn spawn(&self, bench: &Bench<'_>, portal: Pt) -> Result<runtime::thread::Thread, String> {
        let (done, told) = (self.done, self.told);
        let thread = spawn(bench.priority - 1, move |_| {
            let status = portal.signal().err().unwrap_or(Status::Success);
            told.store(status as u64, Ordering::Relaxed);
            let _ = done.up();
        })?;
        settle(bench)?;
        Ok(thread)
    }

    fn told(&self, bench: &Bench<'_>, expected: Status) -> Check {
        wait(bench, self.done, "a caller going on")?;
        check_eq!(self.told.load(Ordering::Relaxed), expected as u64, "what a caller was told");
        Ok(())
    }
}

fn serving_handler(bench: &mut Bench<'_>) -> Check {
    let (server, callers) = (server()?, Callers::new()?);
    callers.spawn(bench, server.portal)?;
    let before = free()?;
    destroy(server.handler.ec().selector()).map_err(show)?;
    check!(free()? > before, "its message page did not come back");
    callers.told(bench, Status::Aborted)?;
    check_eq!(server.portal.signal(), Err(Status::Aborted), "a later call");
    // What it waited for counts for others.
    server.go.up().map_err(show)?;
    check_eq!(server.go.down_until(0), Ok(()), "the semaphore");
    check_eq!(destroy(server.portal.selector()), Ok(()), "the portal's own end");
    check_eq!(server.portal.signal(), Err(Status::BadCap), "a call after that");
    Ok(())
}

fn handler_with_waiters(bench: &mut Bench<'_>) -> Check {
    const WAITERS: usize = 40;
    let (server, callers) = (server()?, Callers::new()?);
    for _ in 0..WAITERS {
        callers.spawn(bench, server.portal)?;
    }
    destroy(server.handler.ec().selector()).map_err(show)?;
    for _ in 0..WAITERS {
        callers.told(bench, Status::Aborted)?;
    }
    Ok(())
}

/// A caller ends in the middle of its call, and one that waits for its turn behind it: the handler finishes, for nobody.
fn caller(bench: &mut Bench<'_>) -> Check {
    let (server, callers) = (server()?, Callers::new()?);
    let first = callers.spawn(bench, server.portal)?;
    let second = callers.spawn(bench, server.portal)?;
    callers.spawn(bench, server.portal)?;
    destroy(second.ec.selector()).map_err(show)?;
    destroy(first.ec.selector()).map_err(show)?;
    check_eq!(callers.done.down_until(0), Err(Status::Timeout), "somebody goes on");
    // Once for the call that was begun, and once for the third.
    server.go.up().map_err(show)?;
    server.go.up().map_err(show)?;
    callers.told(bench, Status::Success)?;
    // The handler is as good as new.
    server.go.up().map_err(show)?;
    check_eq!(server.portal.signal(), Ok(()), "a call afterwards");
    Ok(())
}

/// Without its scheduling context a thread stands still; it can get another.
fn time(bench: &mut Bench<'_>) -> Check {
    static TURNS: AtomicU64 = AtomicU64::new(0);
    let thread = spawn(bench.priority - 1, |_| {
        loop {
            TURNS.fetch_add(1, Ordering::Relaxed);
        }
    })?;
    let nap = semaphore()?;
    let sleep = |ms| nap.down_until(bench.in_ms(ms));
    check_eq!(sleep(2), Err(Status::Timeout), "a nap");
    check!(TURNS.load(Ordering::Relaxed) > 0, "it does not run");
    destroy(thread.sc.selector()).map_err(show)?;
    let turns = TURNS.load(Ordering::Relaxed);
    check_eq!(sleep(2), Err(Status::Timeout), "a nap");
    check_eq!(TURNS.load(Ordering::Relaxed), turns, "turns without time");
    let (sc, ec) = (thread.sc.selector(), thread.ec.selector());
    let share = (bench.priority - 1, bench.hz / 1000, 0);
    hypercall::create_sc(sc, own::PD, ec, share).map_err(show)?;
    check_eq!(sleep(2), Err(Status::Timeout), "a nap");
    check!(TURNS.load(Ordering::Relaxed) > turns, "it does not run again");
    destroy(ec).map_err(show)?;
    check_eq!(thread.sc.consumed(), Err(Status::BadCap), "its time");
    Ok(())
}

fn oneself(bench: &mut Bench<'_>) -> Check {
    static EC: AtomicU64 = AtomicU64::new(0);
    static AFTER: AtomicU64 = AtomicU64::new(0);
    let go = semaphore()?;
    let thread = spawn(bench.priority - 1, move |_| {
        let _ = go.down();
        let _ = destroy(EC.load(Ordering::Relaxed) as Selector);
        AFTER.store(1, Ordering::Relaxed);
    })?;
    EC.store(thread.ec.selector().into(), Ordering::Relaxed);
    settle(bench)?;
    let before = free()?;
    go.up().map_err(show)?;
    let nap = go.down_until(bench.in_ms(2));
    check_eq!(nap, Err(Status::Timeout), "a nap");
    check_eq!(AFTER.load(Ordering::Relaxed), 0, "it lives on");
    check!(free()? > before, "its message page did not come back");
    check_eq!(thread.ec.recall(), Err(Status::BadCap), "its capability");
    Ok(())
}

/// A domain below `parent` with something of everything in it.
fn populate(parent: Pd, pages: u64, priority: u64) -> Result<Pd, Status> {
    let pd = parent.create_pd_below(pages, priority)?;
    let spaces = FREE.range(5)?;
    let kinds =
        [SpaceKind::Object, SpaceKind::Host, SpaceKind::Guest, SpaceKind::Port, SpaceKind::Msr];
    for (at, kind) in (spaces..).zip(kinds) {
        hypercall::create_space(at, pd.selector(), kind)?;
    }
    let fresh = FREE.range(5)?;
    let (thread, handler, vcpu, portal, sm) = (fresh, fresh + 1, fresh + 2, fresh + 3, fresh + 4);
    let utcb = 0x5000_0000_0000;
    // SAFETY: the child's memory is empty: its thread faults at once, when it has time at all.
    unsafe {
        hypercall::create_thread(thread, pd.selector(), (0, 0), (utcb, 0, 0x1000))?;
        hypercall::create_handler(handler, pd.selector(), (0, 0), (utcb + 0x1000, 0))?;
        hypercall::create_pt(portal, pd.selector(), handler, (0x1000, 0, 0))?;
    }
    let arguments = [EcKind::Vcpu as u64, (spaces + 2).into(), (spaces + 4).into(), 0];
    let [a, b, c, d] = arguments;
    // SAFETY: a virtual CPU without time.
    let made =
        unsafe { raw::hypercall(Number::CreateEc, 0, pd.selector(), [vcpu.into(), a, b, c, d]).0 };
    if made != Status::Success {
        return Err(made);
    }
    hypercall::create_sm(sm, pd.selector(), 0)?;
    hypercall::create_sc(FREE.one()?, pd.selector(), thread, (0, 1_000_000, 0))?;
    // Capabilities in its own table, to itself and to others.
    let objects = ObjectSpace::at(spaces);
    for (to, from) in (16..).zip([pd.selector(), spaces, spaces + 1, thread, portal, sm]) {
        ObjectSpace::OWN.grant(from, objects, to, Perms::ALL)?;
    }
    Ok(pd)
}

/// Everything that a domain paid for ends with it, and its quota goes back to its parent.
fn domain(_: &mut Bench<'_>) -> Check {
    let before = Pd::OWN.quota().map_err(show)?;
    let pd = populate(Pd::OWN, 100, 1).map_err(show)?;
    let sm = pd.selector() + 11;
    check_eq!(Sm::at(sm - 1).up(), Ok(()), "its semaphore");
    pd.destroy().map_err(show)?;
    for selector in pd.selector()..sm + 1 {
        check_eq!(Sm::at(selector).up(), Err(Status::BadCap), "selector {selector:#x}");
    }
    let after = Pd::OWN.quota().map_err(show)?;
    check_eq!(after.limit, before.limit, "the limit");
    let lost = before.free - after.free;
    // The first time may take pages for the table of capabilities.
    check!(lost <= 2, "{lost} pages are lost");
    for _ in 0..10 {
        populate(Pd::OWN, 100, 1).and_then(Pd::destroy).map_err(show)?;
    }
    check!(after.free - free()? <= 3, "{} pages are lost", after.free - free()?);
    Ok(())
}

fn nested(_: &mut Bench<'_>) -> Check {
    let before = Pd::OWN.quota().map_err(show)?;
    let mut pds = alloc::vec![populate(Pd::OWN, 240, 1).map_err(show)?];
    for depth in 1_u64..8 {
        let above = pds[pds.len() - 1];
        pds.push(populate(above, 240 - 28 * depth, 1).map_err(show)?);
    }
    pds[0].destroy().map_err(show)?;
    for pd in &pds {
        check_eq!(pd.quota().err(), Some(Status::BadCap), "a domain below");
    }
    let after = Pd::OWN.quota().map_err(show)?;
    check_eq!(after.limit, before.limit, "the limit");
    check!(before.free - after.free <= 6, "{} pages are lost", before.free - after.free);
    // Domains are not nested without end.
    let mut deepest = Pd::OWN.create_pd(200).map_err(show)?;
    let top = deepest;
    let mut depth = 0;
    let refused = loop {
        match deepest.create_pd(190 - 2 * depth) {
            Ok(below) => (deepest, depth) = (below, depth + 1),
            Err(status) => break status,
        }
    };
    check_eq!(refused, Status::BadParam, "a domain below {depth} others");
    top.destroy().map_err(show)
}

/// A domain whose thread runs, calls and is called, is ended from outside.
fn running_domain(bench: &mut Bench<'_>) -> Check {
    let (server, before) = (server()?, free()?);
    let pd = Pd::OWN.create_pd_below(100, bench.priority - 1).map_err(show)?;
    let fresh = FREE.range(4).map_err(show)?;
    let make = || {
        hypercall::create_space(fresh, pd.selector(), SpaceKind::Object)?;
        hypercall::create_space(fresh + 1, pd.selector(), SpaceKind::Host)?;
        // Its thread faults at once; that is an event for a handler of this task, which waits in the middle of it.
        let objects = ObjectSpace::at(fresh);
        ObjectSpace::OWN.grant(server.portal.selector(), objects, 32 + 14, Perms::PT_EVENT)?;
        let utcb = 0x5000_0000_0000;
        // SAFETY: the child's memory is empty.
        unsafe {
            hypercall::create_thread(fresh + 2, pd.selector(), (0, 32), (utcb, 0, 0x1000))?;
        }
        let share = (bench.priority - 1, bench.hz / 100, 0);
        hypercall::create_sc(fresh + 3, pd.selector(), fresh + 2, share)
    };
    make().map_err(show)?;
    settle(bench)?;
    let looked = Ec::at(fresh + 2).look(bench.utcb).map_err(show)?;
    check_eq!(looked.activity, EcActivity::Waits, "what it does");
    pd.destroy().map_err(show)?;
    check!(before - free()? <= 2, "{} pages are lost", before - free()?);
    // Its handler finishes for nobody, on the time of the next to call.
    server.go.up().map_err(show)?;
    server.go.up().map_err(show)?;
    check_eq!(server.portal.signal(), Ok(()), "the next call");
    Ok(())
}

fn used_space(_: &mut Bench<'_>) -> Check {
    let pd = populate(Pd::OWN, 100, 1).map_err(show)?;
    let (spaces, vcpu) = (pd.selector() + 1, pd.selector() + 8);
    for (name, at) in [("objects", 0), ("host", 1), ("guest", 2), ("ports", 3), ("MSRs", 4)] {
        check_eq!(destroy(spaces + at), Err(Status::Busy), "{name}");
    }
    destroy(vcpu).map_err(show)?;
    for (name, at) in [("guest", 2), ("MSRs", 4)] {
        check_eq!(destroy(spaces + at), Ok(()), "{name} without a virtual CPU");
    }
    // One domain's spaces cannot be used by another's virtual CPU, which could outlive them.
    let other = populate(Pd::OWN, 100, 1).map_err(show)?;
    let guest = other.selector() + 3;
    let new = FREE.one().map_err(show)?;
    let arguments = [new.into(), EcKind::Vcpu as u64, guest.into(), 0, 0];
    // SAFETY: a virtual CPU without time.
    let made = unsafe { raw::hypercall(Number::CreateEc, 0, pd.selector(), arguments).0 };
    check_eq!(made, Status::BadParam, "a virtual CPU with another domain's space");
    pd.destroy().and_then(|()| other.destroy()).map_err(show)
}

/// Behind the place to which the end of a space has come nothing is put any more: nobody would ever look there again.
fn half_gone_space(bench: &mut Bench<'_>) -> Check {
    const LARGE: u64 = 2 << 20;
    /// Entries of a page directory that one call looks at.
    const LEAVES: u64 = 128;
    let region = bench.memory.region(0, LARGE).map_err(|_| "too little memory")?;
    let once = || {
        let before = free()?;
        let space = GuestSpace::create(Pd::OWN).map_err(show)?;
        for leaf in 0..LEAVES {
            space.grant(region, leaf * LARGE, MemRights::RWX).map_err(show)?;
        }
        // SAFETY: no memory of this task goes with it.
        let half = unsafe { hypercall::destroy_once(space.selector()) };
        check_eq!(half, Err(Status::Partial), "the first of many calls");
        let split = |leaf| space.revoke(leaf * LARGE, 0x1000, MemRights::W);
        let refused = (0..LEAVES).filter(|leaf| split(*leaf) == Err(Status::BadCap)).count() as u64;
        destroy(space.selector()).map_err(show)?;
        FREE.give(space.selector());
        let after = free()?;
        Ok((before.saturating_sub(after), refused))
    };
    // The first time may take pages for the table of capabilities.
    once()?;
    let (lost, refused) = once()?;
    check_eq!(lost, 0, "pages that are lost");
    check_eq!(refused, LEAVES, "leaves that were not split");
    Ok(())
}

/// A domain can get its port space when it has threads already: then that ends before them, and they must not use what it was.
fn ports_of_a_thread(bench: &mut Bench<'_>) -> Check {
    static VECTOR: AtomicU64 = AtomicU64::new(0);
    const CODE: u64 = 0x40_0000;
    let taken = semaphore()?;
    let fresh = FREE.range(40).map_err(show)?;
    let (objects, host, thread, sc, ports, handlers) =
        (fresh, fresh + 1, fresh + 2, fresh + 3, fresh + 4, fresh + 5);
    // IN AL, 0x80 faults; if it does not, UD2 does.
    bench.memory.store_u64(0, 0x0b0f_80e4).map_err(|_| "no memory")?;
    let region = bench.memory.region(0, 4096).map_err(|_| "no memory")?;
    let pd = Pd::OWN.create_pd_below(60, bench.priority - 1).map_err(show)?;
    let make = || -> Result<(), Status> {
        hypercall::create_space(objects, pd.selector(), SpaceKind::Object)?;
        hypercall::create_space(host, pd.selector(), SpaceKind::Host)?;
        let span = hypercall::Span { from: region.base() >> 12, to: CODE >> 12, count: 1 };
        // SAFETY: the page is for this, and the domain's memory is not this task's.
        unsafe { hypercall::grant(own::MEMORY, host, span, 5)? };
        let utcb = 0x5000_0000_0000;
        // SAFETY: the code was put there.
        unsafe { hypercall::create_thread(thread, pd.selector(), (0, 32), (utcb, 0, CODE))? };
        let handler = Handler::new(taken)?;
        for vector in [6_u32, 13] {
            let portal = handler.portal(
                vector.into(),
                0,
                |taken: &mut Sm, _: &mut abi::fault::FaultState, id, _| {
                    VECTOR.store(id, Ordering::Relaxed);
                    let _ = taken.up();
                    runtime::park()
                },
            )?;
            let space = ObjectSpace::at(objects);
            ObjectSpace::OWN.grant(portal.selector(), space, 32 + vector, Perms::PT_EVENT)?;
        }
        hypercall::create_space(ports, pd.selector(), SpaceKind::Port)
    };
    make().map_err(show)?;
    // As far as the port space, which is the newest, and not further.
    while PortSpace::at(ports).grant(0, 1, PortSpace::at(ports)) != Err(Status::BadCap) {
        // SAFETY: nothing of the domain is this task's.
        let step = unsafe { hypercall::destroy_once(pd.selector()) };
        check_eq!(step, Err(Status::Partial), "a step");
    }
    // Its pages come back as something that is full of zeros.
    for at in handlers..fresh + 40 {
        let utcb = 0x6000_0000_0000 + u64::from(at) * 4096;
        // SAFETY: nobody calls them.
        let made = unsafe { hypercall::create_handler(at, own::PD, (0, 0), (utcb, 0x1000)) };
        made.map_err(show)?;
    }
    let share = (bench.priority - 1, bench.hz / 100, 0);
    hypercall::create_sc(sc, own::PD, thread, share).map_err(show)?;
    wait(bench, taken, "an exception")?;
    check_eq!(VECTOR.load(Ordering::Relaxed), 13, "the exception");
    pd.destroy().map_err(show)?;
    for at in handlers..fresh + 40 {
        destroy(at).map_err(show)?;
    }
    Ok(())
}
