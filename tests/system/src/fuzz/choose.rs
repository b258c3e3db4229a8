//! Choosing a call: what it is, and what it is about.

use core::sync::atomic::Ordering;

use abi::cap::{NULL, SELECTORS, Selector, SpaceKind, own};
use abi::hypercall::{EcKind, EcOp, FOREVER, Number, Status};
use abi::utcb::Item;
use runtime::clock::now;

use super::layout::{
    ARENA, ARENA_PAGES, CPUS, ECHO, END, FIRST_HANDLER, FIRST_WALKERS, MACHINES, MOST_MACHINES,
    MSRS, OTHER_UTCBS, PARK, PLAY, POOL, SHARED_SLOT, UP_ONLY, UTCBS, WALKERS, events, stack,
};
use super::rng::Rng;
use super::stubs;
use super::walk::{Call, Walk};

/// What is believed to be at a selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Nothing,
    Pd,
    Thread,
    Handler,
    Vcpu,
    Sc,
    Pt,
    Sm,
    Objects,
    Host,
    Guest,
    Ports,
    Msrs,
}

/// How often each hypercall is made.
const WEIGHTS: [(Number, u64); 17] = [
    (Number::Call, 40),
    (Number::Reply, 4),
    (Number::CreatePd, 3),
    (Number::CreateSpace, 3),
    (Number::CreateEc, 5),
    (Number::CreateSc, 5),
    (Number::CreatePt, 30),
    (Number::CreateSm, 30),
    (Number::Grant, 60),
    (Number::Revoke, 50),
    (Number::CtrlEc, 20),
    (Number::CtrlSc, 15),
    (Number::CtrlPt, 15),
    (Number::CtrlSm, 60),
    (Number::AssignInt, 6),
    (Number::CtrlPd, 20),
    (Number::Destroy, 20),
];

const TOTAL: u64 = {
    let (mut sum, mut rest): (u64, &[(Number, u64)]) = (0, &WEIGHTS);
    while let [(_, weight), tail @ ..] = rest {
        sum += *weight;
        rest = tail;
    }
    sum
};

fn number(rng: &mut Rng) -> Number {
    let mut left = rng.below(TOTAL);
    for (number, weight) in WEIGHTS {
        if left < weight {
            return number;
        }
        left -= weight;
    }
    Number::CtrlPd
}

/// The flags that a call is made with: sometimes such as might confuse the kernel. Single steps would end each call with an
/// exception, so they are rare.
pub fn flags(rng: &mut Rng) -> u64 {
    const PLAIN: u64 = 0x202;
    const ODD: [u64; 6] = [1 << 10, 1 << 14, 1 << 18, 1 << 21, 1 << 11, 0xd5];
    const TRAP: u64 = 1 << 8;
    match rng.below(4096) {
        0 => PLAIN | TRAP,
        1..64 => PLAIN | ODD[rng.below(ODD.len() as u64) as usize],
        _ => PLAIN,
    }
}

/// What the next call is.
pub fn call(walk: &mut Walk<'_>) -> Call {
    let rng = &mut walk.rng;
    if rng.once_in(12) {
        return nonsense(rng);
    }
    let number = number(rng);
    let mut call = sensible(walk, number);
    let rng = &mut walk.rng;
    // Nearly right is worse than wrong.
    if rng.once_in(6) {
        let wrong = match rng.below(4) {
            0 => rng.any_size(),
            1 => rng.next(),
            _ => rng.boundary(),
        };
        match rng.below(7) {
            0 => call.word = call.word & !0xff00 | (wrong & 0xff) << 8,
            1 => call.word = call.word & 0xffff_ffff | wrong << 32,
            index => call.arguments[index as usize % 5] = wrong,
        }
    }
    call
}

fn nonsense(rng: &mut Rng) -> Call {
    let mut word = if rng.once_in(2) { rng.next() } else { rng.below(19) };
    if rng.once_in(2) {
        word = word & 0xffff_ffff | rng.below(END.into()) << 32;
    }
    let mut argument = || match rng.below(3) {
        0 => rng.next(),
        1 => rng.any_size(),
        _ => rng.boundary(),
    };
    let arguments = [argument(), argument(), argument(), argument(), argument()];
    Call { word, arguments }
}

