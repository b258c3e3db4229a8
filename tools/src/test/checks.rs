//! What is checked without running anything: form, lints, and the promise that ring 0 is small.

use std::fs;
use std::path::Path;
use std::process::Command;

use miette::{IntoDiagnostic, Result, bail};

use super::panics;
use crate::compile;
use crate::say;
use crate::workspace::Workspace;

/// Lines of code that the kernel may have, without tests, comments and blank lines.
const KERNEL_LINES: usize = 10_000;
/// Bytes of instructions that the kernel may have.
const KERNEL_TEXT: u64 = 128 << 10;

type Action = Box<dyn Fn() -> Result<()>>;

/// One check.
pub struct Check {
    /// What it is called.
    pub name: &'static str,
    action: Action,
}

/// All checks, cheap ones first.
pub fn all(workspace: &Workspace) -> Vec<Check> {
    let cargo = |arguments: &'static [&'static str]| {
        let workspace = workspace.clone();
        let run = move || {
            let mut cargo = compile::cargo(&workspace);
            cargo.args(arguments);
            succeed(cargo)
        };
        Box::new(run) as Action
    };
    let for_bare_metal = workspace.clone();
    let for_size = workspace.clone();
    let for_panics = workspace.clone();
    vec![
        Check { name: "format", action: cargo(&["fmt", "--all", "--check"]) },
        Check {
            name: "clippy-host",
            action: cargo(&["clippy", "-q", "--all-targets", "--", "-D", "warnings"]),
        },
        Check {
            name: "clippy-bare-metal",
            action: Box::new(move || {
                let mut cargo = compile::bare_metal_cargo(&for_bare_metal, "clippy");
                cargo.args(["-q", "--", "-D", "warnings"]);
                succeed(cargo)
            }),
        },
        Check { name: "kernel-size", action: Box::new(move || kernel_size(&for_size)) },
        Check {
            name: "kernel-panics",
            action: Box::new(move || {
                let built = compile::build(&for_panics)?;
                panics::check(&built.with_symbols("hypervisor"))
            }),
        },
    ]
}

impl Check {
    /// Whether it holds; why not is on the terminal.
    pub fn run(&self) -> bool {
        say::step(format!("check {}", self.name));
        let outcome = (self.action)();
        if let Err(report) = &outcome {
            say::error(format!("{report:?}"));
        }
        let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
        say::line(format!("check {} ... {verdict}", self.name));
        outcome.is_ok()
    }
}

fn succeed(mut command: Command) -> Result<()> {
    let status = command.status().into_diagnostic()?;
    if !status.success() {
        bail!("{command:?} failed");
    }
    Ok(())
}

fn kernel_size(workspace: &Workspace) -> Result<()> {
    let mut lines = 0;
    count_folder(&workspace.root.join("hypervisor"), &mut lines)?;
    let built = compile::build(workspace)?;
    let text = text_bytes(&built.with_symbols("hypervisor"))?;
    say::line(format!("kernel: {lines} lines of code, {text} bytes of text"));
    if lines > KERNEL_LINES || text > KERNEL_TEXT {
        bail!("the kernel may have {KERNEL_LINES} lines of code and {KERNEL_TEXT} bytes of text");
    }
    Ok(())
}

fn count_folder(folder: &Path, lines: &mut usize) -> Result<()> {
    for entry in fs::read_dir(folder).into_diagnostic()? {
        let path = entry.into_diagnostic()?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "tests" {
                count_folder(&path, lines)?;
            }
        } else if name.ends_with(".rs") && name != "tests.rs" {
            *lines += code_lines(&fs::read_to_string(&path).into_diagnostic()?);
        }
    }
    Ok(())
}

/// Lines that are neither blank nor comment, up to the tests that end a file.
fn code_lines(text: &str) -> usize {
    // Elsewhere, the attribute is on one item of something else.
    let code = text.split_once("\n#[cfg(test)]\nmod tests").map_or(text, |(code, _)| code);
    code.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}

/// The size of the instructions: what `size` of binutils calls text, without read-only data.
fn text_bytes(elf: &Path) -> Result<u64> {
    let output = Command::new("size").args(["-A", "-d"]).arg(elf).output().into_diagnostic()?;
    let sections = String::from_utf8_lossy(&output.stdout).into_owned();
    match sum_of_text(&sections) {
        0 => bail!("{} has no .text section", elf.display()),
        bytes => Ok(bytes),
    }
}

fn sum_of_text(sections: &str) -> u64 {
    sections
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words.first().is_some_and(|name| name.starts_with(".text")))
        .filter_map(|words| words.get(1)?.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_counts() {
        let text = "//! Title\n\n#[cfg(test)]\nuse a;\n    // why\nfn f() {\n}\n#[cfg(test)]\nmod tests {\n}\n";
        assert_eq!(code_lines(text), 4);
    }

    #[test]
    fn text_is_summed_over_its_sections() {
        let sections = "x  :\nsection size addr\n.text 100 0\n.text.entry 20 0\n.rodata 7 0\n";
        assert_eq!(sum_of_text(sections), 120);
    }
}
