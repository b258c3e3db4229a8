//! The PC that a guest sees: its policies and its wiring, as pure functions and state machines.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod acpi;
pub mod control;
pub mod cpuid;
pub mod layout;
pub mod linux;
pub mod memory;
pub mod msr;
pub mod pc;
pub mod reset;
