//! How long a hypercall keeps interrupts off, with the arguments that are worst for it.
//!
//! Ring 0 runs each hypercall with interrupts off from entry to exit, so the time of one call, seen from here, is never less
//! than that stretch. Each figure is the longest of several calls, none of which is taken up again when only part of the work
//! was done. An interrupt of the timer that waits for the end of a call is counted to it. Where a call ends in a thread of low
//! priority, all that outranks it may run in between, so that the median is taken of those.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::arch::naked_asm;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::cap::{MemRights, NULL, Perms, SELECTORS, Selector, own};
use abi::hypercall::{EcActivity, EcOp, FOREVER, Number, PdOp, SmOp, Status, pack};
use abi::layout::{HYPERCALL_PAGE, PAGE_SHIFT, PAGE_SIZE};
use abi::utcb::{Item, MAX_ITEMS, MAX_WORDS, MsgTag, Utcb, Window};
use abi::vcpu::Groups;
use protocol::startup::Share;
use runtime::clock::now;
use runtime::handler::Handler;
use runtime::hypercall::{self, Span};
use runtime::memory::GuestMemory;
use runtime::pd::{Limits, Pd};
use runtime::selector::FREE;
use runtime::sm::Sm;
use runtime::space::{GuestSpace, HostSpace, MsrSpace, ObjectSpace, PortSpace};
use runtime::task::defaults;
use runtime::thread::Thread;
use runtime::{Task, println};

/// A case and the ticks of its longest call.
pub type Case = (&'static str, u64);

/// Calls of what can be done again and again.
const ROUNDS: usize = 300;
/// Calls of what leaves page tables behind, which stay until their space ends.
const FEW: usize = 8;
/// Threads that wait for the same thing.
const CROWD: usize = 200;
/// Portals of one handler.
const PORTALS: usize = 300;
/// Pages that a last-level table maps.
const TABLE: u64 = 512;
/// Where UTCBs of this module's threads go: nothing else is near.
const FAR: u64 = 0x5000_0000_0000;
/// The kernel memory of a domain with some objects of each kind, in pages.
const QUOTA: u64 = 300;
/// Priorities below this task's and the console service's: of the crowd, and of the thread that sees when it has gone to wait.
const CROWD_PRIORITY: u64 = 100;
const WITNESS_PRIORITY: u64 = 50;

/// When a measured call began, where it ends in another thread.
static BEGIN: AtomicU64 = AtomicU64::new(0);
/// When a thread went on because of it; 0: not yet.
static END: AtomicU64 = AtomicU64::new(0);

/// The longest of several calls.
#[derive(Default)]
struct Longest(u64);

impl Longest {
    /// Measures one call.
    #[inline(always)]
    fn call<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let begin = now();
        let result = call();
        self.add(begin, now());
        result
    }

    /// Counts a call that was measured otherwise. One that had not begun by its end was overtaken by something else.
    fn add(&mut self, begin: u64, end: u64) {
        self.0 = self.0.max(end.saturating_sub(begin));
    }
}

/// The middle one of several calls that end in another thread.
#[derive(Default)]
struct Median(Vec<u64>);

impl Median {
    /// Counts the call that [`begin`] began, if the other thread has seen its end.
    fn add(&mut self) {
        let end = END.load(Ordering::Relaxed);
        self.0.extend(end.checked_sub(BEGIN.load(Ordering::Relaxed)));
    }

    /// The middle one.
    fn get(mut self) -> Result<u64, Status> {
        self.0.sort_unstable();
        self.0.get(self.0.len() / 2).copied().ok_or(Status::Timeout)
    }
}

/// Measures all cases.
///
/// # Errors
/// The case that failed, and what the kernel said.
pub fn measure(task: &mut Task, memory: GuestMemory) -> Result<Vec<Case>, (&'static str, Status)> {
    let mut cases = Vec::new();
    let sleep = Sleep { task_clock: task.clock(), never: sm().map_err(|e| ("sleep", e))? };
    messages(task.utcb, &mut cases).map_err(|e| ("call", e))?;
    memory_grants(memory, &mut cases).map_err(|e| ("grants of memory", e))?;
    other_grants(task, &mut cases).map_err(|e| ("other grants", e))?;
    semaphores(&sleep, &mut cases).map_err(|e| ("semaphores", e))?;
    contexts(&mut cases).map_err(|e| ("control", e))?;
    creations(&mut cases).map_err(|e| ("creations", e))?;
    ends(&sleep, memory, &mut cases).map_err(|e| ("ends", e))?;
    Ok(cases)
}

