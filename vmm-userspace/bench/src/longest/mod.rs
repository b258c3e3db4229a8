//! How long a hypercall keeps interrupts off, with the arguments that are worst for it.
//!
//! Ring 0 runs each hypercall with interrupts off from entry to exit, so the time of one call, seen from here, is never less
//! than that stretch. Each figure is the longest of several calls, none of which is taken up again when only part of the work
//! was done. An interrupt of the timer that waits for the end of a call is counted to it. Where a call ends in a thread of low
//! priority, all that outranks it may run in between, so that the median is taken of those.
//!
//! | module | what it measures |
//! |---|---|
//! | `messages` | calls and replies |
//! | `grants` | grants and revocations of everything |
//! | `crowd` | what many threads that wait for the same thing make long |
//! | `objects` | creation, control and end of objects |

mod crowd;
mod grants;
mod messages;
mod objects;

use alloc::vec::Vec;

use abi::cap::Selector;
use abi::hypercall::Status;
use runtime::clock::now;
use runtime::memory::GuestMemory;
use runtime::pd::Pd;
use runtime::sm::Sm;
use runtime::{Task, hypercall};

/// A case and the ticks of its longest call.
pub type Case = (&'static str, u64);

/// Calls of what can be done again and again.
const ROUNDS: usize = 300;
/// Calls of what leaves page tables behind, which stay until their space ends.
const FEW: usize = 8;
/// Pages that a last-level table maps.
const TABLE: u64 = 512;

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

/// Measures all cases.
///
/// # Errors
/// The case that failed, and what the kernel said.
pub fn measure(task: &mut Task, memory: GuestMemory) -> Result<Vec<Case>, (&'static str, Status)> {
    let mut cases = Vec::new();
    let sleep = crowd::Sleep::new(task.clock()).map_err(|e| ("sleep", e))?;
    messages::measure(task.utcb, &mut cases).map_err(|e| ("call", e))?;
    grants::of_memory(memory, &mut cases).map_err(|e| ("grants of memory", e))?;
    grants::of_others(task, &mut cases).map_err(|e| ("other grants", e))?;
    crowd::semaphores(&sleep, &mut cases).map_err(|e| ("semaphores", e))?;
    objects::contexts(&mut cases).map_err(|e| ("control", e))?;
    objects::creations(&mut cases).map_err(|e| ("creations", e))?;
    objects::interrupts(task, &mut cases).map_err(|e| ("interrupts", e))?;
    crowd::ends(&sleep, &mut cases).map_err(|e| ("ends with a crowd", e))?;
    objects::ends(memory, &mut cases).map_err(|e| ("ends", e))?;
    Ok(cases)
}

fn sm() -> Result<Sm, Status> {
    Sm::create(Pd::OWN, 0)
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
