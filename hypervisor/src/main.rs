//! Ferrite's ring 0: a microhypervisor.
//!
//! It owns the processor's virtualization state and second-level page tables, and turns every VM
//! exit into a message to an unprivileged monitor. What it does itself is what nobody else can be
//! trusted with: capabilities, address spaces, IPC, CPU time, interrupt routing.
//!
//! | folder | what lives there |
//! |---|---|
//! | `arch` | the processor: entry paths, tables, timers, and `vmx` for VT-x |
//! | `mem` | the kernel's own memory: pool, window, per-domain slabs |
//! | `object` | the kernel objects |
//! | `sched` | ready queue, timeouts, dispatch |
//! | `hypercall` | one file for each group of hypercalls |
#![no_std]
#![no_main]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![deny(clippy::unreachable, clippy::indexing_slicing, clippy::todo)]

mod arch;
mod boot;
mod hypercall;
mod ipc;
mod list;
mod log;
mod mem;
mod object;
mod panic;
mod sched;
mod sync;