/// What the next message carries.
pub fn message(walk: &mut Walk<'_>) {
    let count = walk.rng.below(8) as usize;
    for _ in 0..count {
        let (at, value) = (walk.rng.below(256) as usize, walk.rng.next());
        walk.utcb.words[at] = value;
    }
    for index in 0..walk.utcb.items.len() {
        if walk.rng.once_in(4) {
            let selector = anything(walk);
            let perms = abi::cap::Perms(walk.rng.next() as u8);
            walk.utcb.items[index] = Item::new(selector, perms);
        }
    }
    walk.utcb.window.base = if walk.rng.once_in(8) { walk.rng.next() as u32 } else { walk.pool() };
    walk.utcb.window.count = walk.rng.any_size() as u32;
}

/// A selector of any kind: real, freed, or out of range.
fn anything(walk: &mut Walk<'_>) -> Selector {
    const LIMITS: [Selector; 6] =
        [NULL, SELECTORS - 1, SELECTORS, SELECTORS + 1, u32::MAX, 1 << 31];
    match walk.rng.below(16) {
        0 => LIMITS[walk.rng.below(LIMITS.len() as u64) as usize],
        1 => walk.rng.next() as Selector,
        2 => events(walk.rng.below(CPUS)) + walk.rng.below(32) as Selector,
        3..6 => walk.rng.below(16) as Selector,
        6 => MACHINES + walk.rng.below(256) as Selector,
        _ => walk.pool(),
    }
}

fn kind_at(walk: &Walk<'_>, index: u32) -> u8 {
    walk.control.kinds.get(index as usize).map_or(0, |kind| kind.load(Ordering::Relaxed))
}

/// A selector of the pool at which something of the kind is believed to be.
fn of(walk: &mut Walk<'_>, kind: Kind) -> Option<Selector> {
    let first = walk.rng.below(POOL.1.into()) as u32;
    (0..POOL.1)
        .map(|step| (first + step) % POOL.1)
        .find(|index| kind_at(walk, *index) == kind as u8)
        .map(|index| POOL.0 + index)
}

/// A selector that is mostly of the kind.
fn mostly(walk: &mut Walk<'_>, kind: Kind) -> Selector {
    if walk.rng.once_in(16) {
        return anything(walk);
    }
    match of(walk, kind) {
        Some(selector) => selector,
        None => anything(walk),
    }
}

/// One of two.
fn either(walk: &mut Walk<'_>, common: Selector, other: Kind) -> Selector {
    if walk.rng.once_in(6) { mostly(walk, other) } else { common }
}

/// A selector that is mostly empty.
fn vacant(walk: &mut Walk<'_>) -> u64 {
    if walk.rng.once_in(16) { anything(walk).into() } else { mostly(walk, Kind::Nothing).into() }
}

fn play_page(rng: &mut Rng) -> u64 {
    (ARENA >> 12) + PLAY.0 + rng.below(PLAY.1)
}

/// A page of the domain that may be granted from.
fn source_page(rng: &mut Rng) -> u64 {
    match rng.below(16) {
        0 => 0x400 + rng.below(64),
        1 => (ARENA >> 12) + super::layout::KEPT_PAGE,
        2 => (UTCBS >> 12) + rng.below(8),
        3 => abi::layout::HYPERCALL_PAGE >> 12,
        _ => play_page(rng),
    }
}

/// A page of the domain's memory to be taken away: mostly one that is there for that.
fn lost_page(rng: &mut Rng) -> (u64, u64) {
    match rng.below(64) {
        0 => (0x400 + rng.below(64), 1 + rng.below(8)),
        1 => ((ARENA >> 12) + rng.below(ARENA_PAGES), 1 + rng.below(4)),
        2 => ((UTCBS >> 12) + rng.below(4), 1),
        3 => (rng.any_size(), rng.any_size()),
        _ => (play_page(rng), 1 + rng.below(4)),
    }
}

fn deadline(rng: &mut Rng, hz: u64) -> u64 {
    match rng.below(64) {
        0 => FOREVER,
        1..24 => 0,
        24..40 => now().wrapping_sub(rng.any_size() >> 16),
        40 => rng.next(),
        _ => now() + rng.below(hz / 20_000 + 1),
    }
}

