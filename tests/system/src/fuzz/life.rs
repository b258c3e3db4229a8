//! A life: one domain that makes calls until it has made enough or nothing in it moves any more.
//!
//! The supervisor keeps the capabilities to its spaces, so whatever the domain takes away from itself can be put back. An exception
//! of one of its threads is a call to a handler of the supervisor, which does that and sends the thread back to its start.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use abi::cap::{MemRights, NULL, Perms, SELECTORS, Selector, own};
use abi::fault::{FaultGroups, FaultState};
use abi::hypercall::Status;
use abi::layout::PAGE_SIZE;
use abi::utcb::{MsgTag, Utcb};
use runtime::ec::Ec;
use runtime::handler::Handler;
use runtime::hypercall::{self, Span};
use runtime::memory::GuestMemory;
use runtime::pd::{Limits, Pd};
use runtime::protocol::startup::Area;
use runtime::pt::Pt;
use runtime::selector::FREE;
use runtime::sm::Sm;
use runtime::space::{HostSpace, MsrSpace, ObjectSpace};
use runtime::task::defaults;

use super::control::Control;
use super::guest;
use super::layout::{
    ARENA, ARENA_PAGES, CPUS, ECHO, END, FIRST_HANDLER, FIRST_WALKERS, KEPT_PAGE, MSRS, PARK, PLAY,
    POOL, SHARED_SLOT, UP_ONLY, UTCBS, WALKERS, events, slot_of, stack,
};
use super::rng::Rng;
use super::stubs;

/// Bytes of an arena.
pub const ARENA_BYTES: u64 = ARENA_PAGES * PAGE_SIZE;
/// Where the program lies.
const PROGRAM: u64 = 0x40_0000;
/// Bytes of stack for the handlers of the supervisor.
const STACK: usize = 8 * 1024;
/// Vectors of exceptions.
const VECTORS: u32 = 32;
/// What the page that nobody may change is full of.
const KEPT: u64 = 0x1e57_ab1e_0b57_ac1e;

unsafe extern "C" {
    /// The end of the program; see the linker script.
    static __stack_top: u8;
}

fn program_bytes() -> u64 {
    &raw const __stack_top as u64 - PROGRAM
}

/// What both the supervisor and its handlers know of a life.
pub struct Life {
    /// The domain.
    pub pd: Pd,
    /// Its capabilities.
    pub objects: ObjectSpace,
    host: HostSpace,
    /// Its memory, as the supervisor sees it.
    arena: GuestMemory,
    base: u64,
    /// Portals for its exceptions, in the supervisor.
    exceptions: Selector,
    /// What it has from the start: from here in the supervisor, to there in the domain.
    given: [(Selector, Selector, Perms); 7],
    /// Where its threads and their time are in the supervisor.
    threads: Selector,
    /// Exceptions so far.
    pub faults: AtomicU64,
    /// The handlers of its exceptions, one on each CPU.
    handlers: [AtomicU32; CPUS as usize],
    /// How many CPUs it is on.
    cpus: u64,
    /// What its threads end at.
    park: Sm,
}

/// What all lives get from the supervisor.
#[derive(Clone, Copy)]
pub struct Gifts {
    /// Registers for guests.
    pub msrs: MsrSpace,
    /// A portal to call.
    pub echo: Pt,
    /// A semaphore to up.
    pub up_only: Sm,
    /// Where the supervisor has the portals for its exceptions, and its threads and their time: one life after the other.
    pub selectors: (Selector, Selector),
}

/// Selectors for [`Gifts::selectors`].
///
/// # Errors
/// When there are none.
pub fn selectors() -> Result<(Selector, Selector), Status> {
    Ok((FREE.range(VECTORS * CPUS as u32)?, FREE.range(2 * FIRST_WALKERS as u32)?))
}

fn show(status: Status) -> String {
    format!("{status:?}")
}

