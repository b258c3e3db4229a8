//! The compiled system description: what the image builder makes of a manifest and the root task
//! reads at boot. Ring 0 never sees it.
//!
//! It travels as one version byte and a `postcard` encoding of [`System`], in the bundle entry
//! that `abi::bundle` names.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod codec;
mod system;

pub use codec::{DecodeError, VERSION, decode, encode};
pub use system::{
    CONSOLE_INTERRUPT, CONSOLE_PORTS, DEFAULT_PRIORITY, DEFAULT_TIME_SLICE_US, Invalid, MAX_CPU,
    MAX_CPUS, MAX_INTERRUPT, MAX_INTERRUPTS, MAX_PRIORITY, OnEnd, PAGE_SIZE, Partition, Place,
    Ports, Restart, System,
};
