//! Building this program again, with coverage, and becoming it.
//!
//! Only this build is instrumented, so `cargo build` and `cargo test` of the same packages need no
//! special flags and share nothing with it.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A target that is named makes cargo leave build scripts and macros alone, which run in processes
/// without our functions.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The compiler's sanitizer coverage, with which stable compilers come too (LLVM,
/// "SanitizerCoverage").
const FLAGS: [&str; 4] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=3",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// The root of the checkout.
fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Where everything goes that is made here.
pub fn folder() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| root().join("target")).join("fuzz")
}

/// Builds, and goes on as the program that was built, with the same arguments.
///
/// # Errors
/// When that fails; what cargo said is on the terminal.
pub fn become_instrumented() -> io::Error {
    match build() {
        Ok(program) => Command::new(program).args(env::args_os().skip(1)).exec(),
        Err(error) => error,
    }
}

fn build() -> io::Result<PathBuf> {
    let folder = folder();
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let status = Command::new(cargo)
        .current_dir(root())
        .args(["build", "--quiet", "-p", "fuzz", "--profile", "fuzz", "--target", TARGET])
        .arg("--target-dir")
        .arg(&folder)
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"))
        .status()?;
    if !status.success() {
        return Err(io::Error::other("the build with coverage failed"));
    }
    Ok(folder.join(TARGET).join("fuzz/fuzz"))
}
