//! Tests of what one CPU does to another. With one CPU alone there is nothing to test, and they fail.
//!
//! Whoever waits here for another CPU by looking again and again says PAUSE: QEMU emulates the processors in turn, and that
//! gives the turn away. Threads and guests that run without end have short time slices for the same reason.

pub(crate) mod destroy;
mod devices;
mod domain;
mod errands;
mod moves;
mod places;
mod revoke;
mod semaphores;
mod share;
mod stress;
mod vcpus;
pub(crate) mod worker;

use crate::report::Test;

/// All of them.
pub const TESTS: [&[Test]; 10] = [
    places::TESTS,
    semaphores::TESTS,
    revoke::TESTS,
    devices::TESTS,
    destroy::TESTS,
    vcpus::TESTS,
    moves::TESTS,
    errands::TESTS,
    share::TESTS,
    stress::TESTS,
];