/// A call with arguments that make sense, mostly.
fn sensible(walk: &mut Walk<'_>, number: Number) -> Call {
    let hz = walk.control.hz.load(Ordering::Relaxed);
    let mut flags = 0;
    let (selector, arguments) = match number {
        Number::Call => {
            let (words, items) = (walk.rng.below(257), walk.rng.below(17));
            let tag = match walk.rng.below(8) {
                0 => walk.rng.next(),
                1 => words | items << 16,
                2..5 => words,
                _ => walk.rng.below(6),
            };
            (either(walk, ECHO, Kind::Pt), [0, tag, 0, 0, 0])
        }
        Number::Reply => (NULL, [0, walk.rng.next(), 0, 0, 0]),
        Number::CreatePd => {
            let (pages, priority) = (walk.rng.below(4), walk.rng.below(140));
            // All CPUs, some of them, or any bits.
            let cpus = match walk.rng.below(4) {
                0 => walk.rng.next(),
                1 => 1 << cpu(walk),
                _ => u64::MAX,
            };
            (either(walk, own::PD, Kind::Pd), [vacant(walk), pages, priority, cpus, 0])
        }
        Number::CreateSpace => {
            let kind = walk.rng.below(6);
            (either(walk, own::PD, Kind::Pd), [vacant(walk), kind, 0, 0, 0])
        }
        Number::CreateEc => create_ec(walk),
        Number::CreateSc => create_sc(walk, hz),
        Number::CreatePt => {
            let (ip, id) = (place(&mut walk.rng), walk.rng.any_size());
            let (groups, handler) = (walk.rng.next() & 0xff_ffff, mostly(walk, Kind::Handler));
            (either(walk, own::PD, Kind::Pd), [vacant(walk), handler.into(), ip, id, groups])
        }
        Number::CreateSm => {
            let count = if walk.rng.once_in(8) { walk.rng.next() } else { walk.rng.below(3) };
            (either(walk, own::PD, Kind::Pd), [vacant(walk), count, 0, 0, 0])
        }
        Number::Grant => grant(walk),
        Number::Revoke => revoke(walk),
        Number::CtrlEc => {
            flags = walk.rng.below(7) as u8;
            let kind = [Kind::Thread, Kind::Handler, Kind::Vcpu][walk.rng.below(3) as usize];
            let first = WALKERS + 2 * walk.rng.below(FIRST_WALKERS) as Selector;
            let moves = flags == EcOp::Move as u8;
            let word = match moves {
                true => cpu(walk),
                false => walk.rng.next() >> walk.rng.below(64),
            };
            let selector = match flags {
                0 | 1 => first,
                _ if moves && walk.rng.once_in(4) => first,
                _ if moves => mostly(walk, kind),
                _ => mostly(walk, Kind::Vcpu),
            };
            (either(walk, selector, kind), [0, word, 0, 0, 0])
        }
        Number::CtrlSc => {
            let first = WALKERS + 1 + 2 * walk.rng.below(FIRST_WALKERS) as Selector;
            (either(walk, first, Kind::Sc), [0; 5])
        }
        Number::CtrlPt => {
            let (id, groups) = (walk.rng.any_size(), walk.rng.next() >> walk.rng.below(64));
            (mostly(walk, Kind::Pt), [0, id, groups, 0, 0])
        }
        Number::CtrlSm => {
            flags = walk.rng.below(3) as u8;
            let deadline = deadline(&mut walk.rng, hz);
            let selector = match walk.rng.below(12) {
                0 => UP_ONLY,
                1 if flags == 0 => PARK,
                _ => mostly(walk, Kind::Sm),
            };
            (selector, [0, deadline, 0, 0, 0])
        }
        Number::AssignInt => (mostly(walk, Kind::Sm), [0, walk.rng.below(5), cpu(walk), 0, 0]),
        Number::CtrlPd => {
            flags = walk.rng.below(4) as u8;
            let pages = if walk.rng.once_in(8) { walk.rng.any_size() } else { walk.rng.below(3) };
            (either(walk, own::PD, Kind::Pd), [0, pages, 0, 0, 0])
        }
        Number::Destroy => (doomed(walk), [0; 5]),
    };
    let selector =
        if number == Number::CtrlPd && flags != 0 { mostly(walk, Kind::Pd) } else { selector };
    Call::new(number, flags, selector, arguments)
}

/// An object to be destroyed: of any kind, rarely one that the domain lives on.
fn doomed(walk: &mut Walk<'_>) -> Selector {
    const KINDS: [Kind; 12] = [
        Kind::Pd,
        Kind::Thread,
        Kind::Handler,
        Kind::Vcpu,
        Kind::Sc,
        Kind::Pt,
        Kind::Sm,
        Kind::Objects,
        Kind::Host,
        Kind::Guest,
        Kind::Ports,
        Kind::Msrs,
    ];
    match walk.rng.below(512) {
        0 => anything(walk),
        1..16 => walk.pool(),
        choice => match of(walk, KINDS[choice as usize % KINDS.len()]) {
            Some(selector) => selector,
            None => walk.pool(),
        },
    }
}

