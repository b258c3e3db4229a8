//! Fuzzing of everything that reads bytes from outside, guided by coverage.
//!
//! `cargo run -p fuzz -- --help` says how it is used. The program builds itself a second time, with
//! coverage, and goes on as that. Each target runs in a process of its own: what it breaks is only
//! itself. Modules with `unsafe` say why they need it.
//!
//! | module | what it does |
//! |---|---|
//! | [`targets`] | what is fuzzed |
//! | [`instrument`] | builds this program with coverage |
//! | [`supervisor`] | starts the processes and judges how they ended |
//! | [`worker`] | tries inputs |
//! | [`mutate`], [`random`] | make new inputs out of old ones |
//! | [`coverage`], [`compares`] | what a run did |
//! | [`allocation`] | how much memory it may use |
//! | [`corpus`] | the inputs that are kept in the repository |
//! | [`input`] | takes inputs apart, and builds them |

mod allocation;
mod arguments;
mod compares;
mod corpus;
mod coverage;
mod input;
mod instrument;
mod mutate;
mod random;
mod supervisor;
mod targets;
mod worker;

use std::fs;
use std::io;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use arguments::{Arguments, Command};
use supervisor::Verdict;
use targets::{PLANTED, TARGETS, Target};
use worker::Scratch;

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(text) => {
            eprintln!("fuzz: {text} (try --help)");
            return ExitCode::from(2);
        }
    };
    match arguments.command {
        Command::Help => print!("{}", arguments::HELP),
        Command::List => TARGETS.iter().for_each(|target| println!("{}", target.name)),
        _ if coverage::edges() == 0 => {
            eprintln!("fuzz: {}", instrument::become_instrumented());
            return ExitCode::FAILURE;
        }
        Command::Worker => return work(&arguments).unwrap_or_else(complain),
        Command::Reproduce => return reproduce(&arguments).unwrap_or_else(complain),
        Command::Fuzz => return fuzz(&arguments),
    }
    ExitCode::SUCCESS
}

fn complain(error: io::Error) -> ExitCode {
    eprintln!("fuzz: {error}");
    ExitCode::FAILURE
}

/// The process of one target.
fn work(arguments: &Arguments) -> io::Result<ExitCode> {
    let [target] = arguments.targets.as_slice() else { return Ok(ExitCode::from(2)) };
    let scratch = Scratch::create(&worker::scratch_path(&instrument::folder(), target))?;
    let Some(path) = &arguments.input else {
        return Ok(worker::campaign(target, arguments.effort, scratch, arguments.save));
    };
    worker::once(target, scratch, &fs::read(path)?);
    Ok(ExitCode::SUCCESS)
}

/// One input again, with all that a panic has to say.
fn reproduce(arguments: &Arguments) -> io::Result<ExitCode> {
    let ([target], Some(path)) = (arguments.targets.as_slice(), &arguments.input) else {
        return Ok(ExitCode::from(2));
    };
    let path = fs::canonicalize(path)?.display().to_string();
    match supervisor::run(target, &["--input".to_owned(), path], &instrument::folder())? {
        Verdict::Passed(_) => {
            println!("fuzz {} ... ok, this input finds nothing", target.name);
            Ok(ExitCode::SUCCESS)
        }
        Verdict::Found { what, .. } => {
            println!("fuzz {} ... FAILED\n{what}", target.name);
            Ok(ExitCode::FAILURE)
        }
    }
}

/// All chosen targets, as many at a time as there are processors.
fn fuzz(arguments: &Arguments) -> ExitCode {
    let begin = Instant::now();
    supervisor::fix_addresses();
    let all = arguments.targets.is_empty();
    let known_bugs = if all { PLANTED } else { &[] };
    let chosen: Vec<Target> =
        if all { TARGETS.to_vec() } else { arguments.targets.iter().map(|t| **t).collect() };
    let queue =
        Mutex::new(known_bugs.iter().map(|t| (t, true)).chain(chosen.iter().map(|t| (t, false))));
    let results = Mutex::new(Vec::new());
    let next = || queue.lock().ok()?.next();
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some((target, has_bug)) = next() {
                    let passed = judge(target, has_bug, arguments);
                    if let Ok(mut results) = results.lock() {
                        results.push(passed);
                    }
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_default();
    let passed = results.iter().filter(|passed| **passed).count();
    let failed = known_bugs.len() + chosen.len() - passed;
    let word = if failed == 0 { "ok" } else { "FAILED" };
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "test result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; \
         0 filtered out; finished in {seconds:.2}s"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a target and prints what came of it. Whether that is what should come of it: of a target
/// with a known bug, that the bug is found.
fn judge(target: &Target, has_bug: bool, arguments: &Arguments) -> bool {
    let name = target.name;
    match supervisor::run(target, &arguments.for_worker(has_bug), &instrument::folder()) {
        Ok(Verdict::Passed(text)) if has_bug => {
            println!("fuzz {name} ... FAILED: its bug was not found ({text})");
            false
        }
        Ok(Verdict::Passed(text)) => {
            println!("fuzz {name} ... ok ({text})");
            true
        }
        Ok(Verdict::Found { .. }) if has_bug => {
            println!("fuzz {name} ... ok (its bug was found)");
            true
        }
        Ok(Verdict::Found { what, input }) => {
            let input = input.display();
            println!(
                "fuzz {name} ... FAILED\n{what}\nagain: cargo run -p fuzz -- {name} --input {input}"
            );
            false
        }
        Err(error) => {
            println!("fuzz {name} ... FAILED: {error}");
            false
        }
    }
}
