//! The contract between ring 0 and everything else.
//!
//! Both sides of the ring boundary compile against this crate and nothing else is shared between
//! them. It has no dependencies, and nothing in it belongs to one vendor's processors: what differs by
//! nature is either settled in the kernel or a documented gap that a task can see ([`hip::features`]).
//!
//! | module | what it fixes |
//! |---|---|
//! | [`hypercall`] | numbers, registers, result codes |
//! | [`cap`] | selectors, object types, permissions, the selectors a task is born with |
//! | [`utcb`] | the message page of a thread |
//! | [`vcpu`] | exits, the state image of a virtual CPU, and its groups |
//! | [`fault`] | exceptions of threads |
//! | [`hip`] | what the kernel tells the root task at boot |
//! | [`bundle`] | the archive the loader hands over |
//! | [`program`] | the form in which tasks are in that archive |
//! | [`layout`] | the few fixed addresses |
#![no_std]
#![forbid(unsafe_code)]

pub mod bundle;
pub mod cap;
pub mod fault;
pub mod hip;
pub mod hypercall;
pub mod layout;
pub mod program;
pub mod utcb;
pub mod vcpu;
