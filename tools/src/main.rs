//! `ferrite`: the host side of the project. Builds the system, packs it with its guests into a
//! bootable image, starts that on a real or emulated machine, writes it to disks, tests and
//! measures it. The scripts in `scripts/` call it after `scripts/setup` has put in place what it
//! needs.
#![forbid(unsafe_code)]
// They panic when the reader has left; `say` does not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod bundle;
mod cli;
mod compile;
mod expect;
mod files;
mod flash;
mod gdb;
mod guest;
mod image;
mod machine;
mod manifest;
mod program;
mod reference;
mod run;
mod say;
mod start;
mod terminal;
mod test;
mod units;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::workspace::Workspace;

fn main() -> ExitCode {
    terminal::restore_on_panic();
    let arguments = Cli::parse();
    let outcome = Workspace::find().and_then(|workspace| match arguments.command {
        Command::Image(arguments) => image::command(&workspace, &arguments),
        Command::Run(arguments) => run::command(&workspace, &arguments),
        Command::Flash(arguments) => flash::command(&workspace, &arguments),
        Command::Bench(arguments) => bench::command(&workspace, &arguments),
        Command::Test(arguments) => test::command(&workspace, &arguments),
        Command::Reference => reference::command(&workspace),
    });
    match outcome {
        Ok(code) => code,
        Err(report) => {
            say::error(format!("{report:?}"));
            ExitCode::FAILURE
        }
    }
}
