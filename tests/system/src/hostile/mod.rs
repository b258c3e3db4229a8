//! A guest that does everything it must not, a monitor that judges every exit, and a neighbour whose work must not suffer.
//!
//! | module | what it holds |
//! |---|---|
//! | [`random`] | numbers that repeat with their seed |
//! | [`mode`] | the modes the guest runs in, with tables |
//! | [`operation`] | the operations, in bursts of code |
//! | [`decode`] | which exits an instruction can be the reason of |
//! | [`judge`] | whether an exit is one that `abi` explains |
//! | [`guest`] | the virtual machine and its monitor |
//! | [`tally`] | what has happened |
//! | [`neighbour`] | a checksum, over and over, in another partition |

pub mod decode;
pub mod guest;
pub mod judge;
pub mod mode;
pub mod neighbour;
pub mod operation;
pub mod random;
pub mod tally;

use alloc::string::String;

use runtime::space::MsrSpace;
use runtime::{Task, println};

use crate::check;
use tally::Tally;

/// Operations that the guest must have come to.
const OPERATIONS: u64 = 1_000_000;
/// Exits of which nothing is known, because the guest has changed the page tables that map its code: so many may be.
const STALE: u64 = OPERATIONS / 1000;
/// Entries that QEMU may refuse.
const REFUSED: u64 = 100;
/// The seed, unless the manifest's `args` bring one.
const SEED: u64 = 20_261_126;

/// Runs the hostile guest to its end.
///
/// # Errors
/// The exit that is not as it should be.
pub fn run(task: &Task) -> Result<Tally, String> {
    let startup = task.startup();
    let memory = task.guest_memory().ok_or("no memory")?;
    let msrs = (startup.caps.msrs != 0).then(|| MsrSpace::at(startup.caps.msrs));
    let arguments = task.partition().map(|partition| partition.args).unwrap_or_default();
    let seed = arguments.trim().parse().unwrap_or(SEED);
    println!("seed {seed}");
    let shared = guest::start(memory, msrs, seed, OPERATIONS, startup.tsc_hz)?;
    while shared.over.down().is_err() {}
    let result = shared.result.lock().take();
    let tally = result.unwrap_or_else(|| Err("it ended without a result".into()))?;
    check!(tally.stale <= STALE, "{} exits at stale code", tally.stale);
    check!(tally.refused <= REFUSED, "{} entries refused", tally.refused);
    Ok(tally)
}
