//! The command line.

use std::path::PathBuf;

use crate::targets::{self, Target};
use crate::worker::Effort;

/// What `--help` prints.
pub const HELP: &str = "\
Fuzzes everything that reads bytes from outside, guided by coverage.

usage: cargo run -p fuzz -- [OPTION...] [TARGET...]

Without a target, all of them, and programs with known bugs that have to be found.

  --seconds N     how long each target runs (default 5)
  --runs N        how many inputs each target tries instead, for runs that are all alike
  --seed N        another sequence of inputs (default 1)
  --save          replace the stored corpus by the smallest that reaches as much
  --input FILE    try this one input on the target, and nothing else
  --list          name the targets
  --help          print this

A panic, an overflow, more than 64 MiB of memory and more than a second of CPU time for one input
are failures. Their inputs are kept in target/fuzz/failures.
";

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Print the help.
    Help,
    /// Name the targets.
    List,
    /// Start processes that try inputs.
    Fuzz,
    /// Try one input.
    Reproduce,
    /// Be such a process.
    Worker,
}

/// The arguments.
#[derive(Debug)]
pub struct Arguments {
    /// What to do.
    pub command: Command,
    /// The targets that are named; none stands for all.
    pub targets: Vec<&'static Target>,
    /// How long.
    pub effort: Effort,
    /// Whether the corpus is replaced.
    pub save: bool,
    /// The one input.
    pub input: Option<PathBuf>,
}

impl Arguments {
    /// Reads the command line without the program's name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let effort = Effort { seconds: 5, runs: None, seed: 1 };
        let (command, targets) = (Command::Fuzz, Vec::new());
        let mut this = Self { command, targets, effort, save: false, input: None };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            let number = |text: String| text.parse().map_err(|_| format!("{text:?} is no number"));
            match argument.as_str() {
                "--help" | "-h" => this.command = Command::Help,
                "--list" => this.command = Command::List,
                "--worker" => this.command = Command::Worker,
                "--seconds" => this.effort.seconds = number(value()?)?,
                "--runs" => this.effort.runs = Some(number(value()?)?),
                "--seed" => this.effort.seed = number(value()?)?,
                "--save" => this.save = true,
                "--input" => this.input = Some(value()?.into()),
                name => {
                    let target = targets::find(name);
                    this.targets.push(target.ok_or(format!("there is no target {name:?}"))?);
                }
            }
        }
        if this.input.is_some() && this.command == Command::Fuzz {
            this.command = Command::Reproduce;
            if this.targets.len() != 1 {
                return Err("--input needs exactly one target".to_owned());
            }
        }
        Ok(this)
    }

    /// What a process gets to know. A known bug is looked for until it must have been found.
    pub fn for_worker(&self, has_bug: bool) -> Vec<String> {
        let Effort { seconds, runs, seed } = self.effort;
        let seconds = if has_bug { 30 } else { seconds };
        let mut arguments = vec![format!("--seconds={seconds}"), format!("--seed={seed}")];
        arguments.extend(runs.filter(|_| !has_bug).map(|runs| format!("--runs={runs}")));
        arguments.extend(self.save.then(|| "--save".to_owned()));
        arguments
            .into_iter()
            .flat_map(|a| a.split('=').map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_and_targets() {
        let arguments = parse("--seconds 3 bundle --seed 9 utcb").unwrap();
        assert_eq!(arguments.command, Command::Fuzz);
        assert_eq!(arguments.targets.len(), 2);
        assert_eq!(arguments.for_worker(false), ["--seconds", "3", "--seed", "9"]);
        assert_eq!(arguments.for_worker(true), ["--seconds", "30", "--seed", "9"]);
        assert_eq!(parse("bundle --input x").unwrap().command, Command::Reproduce);
    }

    #[test]
    fn mistakes_are_named() {
        for (line, text) in [
            ("--seconds", "needs a value"),
            ("--runs many", "no number"),
            ("bundel", "no target \"bundel\""),
            ("--input x", "exactly one target"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(text), "{error}");
        }
    }
}
