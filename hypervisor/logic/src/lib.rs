//! The kernel's logic: everything in ring 0 that touches no hardware.
//!
//! Nothing here can panic, recurse or reach memory other than through the traits it is given, and
//! all of it runs under `cargo test` on the host.
//!
//! | module | what it is |
//! |---|---|
//! | [`frames`] | how the rest reaches table pages |
//! | [`buddy`] | free pages, in blocks of one, two and four |
//! | [`paging`] | page tables for ring 3 and for guests, grants between them |
//! | [`physical`] | the space of all physical memory |
//! | [`objects`] | capability tables |
//! | [`quota`] | kernel-memory accounts |
//! | [`sched`] | ready bitmap, budgets, timeouts |
//! | [`ipc`] | what moves between two UTCBs |
//! | [`vmx`] | VT-x: capabilities, control negotiation, VMCS fields, exit reasons |
//! | [`refusal`] | why a processor cannot run guests |
//! | [`exits`] | from the exits of a processor to those of the neutral interface |
//! | [`svm`] | AMD-V: capabilities, VMCB fields, intercepts, exit codes and what they tell |
//! | [`tags`] | tags of TLB entries: ASIDs, VPIDs |
//! | [`acpi`] | interrupt topology out of the firmware's tables |
//! | [`lock`] | the lock of the kernel, and what CPUs ask of each other |
//! | [`list`] | a vector of fixed capacity |
#![no_std]
#![forbid(unsafe_code)]
#![allow(clippy::new_without_default, reason = "the kernel makes what it has in constants")]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![cfg_attr(not(test), deny(clippy::unreachable, clippy::indexing_slicing, clippy::todo))]

pub mod acpi;
pub mod buddy;
pub mod exits;
pub mod frames;
pub mod ipc;
pub mod list;
pub mod lock;
pub mod objects;
pub mod paging;
pub mod physical;
pub mod quota;
pub mod refusal;
pub mod sched;
pub mod svm;
pub mod tags;
pub mod vmx;

#[cfg(test)]
extern crate std;
#[cfg(test)]
mod tests;
