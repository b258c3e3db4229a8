//! Where everything is in the domain that makes the calls: addresses and selectors.
//!
//! | pages of the arena | what | for the domain |
//! |---|---|---|
//! | 0 | [`super::control::Control`] | read, write |
//! | 1 | a page that nobody may change | read |
//! | 2 to 49 | stacks, two pages for each slot | read, write |
//! | 64 to 95 | what is granted about, and the memory of guests | all |

use abi::cap::Selector;

/// The arena.
pub const ARENA: u64 = 0x5000_0000_0000;
/// Its pages.
pub const ARENA_PAGES: u64 = 96;
/// The page that may only be read.
pub const KEPT_PAGE: u64 = 1;
/// First page of the stacks.
const STACKS: u64 = 2;
/// Pages of a stack.
const STACK_PAGES: u64 = 2;
/// First page, and number of pages, that the domain may do anything with.
pub const PLAY: (u64, u64) = (64, 32);

/// Threads and handlers that have a stack.
pub const SLOTS: usize = 24;
/// Of these, those of the threads that the domain starts with.
pub const FIRST_WALKERS: u64 = 3;
/// The first one for handlers: those of machines, then others.
pub const FIRST_HANDLER: u64 = 8;
/// The one that contexts use together when there is none left for them alone.
pub const SHARED_SLOT: u64 = SLOTS as u64 - 1;

/// The message pages of the first threads.
pub const UTCBS: u64 = 0x6000_0000_0000;
/// Those of all others: so many pages, to be chosen from.
pub const OTHER_UTCBS: (u64, u64) = (0x6000_0010_0000, 96);

/// A space with the registers that a guest may use.
pub const MSRS: Selector = 4;
/// A portal of the supervisor: call only.
pub const ECHO: Selector = 5;
/// A semaphore of the supervisor: up only.
pub const UP_ONLY: Selector = 6;
/// A semaphore that threads end at.
pub const PARK: Selector = 7;
/// The first threads.
pub const WALKERS: Selector = 8;
/// The most CPUs that a life can be on.
pub const CPUS: u64 = 2;
/// Portals for exceptions: on each CPU others, because a call stays there.
pub const fn events(cpu: u64) -> Selector {
    if cpu == 0 { 32 } else { POOL.0 + POOL.1 + 32 * (cpu as Selector - 1) }
}
/// First selector, and number of selectors, to make objects at.
pub const POOL: (Selector, u32) = (64, 256);
/// First selectors of the machines: portals, then the other objects.
pub const MACHINES: Selector = 512;
/// Selectors of a machine.
pub const MACHINE: u32 = 64;
/// Machines in a life.
pub const MOST_MACHINES: u64 = 4;
/// Everything that the domain is likely to have is below.
pub const END: Selector = 1024;

/// Where the stack of a slot starts: above it are the slot's number and the address of its message page.
pub const fn stack(slot: u64) -> u64 {
    ARENA + (STACKS + STACK_PAGES * (slot + 1)) * 4096 - 56
}

/// The slot whose stack that is.
pub const fn slot_of(rsp: u64) -> Option<u64> {
    let first = ARENA + STACKS * 4096;
    let end = first + SLOTS as u64 * STACK_PAGES * 4096;
    if first <= rsp && rsp < end { Some((rsp - first) / (STACK_PAGES * 4096)) } else { None }
}