fn sm() -> Result<Sm, Status> {
    Sm::create(Pd::OWN, 0)
}

/// Lets everybody else run for a while.
struct Sleep {
    task_clock: runtime::clock::Clock,
    never: Sm,
}

impl Sleep {
    fn a_moment(&self) {
        self.nanoseconds(100_000);
    }

    fn nanoseconds(&self, ns: u64) {
        let _ = self.never.down_until(self.task_clock.in_ns(ns));
    }

    /// Until all threads wait, or what they called does.
    fn until_waiting(&self, threads: &[Selector]) -> Result<(), Status> {
        for thread in threads {
            while hypercall::look(*thread)?.0 != EcActivity::Waits as u64 {
                self.a_moment();
            }
        }
        Ok(())
    }
}

/// Whether a call did what it was to do, or part of it.
fn worked((status, done): (Status, u64)) -> Result<u64, Status> {
    match status {
        Status::Success | Status::Partial => Ok(done),
        error => Err(error),
    }
}

/// A call with all the words and items there can be, and its reply. Each item goes to a new selector, some of which need
/// a new table.
fn messages(utcb: &mut Utcb, cases: &mut Vec<Case>) -> Result<(), Status> {
    /// Selectors that share a table.
    const PER_TABLE: u32 = 128;
    let item = Item::new(sm()?.selector(), Perms::ALL);
    // Half of a window is in one table, half in the next.
    let windows = FREE.range(4 * FEW as u32 * PER_TABLE + PER_TABLE)?.next_multiple_of(PER_TABLE);
    let window = |nth: u32| Window {
        base: windows + (2 * nth + 1) * PER_TABLE - MAX_ITEMS as u32 / 2,
        count: MAX_ITEMS as u32,
    };
    let handler = Handler::new(item)?;
    let portal = handler.portal(0, 0, |item: &mut Item, utcb: &mut Utcb, _, tag| {
        END.store(now(), Ordering::Relaxed);
        let next = utcb.words[0] as u32;
        utcb.window = Window { base: next, count: MAX_ITEMS as u32 };
        utcb.items = [*item; MAX_ITEMS];
        BEGIN.store(now(), Ordering::Relaxed);
        MsgTag(tag)
    })?;
    let (mut call, mut reply) = (Longest::default(), Longest::default());
    for nth in 0..FEW as u32 {
        // The handler's window for the call after this one.
        utcb.words[0] = window(2 * nth).base.into();
        utcb.window = window(2 * nth + 1);
        utcb.items = [item; MAX_ITEMS];
        let begin = now();
        portal.call(utcb, MsgTag::new(MAX_WORDS, MAX_ITEMS))?;
        let end = now();
        call.add(begin, END.load(Ordering::Relaxed));
        reply.add(BEGIN.load(Ordering::Relaxed), end);
    }
    if utcb.items.iter().any(|item| item.selector == NULL) {
        return Err(Status::BadCap);
    }
    cases.extend([("call", call.0), ("reply", reply.0)]);
    Ok(())
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

/// Ends something, in as many hypercalls as it takes, of which each is measured.
fn destroy(longest: &mut Longest, object: Selector) -> Result<(), Status> {
    loop {
        // SAFETY: nothing of this task's memory goes with what is destroyed here but UTCBs of threads that end.
        match longest.call(|| unsafe { hypercall::destroy_once(object) }) {
            Err(Status::Partial) => {}
            outcome => return outcome,
        }
    }
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

fn memory_grants(memory: GuestMemory, cases: &mut Vec<Case>) -> Result<(), Status> {
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

fn other_grants(task: &Task, cases: &mut Vec<Case>) -> Result<(), Status> {
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

static ENTRY: u64 = HYPERCALL_PAGE;

/// A thread that does the same hypercall for ever: RAX and RSI are on its stack.
#[unsafe(naked)]
extern "C" fn repeat() {
    naked_asm!(
        "2:",
        "mov rax, [rsp]",
        "mov rsi, [rsp + 8]",
        "call qword ptr [rip + {entry}]",
        "jmp 2b",
        entry = sym ENTRY,
    )
}

/// A number for the address of a UTCB.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// An address for a UTCB, where tables are missing if it is to be alone.
fn utcb_address(alone: bool) -> u64 {
    const ROOM: u64 = 1 << 39;
    let nth = NEXT.fetch_add(1, Ordering::Relaxed);
    if alone { FAR + (1 + nth % 64) * ROOM } else { FAR + nth * PAGE_SIZE }
}

/// A thread of [`repeat`].
fn repeating(rax: u64, rsi: u64) -> Result<Selector, Status> {
    let stack: &'static mut [u64; 4] = Box::leak(Box::new([0, 0, rax, rsi]));
    let sp = &raw const stack[2] as u64;
    let (new, at) = (FREE.one()?, (defaults().cpu, defaults().events));
    let ip = repeat as *const () as u64;
    // SAFETY: the code needs no more of a stack than a return address, and never returns.
    unsafe {
        hypercall::create_thread(new, Pd::OWN.selector(), at, (utcb_address(false), sp, ip))
    }?;
    let time = (CROWD_PRIORITY, defaults().share.budget, 0);
    hypercall::create_sc(FREE.one()?, Pd::OWN.selector(), new, time)?;
    Ok(new)
}

/// Many threads that do the same hypercall.
fn crowd(rax: u64, rsi: u64) -> Result<Vec<Selector>, Status> {
    (0..CROWD).map(|_| repeating(rax, rsi)).collect()
}

fn disperse(threads: &[Selector]) -> Result<u64, Status> {
    let mut longest = Longest::default();
    for thread in threads {
        destroy(&mut longest, *thread)?;
    }
    Ok(longest.0)
}

/// Runs when nobody else does, and says since when.
fn witness() -> Result<(), Status> {
    let share = Share { priority: WITNESS_PRIORITY, ..defaults().share };
    Thread::spawn(share, |_| {
        loop {
            if END.load(Ordering::Relaxed) == 0 {
                END.store(now(), Ordering::Relaxed);
            }
        }
    })?;
    Ok(())
}

/// Forgets when the last call ended, and begins one that ends in another thread.
#[inline(always)]
fn begin() {
    END.store(0, Ordering::Relaxed);
    BEGIN.store(now(), Ordering::Relaxed);
}

fn semaphores(sleep: &Sleep, cases: &mut Vec<Case>) -> Result<(), Status> {
    let down = |sm: Sm| pack(Number::CtrlSm, SmOp::Down as u8, sm.selector());
    witness()?;
    // Up with a crowd that waits, each with a deadline, the first of whom is woken.
    let awaited = sm()?;
    let far = now() + sleep.task_clock.hz() * 3600;
    let threads = crowd(down(awaited), far)?;
    sleep.until_waiting(&threads)?;
    let mut up = Longest::default();
    for _ in 0..ROUNDS {
        up.call(|| awaited.up())?;
        sleep.a_moment();
    }
    cases.push(("up_waited", up.0));

    // Down with a deadline among many, until a thread of the lowest priority runs.
    let mut down_deadline = Median::default();
    for _ in 0..ROUNDS {
        let deadline = sleep.task_clock.in_ns(100_000);
        begin();
        let _ = sleep.never.down_until(deadline);
        down_deadline.add();
    }
    cases.push(("down_deadline", down_deadline.get()?));
    cases.push(("destroy_thread", disperse(&threads)?));

    // A handler waits in the middle of a call, and the time of all others who call it waits with it.
    let resource = sm()?;
    let handler = Handler::new(resource)?;
    let portal = handler.portal(0, 0, |resource: &mut Sm, _: &mut Utcb, _, tag| {
        begin();
        let _ = resource.down();
        MsgTag(tag)
    })?;
    let threads = crowd(pack(Number::Call, 0, portal.selector()), 0)?;
    sleep.until_waiting(&threads)?;
    let (mut up, mut down) = (Longest::default(), Median::default());
    for _ in 0..FEW {
        up.call(|| resource.up())?;
        // All their time comes to wait again, in one decision, long before this thread goes on.
        sleep.nanoseconds(2_000_000);
        down.add();
        sleep.until_waiting(&threads)?;
    }
    cases.push(("up_helped", up.0));
    cases.push(("down_helped", down.get()?));
    let mut ended = Longest::default();
    destroy(&mut ended, handler.ec().selector())?;
    cases.push(("destroy_helped", ended.0));
    disperse(&threads)?;
    Ok(())
}

fn contexts(cases: &mut Vec<Case>) -> Result<(), Status> {
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

fn creations(cases: &mut Vec<Case>) -> Result<(), Status> {
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

fn ends(sleep: &Sleep, memory: GuestMemory, cases: &mut Vec<Case>) -> Result<(), Status> {
    let own_pd = Pd::OWN.selector();
    let awaited = sm()?;
    let threads = crowd(pack(Number::CtrlSm, SmOp::Down as u8, awaited.selector()), FOREVER)?;
    sleep.until_waiting(&threads)?;
    let mut ended = Longest::default();
    destroy(&mut ended, awaited.selector())?;
    cases.push(("destroy_sm", ended.0));
    disperse(&threads)?;

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