impl Life {
    /// A domain with `pages` of kernel memory whose threads do not run yet. They will be on the first `cpus` CPUs.
    ///
    /// # Errors
    /// When memory is short.
    pub fn new(
        memory: GuestMemory,
        gifts: Gifts,
        (pages, max_priority, cpus): (u64, u64, u64),
        (seed, hz): (u64, u64),
    ) -> Result<&'static Self, String> {
        let region = memory.region(0, ARENA_BYTES).map_err(|_| "too little memory")?;
        let area = |offset: u64, len: u64| Area { base: region.base() + offset, len };
        // SAFETY: parts of memory that was set aside for guests.
        let (arena, play) = unsafe {
            let play = area(PLAY.0 * PAGE_SIZE, PLAY.1 * PAGE_SIZE);
            (GuestMemory::new(area(0, ARENA_BYTES)), GuestMemory::new(play))
        };
        let mut rng = Rng::new(seed);
        arena.fill(0, ARENA_BYTES, 0).map_err(|_| "outside of the arena")?;
        guest::fill(&mut rng, play)?;
        for offset in (0..PAGE_SIZE).step_by(8) {
            let _ = arena.store_u64(KEPT_PAGE * PAGE_SIZE + offset, KEPT ^ offset);
        }
        let make = || -> Result<&'static Self, Status> {
            let limits = Limits { priority: max_priority, cpus: (1 << cpus) - 1 };
            let pd = Pd::OWN.create_pd_within(pages, limits)?;
            let (objects, host) = (ObjectSpace::create(pd)?, HostSpace::create(pd)?);
            let park = Sm::create(Pd::OWN, 0)?;
            let create = Perms::PD_CREATE.union(Perms::PD_QUOTA);
            let given = [
                (pd.selector(), own::PD, create),
                (objects.selector(), own::OBJECTS, Perms::ALL),
                (host.selector(), own::MEMORY, Perms::ALL),
                (gifts.msrs.selector(), MSRS, Perms::SPACE_TAKE),
                (gifts.echo.selector(), ECHO, Perms::PT_CALL),
                (gifts.up_only.selector(), UP_ONLY, Perms::SM_UP),
                (park.selector(), PARK, Perms::SM_UP.union(Perms::SM_DOWN)),
            ];
            let (exceptions, threads) = gifts.selectors;
            let life: &'static Self = Box::leak(Box::new(Self {
                pd,
                objects,
                host,
                arena,
                base: region.base(),
                exceptions,
                given,
                threads,
                faults: AtomicU64::new(0),
                handlers: [const { AtomicU32::new(NULL) }; CPUS as usize],
                cpus,
                park,
            }));
            for (cpu, kept) in (0..cpus).zip(&life.handlers) {
                let handler = Handler::with(defaults().on(cpu as u16), STACK, life)?;
                kept.store(handler.ec().selector(), Ordering::Relaxed);
                let first = life.exceptions + VECTORS * cpu as Selector;
                for vector in 0..VECTORS {
                    let groups = FaultGroups::STATE.0 | FaultGroups::CAUSE.0;
                    handler.portal_at(first + vector, vector.into(), groups, mend)?;
                }
            }
            Ok(life)
        };
        let life = make().map_err(show)?;
        life.control().hz.store(hz, Ordering::Relaxed);
        life.control().cpus.store(cpus, Ordering::Relaxed);
        life.control().max_priority.store(max_priority, Ordering::Relaxed);
        for walker in &life.control().walkers {
            walker.random.store(rng.next(), Ordering::Relaxed);
        }
        life.restore();
        Ok(life)
    }

    /// Lets its threads run.
    ///
    /// # Errors
    /// When memory is short.
    pub fn start(&self, (priority, budget): (u64, u64)) -> Result<(), String> {
        let run = |slot: u64| {
            let ec = self.threads + 2 * slot as Selector;
            let utcb = UTCBS + slot * PAGE_SIZE;
            self.write_stack(slot, utcb);
            let at = (stack(slot), stubs::walker as *const () as u64);
            let cpu = slot % self.cpus;
            let place = (cpu as u16, events(cpu));
            // SAFETY: the program is mapped in the domain, and the slot has a stack.
            unsafe {
                hypercall::create_thread(ec, self.pd.selector(), place, (utcb, at.0, at.1))?;
            }
            hypercall::create_sc(ec + 1, self.pd.selector(), ec, (priority, budget, 0))
        };
        (0..FIRST_WALKERS).try_for_each(run).map_err(show)?;
        self.restore();
        Ok(())
    }

    /// Brings the first threads back to their CPUs: where they have been moved to, nobody takes their exceptions.
    pub fn bring_home(&self) {
        for slot in 0..FIRST_WALKERS {
            // It may be in a call, or gone.
            let _ = Ec::at(self.threads + 2 * slot as Selector).move_to((slot % self.cpus) as u16);
        }
    }

    /// The page shared with the domain.
    pub const fn control(&self) -> &Control {
        // SAFETY: the first page of the arena is this from the start on, and atomics are valid whatever is written there.
        unsafe { &*(self.base as *const Control) }
    }

    fn write_stack(&self, slot: u64, utcb: u64) {
        let at = stack(slot) - ARENA;
        let _ = self.arena.store_u64(at, slot);
        let _ = self.arena.store_u64(at + 8, utcb);
    }

    /// Gives the domain back what it started with, where it is missing.
    pub fn restore(&self) {
        // What is there already is refused, and that is fine.
        for (from, to, perms) in self.given {
            let _ = ObjectSpace::OWN.grant(from, self.objects, to, perms);
        }
        for index in 0..2 * FIRST_WALKERS as Selector {
            let (from, to) = (self.threads + index, WALKERS + index);
            let _ = ObjectSpace::OWN.grant(from, self.objects, to, Perms::ALL);
        }
        for cpu in 0..self.cpus {
            let from = self.exceptions + VECTORS * cpu as Selector;
            for vector in 0..VECTORS {
                let to = events(cpu) + vector;
                let _ = ObjectSpace::OWN.grant(from + vector, self.objects, to, Perms::PT_EVENT);
            }
        }
        self.map(PROGRAM, PROGRAM, program_bytes(), MemRights::RX);
        self.map(self.base, ARENA, ARENA_BYTES, MemRights::RW);
        self.map(
            self.base + KEPT_PAGE * PAGE_SIZE,
            ARENA + KEPT_PAGE * PAGE_SIZE,
            PAGE_SIZE,
            MemRights::R,
        );
        let play = PLAY.0 * PAGE_SIZE;
        self.map(self.base + play, ARENA + play, PLAY.1 * PAGE_SIZE, MemRights::RWX);
    }

    fn map(&self, from: u64, to: u64, bytes: u64, rights: MemRights) {
        let span =
            Span { from: from / PAGE_SIZE, to: to / PAGE_SIZE, count: bytes.div_ceil(PAGE_SIZE) };
        // SAFETY: the domain gets no right to write to memory that is the supervisor's own, which expects whatever happens to the rest.
        let _ =
            unsafe { hypercall::grant(own::MEMORY, self.host.selector(), span, rights.0.into()) };
    }

    /// Gets whoever waits or spins to go on: takes the semaphores away that they may wait for, and the program, so that each of them
    /// faults and is sent elsewhere.
    pub fn shake(&self) {
        let _ = self.objects.revoke(POOL.0, POOL.1);
        let _ = self.objects.revoke(END, SELECTORS - END);
        // SAFETY: the domain's memory is not this task's.
        let _ = unsafe { self.host.revoke(PROGRAM, program_bytes(), MemRights::RWX) };
    }

    /// Asks its threads to make no more calls.
    pub fn ask_to_stop(&self) {
        self.control().stop.store(1, Ordering::Relaxed);
        self.restore();
        self.shake();
    }

    /// Ends it, with everything that it or anything made by it has made, and the handler of its exceptions.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn end(&self) -> Result<(), Status> {
        self.pd.destroy()?;
        for (_, handler) in (0..self.cpus).zip(&self.handlers) {
            // SAFETY: with the domain everybody is gone who could call it, and its stack is not used for anything else.
            unsafe { Ec::at(handler.load(Ordering::Relaxed)).destroy()? };
        }
        ObjectSpace::OWN.revoke(self.exceptions, VECTORS * self.cpus as u32)?;
        ObjectSpace::OWN.revoke(self.park.selector(), 1)
    }

    /// Whether the page that nobody may change is as it was.
    pub fn is_kept(&self) -> bool {
        (0..PAGE_SIZE)
            .step_by(8)
            .all(|offset| self.arena.load_u64(KEPT_PAGE * PAGE_SIZE + offset) == Ok(KEPT ^ offset))
    }
}

