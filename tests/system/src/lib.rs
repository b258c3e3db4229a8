//! What the test tasks are made of. Each boots as a partition of its own, runs its tests on the real
//! kernel, and says on its console how each of them went:
//!
//! ```text
//! TEST ipc.words ok
//! TEST ipc.items FAILED: item 2: got Item { .. }, expected Item { .. }
//! VERDICT fail 1 of 2
//! ```
//!
//! | module | what it tests |
//! |---|---|
//! | [`kernel`] | hypercalls, messages, scheduling, exceptions: what a task can see of the kernel |
//! | [`lifetime`] | virtual machines that come and go |
//! | [`vcpu`] | virtual CPUs, with small guests |
//! | [`fuzz`] | hypercalls at random |
//! | [`neighbour`] | that a partition notices nothing of the one beside it |
//! | [`smp`] | what one CPU does to another |
//! | [`stray`] | interrupts that nobody expects |
//! | [`share`] | who gets how much of the CPU |
//! | [`hostile`] | a guest of random operations, and what its neighbour notices of it |
//! | [`invalid`] | guest states that are refused, made by a generator |
//! | [`processor`] | nothing: it tells on which processor they run |
//! | [`report`] | nothing: it is how tests speak |
#![cfg(target_os = "none")]
#![no_std]

extern crate alloc;

#[doc(hidden)]
pub use alloc::format;

pub mod fuzz;
pub mod hostile;
pub mod invalid;
pub mod kernel;
pub mod lifetime;
pub mod neighbour;
pub mod processor;
pub mod report;
pub mod share;
pub mod smp;
pub mod stray;
pub mod vcpu;
