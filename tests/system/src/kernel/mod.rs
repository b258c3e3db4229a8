//! Tests of what a task can see of the kernel.

mod destroy;
mod entries;
mod errors;
mod exceptions;
mod grants;
mod hostile;
mod ipc;
mod quota;
pub(crate) mod raw;
mod schedule;
mod semaphores;
pub(crate) mod threads;
mod victim;

use alloc::string::String;

use crate::report::{Bench, Check, Test};

/// All of them.
pub const TESTS: [&[Test]; 10] = [
    errors::TESTS,
    quota::TESTS,
    ipc::TESTS,
    semaphores::TESTS,
    schedule::TESTS,
    exceptions::TESTS,
    grants::TESTS,
    hostile::TESTS,
    entries::TESTS,
    destroy::TESTS,
];

/// Something that makes a thread take a page fault, for tests of what that must not change.
pub(crate) fn victim(bench: &Bench<'_>) -> Result<impl Fn(&Bench<'_>) -> Check + use<>, String> {
    let victim = victim::Victim::new(bench)?;
    Ok(move |bench: &Bench<'_>| victim.fault(bench, exceptions::read_unmapped).map(|_| ()))
}

/// Something that single-steps a thread through a hypercall, for the same.
pub(crate) fn stepper(bench: &Bench<'_>) -> Result<impl Fn(&Bench<'_>) -> Check + use<>, String> {
    let victim = victim::Victim::new(bench)?;
    Ok(move |bench: &Bench<'_>| {
        let (job, answer) = (entries::step_through_hypercall, entries::go_on);
        victim.run(bench, job, answer).map(|_| ())
    })
}