/// An instruction pointer.
fn place(rng: &mut Rng) -> u64 {
    match rng.below(48) {
        0 => 0x40_0000 + rng.below(0x4_0000),
        1 => rng.boundary(),
        2 => stubs::ALL[rng.below(stubs::ALL.len() as u64) as usize] as *const () as u64,
        _ => stubs::handler as *const () as u64,
    }
}

/// The number of a CPU: mostly one that there is.
fn cpu(walk: &mut Walk<'_>) -> u64 {
    let cpus = walk.control.cpus.load(Ordering::Relaxed).max(1);
    match walk.rng.below(32) {
        0 => cpus,
        1 => walk.rng.any_size() & 0x3f,
        _ => walk.rng.below(cpus),
    }
}

fn create_ec(walk: &mut Walk<'_>) -> (Selector, [u64; 5]) {
    let (kind, cpu) = (walk.rng.below(3), cpu(walk));
    let new = vacant(walk);
    if kind == EcKind::Vcpu as u64 {
        let guest = mostly(walk, Kind::Guest);
        let msrs = if walk.rng.once_in(2) { NULL } else { mostly(walk, Kind::Msrs) };
        let ports = if walk.rng.once_in(2) { NULL } else { mostly(walk, Kind::Ports) };
        let events = if walk.rng.once_in(2) { MACHINES } else { walk.pool() };
        let word = kind | cpu << 8 | u64::from(events) << 32;
        return (own::PD, [new, word, guest.into(), msrs.into(), ports.into()]);
    }
    let handler = kind == EcKind::Handler as u64;
    let utcb = OTHER_UTCBS.0 + walk.rng.below(OTHER_UTCBS.1) * 4096;
    let (used, first, end) = if handler {
        (&walk.control.handlers, FIRST_HANDLER + MOST_MACHINES, SHARED_SLOT)
    } else {
        (&walk.control.threads, FIRST_WALKERS, FIRST_HANDLER)
    };
    // A thread that makes calls needs a stack of its own, or what it believes of them is wrong.
    let slot = first + used.fetch_add(1, Ordering::Relaxed);
    let alone = slot < end;
    let slot = if alone { slot } else { SHARED_SLOT };
    let sp = stack(slot);
    let ip = if alone && !handler && walk.rng.once_in(2) {
        stubs::walker as *const () as u64
    } else {
        place(&mut walk.rng)
    };
    // SAFETY: the stack of a slot, above its stack pointer.
    unsafe {
        (sp as *mut u64).write_volatile(slot);
        (sp as *mut u64).add(1).write_volatile(utcb);
    }
    let events = if walk.rng.once_in(32) { walk.pool() } else { events(cpu.min(CPUS - 1)) };
    let word = kind | cpu << 8 | u64::from(events) << 32;
    (either(walk, own::PD, Kind::Pd), [new, word, utcb, sp, ip])
}

fn create_sc(walk: &mut Walk<'_>, hz: u64) -> (Selector, [u64; 5]) {
    let kind = if walk.rng.once_in(3) { Kind::Vcpu } else { Kind::Thread };
    let ec = mostly(walk, kind);
    let max = walk.control.max_priority.load(Ordering::Relaxed);
    let priority = if walk.rng.once_in(4) { walk.rng.below(140) } else { max };
    // Little time for each, so that the walkers come to something.
    let budget = hz / 100_000 * (1 + walk.rng.below(4));
    let period = match walk.rng.below(8) {
        0 => 0,
        1 => budget,
        _ => budget * (8 + walk.rng.below(32)),
    };
    (own::PD, [vacant(walk), ec.into(), priority, budget, period])
}

