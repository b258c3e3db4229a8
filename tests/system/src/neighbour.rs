//! A partition that must notice nothing of what goes on beside it, however long that lasts.
//!
//! It wakes up every millisecond. Each time it looks how late that is, and whether the next page of its memory holds what it wrote there
//! last, and writes something else. A line that is typed ends it.

use alloc::format;
use alloc::string::String;

use abi::hypercall::Status;
use runtime::clock::now;
use runtime::console::Input;
use runtime::memory::GuestMemory;
use runtime::pd::{Pd, Quota};
use runtime::sm::Sm;
use runtime::{Outcome, Task, println};

use crate::check;
use crate::report::{Bench, Check};

/// Beats in a second.
const RATE: u64 = 1000;
/// How late a beat may be, in milliseconds. The kernel holds interrupts back for a fraction of one. Guests that mean no good get the
/// emulators to hold them back for longer: Bochs does so for a guest that is entered with IF clear.
const LATE: u64 = 4;
/// Seconds from one line to the next that says that it is still there.
const SHOWN: u64 = 5;
const PAGE: u64 = 4096;

/// What it has seen.
struct Seen {
    beats: u64,
    /// The longest delay of a beat, in ticks.
    latest: u64,
    /// The first thing that was wrong with its memory.
    memory: Check,
    /// The sum of all that it has written.
    sum: u64,
}

/// What is in the word at `offset` after it was written `turn` times.
const fn word(offset: u64, turn: u64) -> u64 {
    (offset ^ turn << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The `main` of the task.
pub fn main(task: Task) -> Outcome {
    let startup = task.startup();
    let (Some((mut out, mut input)), Some(memory)) = (task.console(), task.guest_memory()) else {
        println!("the neighbour needs `console = true` and `memory`");
        return Outcome::Failed;
    };
    let hz = startup.tsc_hz;
    let quota = Pd::OWN.quota();
    let seen = watch(memory, hz, &mut input);
    let main = (&mut *task.utcb, startup.share.priority);
    let mut bench = Bench::new(&mut out, hz, main, memory, None, startup.features);
    match seen {
        Ok(seen) => {
            let us = |ticks: u64| ticks * 1_000_000 / hz;
            println!("{} beats, the latest by {} us", seen.beats, us(seen.latest));
            bench.report("neighbour.heartbeat", heartbeat(&seen, hz));
            bench.report("neighbour.memory", seen.memory.clone());
            bench.report("neighbour.checksum", checksum(memory, &seen));
        }
        Err(why) => bench.report("neighbour.watch", Err(why)),
    }
    bench.report("neighbour.quota", same(quota, Pd::OWN.quota()));
    bench.verdict()
}

fn watch(memory: GuestMemory, hz: u64, input: &mut Input) -> Result<Seen, String> {
    let pages = memory.len() / PAGE;
    let mut seen = Seen { beats: 0, latest: 0, memory: Ok(()), sum: 0 };
    for page in 0..pages {
        write(memory, page, 0, &mut seen.sum)?;
    }
    let sleep = Sm::create(Pd::OWN, 0).map_err(|status| format!("no semaphore: {status:?}"))?;
    println!("watching");
    let mut next = now() + hz / RATE;
    let mut typed = [0; 16];
    // The line's end counts: what else arrives is an echo of somebody else's.
    while !typed.contains(&b'\n') && !typed.contains(&b'\r') {
        match sleep.down_until(next) {
            Err(Status::Timeout) => {}
            other => return Err(format!("sleeping ended with {other:?}")),
        }
        let late = now().saturating_sub(next);
        seen.latest = seen.latest.max(late);
        let (page, turn) = (seen.beats % pages, seen.beats / pages);
        if seen.memory.is_ok() {
            seen.memory = verify(memory, page, turn, &mut seen.sum);
        }
        write(memory, page, turn + 1, &mut seen.sum)?;
        seen.beats += 1;
        if seen.beats.is_multiple_of(SHOWN * RATE) {
            println!("{} beats", seen.beats);
        }
        next += hz / RATE;
        typed.fill(0);
        input.read(&mut typed);
    }
    Ok(seen)
}

fn write(memory: GuestMemory, page: u64, turn: u64, sum: &mut u64) -> Check {
    for offset in (page * PAGE..(page + 1) * PAGE).step_by(8) {
        let value = word(offset, turn);
        *sum = sum.wrapping_add(value);
        memory.store_u64(offset, value).map_err(|_| "outside of memory")?;
    }
    Ok(())
}

/// Looks at a page, and takes what should be there out of the sum.
fn verify(memory: GuestMemory, page: u64, turn: u64, sum: &mut u64) -> Check {
    for offset in (page * PAGE..(page + 1) * PAGE).step_by(8) {
        let (found, expected) = (memory.load_u64(offset), word(offset, turn));
        *sum = sum.wrapping_sub(expected);
        check!(found == Ok(expected), "{found:x?} at {offset:#x} instead of {expected:#x}");
    }
    Ok(())
}

fn heartbeat(seen: &Seen, hz: u64) -> Check {
    let (limit, latest) = (hz / 1000 * LATE, seen.latest);
    check!(seen.beats >= RATE, "only {} beats: nothing went on", seen.beats);
    check!(latest <= limit, "a beat was {latest} ticks late, {limit} are allowed");
    Ok(())
}

fn checksum(memory: GuestMemory, seen: &Seen) -> Check {
    let sum = (0..memory.len())
        .step_by(8)
        .fold(0_u64, |sum, offset| sum.wrapping_add(memory.load_u64(offset).unwrap_or(0)));
    let expected = seen.sum;
    check!(sum == expected, "the sum of all memory is {sum:#x} instead of {expected:#x}");
    Ok(())
}

fn same(before: Result<Quota, Status>, after: Result<Quota, Status>) -> Check {
    // The semaphore it sleeps on is all that it has made: a page at most.
    let fits = matches!((before, after), (Ok(before), Ok(after))
        if before.limit == after.limit && before.free - after.free <= 1);
    check!(fits, "kernel memory was {before:?} and is {after:?}");
    Ok(())
}
