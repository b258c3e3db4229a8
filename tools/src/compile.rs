//! Building what runs on the bare machine.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use miette::{IntoDiagnostic, Result, WrapErr, bail, miette};

use crate::files;
use crate::say;
use crate::workspace::Workspace;

/// The packages that run on the bare machine.
pub const PACKAGES: [&str; 8] =
    ["boot", "hypervisor", "root-task", "console", "vmm", "examples", "system-tests", "bench"];

/// Their target.
const TARGET: &str = "x86_64-unknown-none";

/// A cargo command for the bare-metal packages: `cargo VERB --target ... -p ...`.
pub fn bare_metal_cargo(workspace: &Workspace, verb: &str) -> Command {
    let mut cargo = cargo(workspace);
    cargo.args([verb, "--release", "--target", TARGET]);
    if env::var("FERRITE_TOOLCHAIN_CHOSEN").as_deref() == Ok("debian") {
        // Debian has the library's source, not its build for this target. Building it takes
        // unstable options of a stable compiler.
        cargo.env("RUSTC_BOOTSTRAP", "1");
        cargo.arg("-Zbuild-std=core,alloc,compiler_builtins");
        cargo.arg("-Zbuild-std-features=compiler-builtins-mem");
    }
    cargo.args(PACKAGES.iter().flat_map(|package| ["-p", package]));
    cargo
}

/// A cargo command in the checkout.
pub fn cargo(workspace: &Workspace) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    cargo.current_dir(&workspace.root).env("CARGO_TARGET_DIR", &workspace.target);
    cargo
}

/// The finished ELF files.
#[derive(Debug, Clone)]
pub struct Built {
    folder: PathBuf,
    stripped: PathBuf,
}

/// Builds all bare-metal packages; cargo shows its own progress.
///
/// # Errors
/// When cargo fails; what it said is on the terminal.
pub fn build(workspace: &Workspace) -> Result<Built> {
    say::step("building the kernel and its tasks");
    let status = bare_metal_cargo(workspace, "build")
        .status()
        .into_diagnostic()
        .wrap_err("cannot start cargo")?;
    if !status.success() {
        bail!("the build failed");
    }
    let folder = workspace.target.join(TARGET).join("release");
    let stripped = workspace.target.join("images/stripped");
    files::make_folder(&stripped)?;
    Ok(Built { folder, stripped })
}

impl Built {
    /// A program with its debug information, under its cargo name.
    pub fn with_symbols(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Whether the build made a program of this name.
    pub fn has(&self, name: &str) -> bool {
        let sound = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        sound && self.with_symbols(name).is_file()
    }

    /// An ELF file without symbols and debug information: a tenth of the size.
    ///
    /// # Errors
    /// When there is no such program, or it cannot be stripped.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        let from = self.with_symbols(name);
        if !from.is_file() {
            return Err(miette!("the build made no program named {name:?}"));
        }
        let to = self.stripped.join(name);
        let status = Command::new("strip")
            .args(["--strip-all", "-o"])
            .args([&to, &from])
            .status()
            .into_diagnostic()
            .wrap_err("cannot start strip (of binutils)")?;
        if !status.success() {
            bail!("{} cannot be stripped", from.display());
        }
        Ok(to)
    }
}
