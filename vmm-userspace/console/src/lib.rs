//! The pure part of the console service: who may write and who is typed to, and what the screen
//! shows.
//!
//! | module | what it does |
//! |---|---|
//! | [`output`] | merges the output of all clients into one stream |
//! | [`terminal`] | what a terminal shows of that stream |
//! | [`display`] | brings it onto the machine's screen |
//! | [`keys`] | finds the escape key among what is typed |
//! | [`moderation`] | how often the serial port may interrupt |
//! | [`patience`] | how long others wait for the end of a line |
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod display;
pub mod keys;
pub mod moderation;
pub mod output;
pub mod patience;
pub mod terminal;
