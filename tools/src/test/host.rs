//! The tests that run on the host, under cargo.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use miette::{IntoDiagnostic, Result, miette};

use super::Tally;
use crate::compile;
use crate::say;
use crate::workspace::Workspace;

/// What filters call them.
pub const NAME: &str = "host-tests";

/// Where property tests start to look, unless the environment says otherwise: what passes here passes everywhere.
const SEED: (&str, &str) = ("PROPTEST_RNG_SEED", "1");

/// Packages whose default binary cannot be linked for the host, but whose library is tested there.
const LIBRARIES: [&str; 4] = ["boot", "console", "root-task", "runtime"];

/// Runs them all; each counts.
pub fn run(workspace: &Workspace) -> Tally {
    let mut tally = Tally::default();
    tally.add(run_cargo(workspace, &[]));
    for package in LIBRARIES {
        tally.add(run_cargo(workspace, &["-p", package, "--lib"]));
    }
    tally
}

fn run_cargo(workspace: &Workspace, arguments: &[&str]) -> Tally {
    say::step(format!("cargo test {}", arguments.join(" ")));
    match stream(workspace, arguments) {
        Ok((tally, true)) if tally.failed == 0 => tally,
        Ok((mut tally, _)) => {
            // A package that does not compile, or a test that took the whole process with it, has
            // no line of its own.
            tally.failed = tally.failed.max(1);
            tally
        }
        Err(report) => {
            say::error(format!("{report:?}"));
            Tally { passed: 0, failed: 1 }
        }
    }
}

fn stream(workspace: &Workspace, arguments: &[&str]) -> Result<(Tally, bool)> {
    let seed = std::env::var(SEED.0).unwrap_or_else(|_| SEED.1.to_owned());
    let mut child = compile::cargo(workspace)
        .args(["test", "-q", "--no-fail-fast"])
        .args(arguments)
        .env(SEED.0, seed)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .into_diagnostic()?;
    let output = child.stdout.take().ok_or_else(|| miette!("cargo has no output"))?;
    let mut tally = Tally::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.into_diagnostic()?;
        let line = String::from_utf8_lossy(&line);
        say::line(&line);
        if let Some(result) = parse(&line) {
            tally.add(result);
        }
    }
    Ok((tally, child.wait().into_diagnostic()?.success()))
}

/// The numbers of a line such as `test result: ok. 5 passed; 0 failed; 1 ignored; ...`.
fn parse(line: &str) -> Option<Tally> {
    let (_, numbers) = line.trim().strip_prefix("test result: ")?.split_once(". ")?;
    let number = |what: &str| {
        let entry = numbers.split("; ").find(|entry| entry.ends_with(what))?;
        entry.split(' ').next()?.parse().ok()
    };
    Some(Tally { passed: number(" passed")?, failed: number(" failed")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_counted() {
        let line = "test result: FAILED. 5 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; \
                    finished in 0.10s";
        assert_eq!(parse(line), Some(Tally { passed: 5, failed: 2 }));
        let line = "test result: ok. 17 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(parse(line), Some(Tally { passed: 17, failed: 0 }));
        assert_eq!(parse("test a::result: ok"), None);
        assert_eq!(parse("test result: odd"), None);
    }
}
