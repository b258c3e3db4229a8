//! The tests that boot the real image. A test passes only if all its steps come true; a hang is a
//! failure with the end of the console shown.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use miette::{IntoDiagnostic, Result, bail, miette};
use regex::bytes::Regex;

use super::Tally;
use super::table::{self, Step, paste_text};
use crate::compile;
use crate::expect::{Failure, Session};
use crate::gdb::Remote;
use crate::image::{self, Packed};
use crate::machine::{self, Machine, Monitor};
use crate::manifest::Manifest;
use crate::say;
use crate::workspace::Workspace;

/// Lines of the console that a failure shows.
const SHOWN: usize = 40;

/// The packed system of each manifest, or that it could not be packed.
type Images = BTreeMap<PathBuf, Option<Packed>>;

/// Runs the tests, several at a time.
pub fn run(workspace: &Workspace, runs: &[table::Run], jobs: Option<u16>) -> Tally {
    let images = match build(workspace, runs) {
        Ok(images) => images,
        Err(report) => {
            say::error(format!("{report:?}"));
            say::line("system tests ... FAILED: nothing to boot");
            return Tally { passed: 0, failed: runs.len() };
        }
    };
    let jobs =
        jobs.map_or_else(|| thread::available_parallelism().map_or(1, usize::from), usize::from);
    say::step(format!("{} system tests, {} at a time", runs.len(), jobs.min(runs.len())));
    let next = AtomicUsize::new(0);
    let tally = Mutex::new(Tally::default());
    thread::scope(|scope| {
        for _ in 0..jobs.min(runs.len()) {
            scope.spawn(|| {
                while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let passed = run_one(workspace, &images, run);
                    tally.lock().unwrap_or_else(|error| error.into_inner()).count(passed);
                }
            });
        }
    });
    tally.into_inner().unwrap_or_else(|error| error.into_inner())
}

fn build(workspace: &Workspace, runs: &[table::Run]) -> Result<Images> {
    let built = compile::build(workspace)?;
    let mut images = Images::new();
    let mut names = BTreeSet::new();
    for test in runs.iter().map(|run| &run.test) {
        if images.contains_key(&test.manifest) {
            continue;
        }
        let packed = Manifest::read(workspace, &workspace.root.join(&test.manifest))
            .and_then(|manifest| {
                // Images are kept under the names of their systems.
                if !names.insert(manifest.name.clone()) {
                    let path = test.manifest.display();
                    bail!("{path}: another manifest names its system {:?} too", manifest.name);
                }
                image::pack(workspace, &built, &manifest)
            })
            .inspect_err(|report| say::error(format!("{report:?}")));
        images.insert(test.manifest.clone(), packed.ok());
    }
    Ok(images)
}

fn run_one(workspace: &Workspace, images: &Images, run: &table::Run) -> bool {
    let start = Instant::now();
    let folder = workspace.target.join("tests").join(&run.folder);
    let outcome = match images.get(&run.test.manifest).and_then(Option::as_ref) {
        Some(packed) => attempt(workspace, packed, run, &folder),
        None => Err(format!("{} cannot be packed", run.test.manifest.display())),
    };
    let seconds = start.elapsed().as_secs_f64();
    match outcome {
        Ok(()) => {
            say::line(format!("system test {} ... ok ({seconds:.1} s)", run.name));
            true
        }
        Err(why) => {
            // One string, so that tests that run at the same time do not mix their words.
            let folder = workspace.short(&folder);
            say::line(format!(
                "system test {} ... FAILED ({seconds:.1} s)\n{why}\nlogs: {folder}",
                run.name
            ));
            false
        }
    }
}

fn attempt(
    workspace: &Workspace,
    packed: &Packed,
    run: &table::Run,
    folder: &Path,
) -> std::result::Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(run.test.timeout);
    let mut session =
        start(workspace, packed, run, folder).map_err(|report| format!("{report:?}"))?;
    let mut pasted = Vec::new();
    for step in &run.test.steps {
        take_step(&mut session, step, &mut pasted, packed.entry, deadline).map_err(|why| {
            let console = session.transcript.tail(SHOWN);
            let emulator = machine::tail(session.machine().log());
            format!("{why}\n--- console\n{console}\n--- emulator\n{emulator}\n---")
        })?;
    }
    Ok(())
}

fn start(
    workspace: &Workspace,
    packed: &Packed,
    run: &table::Run,
    folder: &Path,
) -> Result<Session> {
    let machine = Machine::start(workspace, &run.specification, packed, folder)?;
    let log = File::create(folder.join("console.log")).into_diagnostic()?;
    Session::new(machine, Some(log), false, run.test.forbid.clone())
}

fn take_step(
    session: &mut Session,
    step: &Step,
    pasted: &mut Vec<u8>,
    entry: u64,
    deadline: Instant,
) -> std::result::Result<(), String> {
    let send = |session: &mut Session, text: &[u8]| {
        session.send(text, deadline).map_err(|report| report.to_string())
    };
    match step {
        Step::Expect(expression) => expect(session, expression, deadline),
        Step::Send(text) => send(session, text.as_bytes()),
        Step::Paste(length) => {
            *pasted = paste_text(*length);
            send(session, pasted)
        }
        Step::Md5 => {
            let sum = md5(pasted).map_err(|report| report.to_string())?;
            let expression = Regex::new(&sum).map_err(|error| error.to_string())?;
            expect(session, &expression, deadline)
        }
        Step::Nmi(count) => (0..*count)
            .try_for_each(|_| session.machine().monitor()?.nmi())
            .map_err(|report| report.to_string()),
        Step::MachineCheck => session
            .machine()
            .monitor()
            .and_then(Monitor::machine_check)
            .map_err(|report| report.to_string()),
        Step::BreakAtEntry => {
            break_at(session, entry, deadline).map_err(|report| report.to_string())
        }
        Step::End => session
            .expect_end(deadline)
            .map_err(|failure| explain(&failure, "the machine to stop by itself")),
    }
}

fn break_at(session: &Session, address: u64, deadline: Instant) -> Result<()> {
    let mut gdb = Remote::connect(session.machine().gdb()?, deadline)?;
    gdb.run_to(address)?;
    gdb.detach()
}

fn expect(
    session: &mut Session,
    expression: &Regex,
    deadline: Instant,
) -> std::result::Result<(), String> {
    match session.expect(expression, deadline) {
        Ok(_) => Ok(()),
        Err(failure) => Err(explain(&failure, &format!("{:?}", expression.as_str()))),
    }
}

fn explain(failure: &Failure, awaited: &str) -> String {
    match failure {
        Failure::Timeout => format!("time is up, still waiting for {awaited}"),
        Failure::Ended => format!("the machine stopped before {awaited}"),
        Failure::Forbidden(text) => format!("{text:?} appeared while waiting for {awaited}"),
    }
}

/// The MD5 sum as md5sum prints it.
fn md5(bytes: &[u8]) -> Result<String> {
    let mut child = Command::new("md5sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .into_diagnostic()?;
    child.stdin.take().ok_or_else(|| miette!("no pipe"))?.write_all(bytes).into_diagnostic()?;
    let output = child.wait_with_output().into_diagnostic()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace().next().map(str::to_owned).ok_or_else(|| miette!("md5sum said nothing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_the_one_that_guests_print() {
        // RFC 1321, A.5.
        assert_eq!(md5(b"abc").unwrap(), "900150983cd24fb0d6963f7d28e17f72");
    }
}
