//! Tests against simple models.
#![allow(unused_must_use)]

mod acpi;
mod elf;
mod grants;
mod ipc;
mod list;
mod objects;
mod paging;
mod paging_model;
mod physical;
mod quota;
mod sched;
mod vmx;
mod vmx_models;
