//! What a task runs on: entry, heap, log, hypercalls, and typed handles over selectors.
//!
//! | module | what it holds |
//! |---|---|
//! | [`start`], [`task`] | [`entry!`], what the root task gave this task, how the task ends |
//! | [`hypercall`] | the kernel's interface as functions, one each, nothing added |
//! | [`pd`], [`ec`], [`sc`], [`pt`], [`sm`], [`space`], [`interrupt`] | handles: what a selector names, as a type |
//! | [`handler`], [`thread`], [`vcpu`] | threads, portals and virtual CPUs made of ordinary functions |
//! | [`heap`], [`lock`], [`selector`], [`stack`] | the task's own resources |
//! | [`memory`] | pages, guest memory, memory shared with other tasks |
//! | [`clock`], [`port`] | time, and I/O ports |
//! | [`log`], [`console`] | text for people |
//!
//! This is the only crate above the kernel in which `unsafe` belongs. A handle is a name and no
//! more: copying it copies no authority, and using one that names nothing returns an error.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod clock;
pub mod console;
pub mod ec;
pub mod handler;
pub mod heap;
pub mod hypercall;
pub mod interrupt;
pub mod lock;
pub mod log;
pub mod memory;
#[cfg(target_os = "none")]
mod panic;
pub mod pd;
pub mod port;
pub mod pt;
pub mod sc;
pub mod selector;
pub mod sm;
pub mod space;
pub mod stack;
pub mod start;
pub mod task;
pub mod thread;
pub mod vcpu;

pub use abi;
pub use abi::hypercall::Status;
pub use config;
pub use protocol;
pub use protocol::outcome::Outcome;
pub use task::{Task, exit, park};