const _: () = assert!(POOL.0 + POOL.1 <= super::layout::MACHINES && super::layout::MACHINES < END);

/// An exception in the domain: what is missing comes back, and the thread starts again.
fn mend(life: &mut &'static Life, state: &mut FaultState, _: u64, _: u64) -> FaultGroups {
    life.faults.fetch_add(1, Ordering::Relaxed);
    life.restore();
    state.rflags = 0x202;
    match slot_of(state.gpr.rsp) {
        Some(slot) if slot < FIRST_HANDLER => {
            if slot < FIRST_WALKERS {
                life.write_stack(slot, UTCBS + slot * PAGE_SIZE);
            }
            state.gpr.rsp = stack(slot);
            state.rip = stubs::walker as *const () as u64;
        }
        Some(slot) => {
            state.gpr.rsp = stack(slot);
            state.rip = stubs::quit as *const () as u64;
        }
        None => {
            // Nothing of this context is known.
            state.gpr.rsp = stack(SHARED_SLOT);
            state.rip = stubs::quit as *const () as u64;
        }
    }
    FaultGroups::STATE
}

/// The portal of the supervisor that every domain may call: it answers with words, never with capabilities.
///
/// # Errors
/// When memory is short.
pub fn echo() -> Result<Pt, Status> {
    Handler::with(defaults(), STACK, ())?
        .portal(0, 0, |(), _: &mut Utcb, _, tag| MsgTag::new(MsgTag(tag).words(), 0))
}
