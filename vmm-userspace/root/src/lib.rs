//! The pure part of the root task.
//!
//! | module | what it does |
//! |---|---|
//! | [`frames`] | who has which physical memory |
//! | [`acpi`] | how the firmware says that the machine is turned off and reset |
//! | [`hang`] | whether a monitor still answers |
//! | [`kernel_log`] | takes new lines out of the kernel's log |
//! | [`policy`] | whether a partition that ended is started again |
//! | [`rtc`] | the time of day in a PC's clock |
//! | [`status`] | why something did not work, for people |
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod acpi;
pub mod frames;
pub mod hang;
pub mod kernel_log;
pub mod policy;
pub mod rtc;
pub mod status;