fn grant(walk: &mut Walk<'_>) -> (Selector, [u64; 5]) {
    let rights = if walk.rng.once_in(2) { u64::MAX } else { walk.rng.next() };
    let count = if walk.rng.once_in(8) { walk.rng.any_size() } else { 1 + walk.rng.below(4) };
    match walk.rng.below(8) {
        0..3 => {
            let from = anything(walk);
            let to = vacant(walk);
            let target = either(walk, own::OBJECTS, Kind::Objects);
            (own::OBJECTS, [target.into(), from.into(), to, count.min(8), rights])
        }
        3 => {
            // Onto itself, where that costs nobody its stack.
            let (from, to) = (source_page(&mut walk.rng), play_page(&mut walk.rng));
            (own::MEMORY, [own::MEMORY.into(), from, to, count.min(4), rights])
        }
        4 => {
            let (from, to) = (source_page(&mut walk.rng), walk.rng.below(64));
            (own::MEMORY, [mostly(walk, Kind::Host).into(), from, to, count, rights])
        }
        5 => {
            let register =
                [0, 0x10, 0x174, 0x277, 0xc000_0080, 0xc000_0081][walk.rng.below(6) as usize];
            (MSRS, [mostly(walk, Kind::Msrs).into(), register, register, count, rights])
        }
        6 => {
            let (port, target) = (walk.rng.below(0x1_0000), mostly(walk, Kind::Ports));
            (mostly(walk, Kind::Ports), [target.into(), port, port, count, rights])
        }
        _ => {
            let (from, to) = (source_page(&mut walk.rng), walk.rng.below(64));
            // See `guest::PARTS`.
            let rights = if rights & 4 != 0 { rights & !2 } else { rights };
            (own::MEMORY, [mostly(walk, Kind::Guest).into(), from, to, count, rights])
        }
    }
}

fn revoke(walk: &mut Walk<'_>) -> (Selector, [u64; 5]) {
    let rights = if walk.rng.once_in(2) { u64::MAX } else { walk.rng.next() };
    let count = if walk.rng.once_in(8) { walk.rng.any_size() } else { 1 + walk.rng.below(4) };
    match walk.rng.below(16) {
        0..9 => {
            // What the domain lives on goes now and then, everything rarely.
            let first = match walk.rng.below(256) {
                0 => 0,
                1..4 => walk.rng.below(64) as Selector,
                _ => walk.pool(),
            };
            let count = if walk.rng.once_in(512) { count } else { 1 + walk.rng.below(3) };
            (own::OBJECTS, [0, first.into(), 0, count, rights])
        }
        9..12 => {
            let (first, count) = lost_page(&mut walk.rng);
            (own::MEMORY, [0, first, 0, count, rights])
        }
        kind => {
            let kinds = [Kind::Objects, Kind::Host, Kind::Guest, Kind::Ports, Kind::Msrs];
            let kind = kinds[kind as usize % kinds.len()];
            (mostly(walk, kind), [0, walk.rng.below(64), 0, count, rights])
        }
    }
}

/// What a call that was made tells about the pool.
pub fn learn(walk: &mut Walk<'_>, call: &Call, status: Status) {
    if status != Status::Success {
        return;
    }
    let [a1, a2, a3, ..] = call.arguments;
    let kind = match call.number() {
        Some(Number::CreatePd) => Kind::Pd,
        Some(Number::CreateSpace) => match SpaceKind::from_abi(a2) {
            Some(SpaceKind::Object) => Kind::Objects,
            Some(SpaceKind::Host) => Kind::Host,
            Some(SpaceKind::Guest) => Kind::Guest,
            Some(SpaceKind::Port) => Kind::Ports,
            _ => Kind::Msrs,
        },
        Some(Number::CreateEc) => match a2 as u8 {
            0 => Kind::Thread,
            1 => Kind::Handler,
            _ => Kind::Vcpu,
        },
        Some(Number::CreateSc) => Kind::Sc,
        Some(Number::CreatePt) => Kind::Pt,
        Some(Number::CreateSm) => Kind::Sm,
        Some(Number::Grant) if a1 == u64::from(own::OBJECTS) => {
            let from = (a2 as u32).wrapping_sub(POOL.0);
            set(walk, a3, kind_at(walk, from));
            return;
        }
        // Now and then it is forgotten that something is gone.
        Some(Number::Revoke) if call.selector() == own::OBJECTS && !walk.rng.once_in(4) => {
            set(walk, a2, Kind::Nothing as u8);
            return;
        }
        Some(Number::Destroy) => {
            set(walk, call.selector().into(), Kind::Nothing as u8);
            return;
        }
        _ => return,
    };
    set(walk, a1, kind as u8);
}

fn set(walk: &Walk<'_>, selector: u64, kind: u8) {
    let index = selector.wrapping_sub(POOL.0.into()) as usize;
    if let Some(at) = walk.control.kinds.get(index) {
        at.store(kind, Ordering::Relaxed);
    }
}
