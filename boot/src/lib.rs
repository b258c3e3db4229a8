//! The part of the loader that is logic: reading what the boot protocol handed over, checking the
//! kernel image, deciding where everything goes, and filling page tables.
//!
//! Nothing here touches the machine. Physical memory is reached through [`memory::PhysicalMemory`]
//! and [`paging::TableMemory`], so all of it runs under `cargo test` on the host; the binary beside
//! it implements the two traits over an identity mapping.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod address_space;
pub mod arena;
pub mod elf;
pub mod error;
pub mod framebuffer;
pub mod handoff;
pub mod memory;
pub mod multiboot2;
pub mod paging;
pub mod payload;
pub mod pvh;
pub mod regions;
pub mod span;
#[cfg(test)]
mod testing;
