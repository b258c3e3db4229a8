//! The pure part of the console service: who may write and who is typed to.
//!
//! | module | what it does |
//! |---|---|
//! | [`screen`] | merges the output of all clients into one stream |
//! | [`keys`] | finds the escape key among what is typed |
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod keys;
pub mod screen;
