//! The virtual-machine monitor: one task for one virtual machine.
//!
//! The machine itself, devices and policy, is the crate `machine`, which knows neither the kernel nor a
//! clock. This crate connects it to the world:
//!
//! | module | what it does |
//! |---|---|
//! | [`ram`] | guest memory: mapped into the guest, readable here |
//! | [`clock`] | guest time from the time-stamp counter |
//! | [`console`] | bytes between the guest's serial port and the console service |
//! | [`guest`] | what the guest starts with: kernel, tables, registers |
//! | [`monitor`] | answers the exits |
//! | [`report`] | says what happened to a guest that cannot go on |
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod clock;
pub mod console;
pub mod guest;
pub mod monitor;
pub mod ram;
pub mod report;
