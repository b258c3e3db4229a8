//! Device models of a conventional PC, as pure state machines.
//!
//! A model has no clock and does no I/O. Time comes in as [`time::Time`], the guest's accesses as
//! calls of `read` and `write`, and everything the device does to the world is returned or polled
//! by its owner: interrupt lines as levels, transmitted bytes, resets. The conventions:
//!
//! * `advance(now)` brings the state up to `now`. It is idempotent and computes instead of
//!   stepping, so its cost does not depend on how much time has passed. Accesses do it themselves.
//! * `next_event()` is the latest point at which the owner must call `advance` again, because
//!   something becomes visible from outside without an access.
//! * Time never goes back; it goes on across resets.
//! * A guest may write anything in any order; no model panics.
//! * Every state is plain data that can be cloned, compared and serialized, for snapshots.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod acpi_pm;
mod array;
pub mod debug_port;
pub mod i8042;
pub mod ioapic;
pub mod lapic;
pub mod pci;
pub mod pic;
pub mod pit;
pub mod port61;
pub mod port92;
pub mod reset_control;
mod ring;
pub mod rtc;
pub mod time;
pub mod uart;
