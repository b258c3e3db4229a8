//! Threads and waiting, for tests.

use alloc::format;

use abi::utcb::Utcb;
use runtime::Status;
use runtime::pd::Pd;
use runtime::protocol::startup::Share;
use runtime::sm::Sm;
use runtime::task::defaults;
use runtime::thread::Thread;

use crate::report::{Bench, Check};

/// Bytes of stack for a thread of a test.
pub const STACK: usize = 16 * 1024;

/// A time slice that no test uses up by accident, even where the clock runs on while the host does something else.
pub const SLICE: u64 = 100_000_000;

/// A thread with a time slice and nothing more.
pub fn spawn(
    priority: u64,
    body: impl FnOnce(&'static mut Utcb) + Send + 'static,
) -> Result<Thread, alloc::string::String> {
    let share = Share { priority, budget: SLICE, period: 0 };
    Thread::spawn_with(defaults(), STACK, share, body).map_err(|e| format!("no thread: {e:?}"))
}

/// An empty semaphore.
pub fn semaphore() -> Result<Sm, alloc::string::String> {
    Sm::create(Pd::OWN, 0).map_err(|e| format!("no semaphore: {e:?}"))
}

/// Lets all threads above priority 1 go on as far as they can: until one of priority 1 has its turn.
pub fn settle(bench: &Bench<'_>) -> Check {
    let turn = semaphore()?;
    spawn(1, move |_| {
        let _ = turn.up();
    })?;
    wait(bench, turn, "a turn below all others")
}

/// Waits for a semaphore, but not for ever.
pub fn wait(bench: &Bench<'_>, sm: Sm, what: &str) -> Check {
    match sm.down_until(bench.in_ms(500)) {
        Ok(()) => Ok(()),
        Err(Status::Timeout) => Err(format!("{what} did not happen")),
        Err(error) => Err(format!("waiting for {what}: {error:?}")),
    }
}
