//! `scripts/test`: checks, host tests, system tests, and one line with the sum of it all.

mod checks;
mod host;
mod panics;
mod place;
mod system;
mod table;

use std::process::ExitCode;

use miette::Result;

use crate::cli::TestArguments;
use crate::say;
use crate::workspace::Workspace;

/// How many passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Good.
    pub passed: usize,
    /// Not good, or did not run.
    pub failed: usize,
}

impl Tally {
    /// Counts one.
    pub fn count(&mut self, passed: bool) {
        if passed {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// `scripts/test`.
///
/// # Errors
/// Only for what keeps tests from being found; a test that fails is counted.
pub fn command(workspace: &Workspace, arguments: &TestArguments) -> Result<ExitCode> {
    let wanted = |name: &str| arguments.filter.as_ref().is_none_or(|f| name.contains(f.as_str()));
    let checks: Vec<_> = checks::all(workspace).into_iter().filter(|c| wanted(c.name)).collect();
    let host = wanted(host::NAME);
    let tests = table::read(workspace)?.into_iter().filter(|t| wanted(&t.name)).collect::<Vec<_>>();
    if arguments.list {
        for check in &checks {
            say::line(check.name);
        }
        if host {
            say::line(host::NAME);
        }
        for test in &tests {
            say::line(&test.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut tally = Tally::default();
    for check in checks {
        tally.count(check.run());
    }
    if host {
        tally.add(host::run(workspace));
    }
    if !tests.is_empty() {
        tally.add(system::run(workspace, &tests, arguments.jobs));
    }
    // A filter that matches nothing is a mistake, not a success.
    if tally == Tally::default() {
        say::step("there is no such test; --list names them all");
    }
    say::line(format!("{} passed, {} failed", tally.passed, tally.failed));
    let good = tally.failed == 0 && tally.passed > 0;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
