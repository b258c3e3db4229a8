//! Text on the machine's screen, for the loader, the kernel and the console service.
//!
//! | module | what it does |
//! |---|---|
//! | [`font`] | the shapes of characters |
//! | [`cells`] | a screen as a grid of characters, whether it shows text or pixels |
//! | [`printer`] | messages on it, line after line |
//!
//! A screen is handed over as it is: whoever takes it reads what the last one wrote.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod cells;
pub mod font;
pub mod printer;

pub use cells::{Layout, Screen, TEXT_ADDRESS};
pub use printer::Printer;
