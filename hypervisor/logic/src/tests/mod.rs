//! Tests against simple models.
#![allow(unused_must_use)]

mod acpi;
mod buddy;
mod grants;
mod interleaving;
mod ipc;
mod kernel_model;
mod list;
mod objects;
mod paging;
mod paging_model;
mod physical;
mod pool;
mod quota;
mod sched;
mod svm;
mod svm_exits;
mod svm_negotiate;
mod tags;
mod timeouts;
mod vmx;
mod vmx_models;
