//! Tests of virtual CPUs, with guests of a few instructions.

mod apart;
mod code;
mod control;
mod events;
mod exits;
mod memory;
pub(crate) mod modes;
mod processor;
mod schedule;
mod state;
mod stop;
pub(crate) mod vm;

use crate::report::Test;

/// All of them.
pub const TESTS: [&[Test]; 8] = [
    exits::TESTS,
    control::TESTS,
    state::TESTS,
    events::TESTS,
    memory::TESTS,
    apart::TESTS,
    schedule::TESTS,
    stop::TESTS,
];
