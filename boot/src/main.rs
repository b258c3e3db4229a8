//! The loader: entered by GRUB or QEMU in 32-bit protected mode, leaves by jumping to the kernel.
//!
//! Decisions are made in the library beside this binary; here is what touches the machine. `unsafe`
//! is needed in `entry` and `trampoline` (assembly), `physical` and `screen` (memory by address),
//! `cpu` and `console` (registers), and `load` (memory of the new kernel).
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod console;
#[cfg(target_os = "none")]
mod cpu;
#[cfg(target_os = "none")]
mod entry;
#[cfg(target_os = "none")]
mod load;
#[cfg(target_os = "none")]
mod physical;
#[cfg(target_os = "none")]
mod screen;
#[cfg(target_os = "none")]
mod trampoline;

/// Explains itself to whoever builds it for the host.
#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("the loader runs on bare metal: build it with --target x86_64-unknown-none");
}
