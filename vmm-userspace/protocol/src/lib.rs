//! What unprivileged tasks share with each other: memory layouts and how to use them.
//!
//! | module | what it fixes |
//! |---|---|
//! | [`startup`] | the page that the root task hands to every task it starts |
//! | [`outcome`] | how a task says that it has ended, and why |
//! | [`mutex`] | mutual exclusion between the threads of a task |
//! | [`ring`] | a stream of bytes from one task to another |
//! | [`console`] | the streams between a task and the console service |
//!
//! Nothing in here trusts the other side of a shared page: positions are masked, lengths are
//! bounded, and the worst that a hostile peer can do is to garble its own stream.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod console;
pub mod mutex;
pub mod outcome;
pub mod ring;
pub mod startup;

#[cfg(test)]
mod interleaving;
