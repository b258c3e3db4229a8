//! `scripts/run`: the system on a machine, and the user at its console.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use miette::{IntoDiagnostic, Result, WrapErr};
use regex::bytes::Regex;

use crate::cli::RunArguments;
use crate::compile;
use crate::expect::{Failure, Session, read_in_background};
use crate::files;
use crate::image;
use crate::machine::{Machine, Pace, Specification};
use crate::manifest::Manifest;
use crate::say;
use crate::start::{Gate, Start};
use crate::terminal::{self, EscapeKeys, Keys, Raw};
use crate::workspace::Workspace;

/// `scripts/run`.
///
/// # Errors
/// Whatever keeps the machine from starting.
pub fn command(workspace: &Workspace, arguments: &RunArguments) -> Result<ExitCode> {
    let path = arguments.manifest.clone().unwrap_or_else(|| workspace.default_manifest());
    let manifest = Manifest::read(workspace, &path)?;
    let pace = if arguments.until.is_some() { Pace::Fast } else { Pace::Wall };
    let (specification, reason) = Specification::choose(&arguments.machine, pace)?;
    let built = compile::build(workspace)?;
    let packed = image::pack(workspace, &built, &manifest)?;

    let folder = run_folder(workspace, &manifest.name)?;
    say::step(format!("starting {} ({reason})", specification.summary()));
    let machine = Machine::start(workspace, &specification, &packed, &folder)?;
    let emulator_log = machine.log().to_path_buf();
    let console = arguments.log.clone().unwrap_or_else(|| folder.join("console.log"));
    say::step(format!(
        "console log {}, emulator log {}",
        workspace.short(&console),
        workspace.short(&emulator_log)
    ));
    let log = File::create(&console)
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot write {}", console.display()))?;
    let code = match &arguments.until {
        Some(expression) => until(machine, log, expression, arguments.timeout),
        None => Console::new(machine, log, arguments.timeout)?.attend(),
    };
    if let Some(log) = &arguments.log {
        let mut name = log.as_os_str().to_owned();
        name.push(".machine");
        files::copy(&emulator_log, &PathBuf::from(name))?;
    }
    code
}

/// A folder for the files of this run. The folders of earlier runs go, when their process has.
fn run_folder(workspace: &Workspace, name: &str) -> Result<PathBuf> {
    let runs = workspace.target.join("runs");
    files::make_folder(&runs)?;
    for entry in fs::read_dir(&runs).into_diagnostic()?.flatten() {
        let file_name = entry.file_name();
        let process = file_name.to_string_lossy().rsplit('.').next().map(str::to_owned);
        let running = process.is_some_and(|id| PathBuf::from("/proc").join(id).exists());
        if !running {
            // Somebody else may be removing it too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(runs.join(format!("{name}.{}", std::process::id())))
}

/// Success as soon as the console matches.
fn until(
    machine: Machine,
    log: File,
    expression: &Regex,
    timeout: Option<Duration>,
) -> Result<ExitCode> {
    let mut serial = machine.serial()?;
    let mut session = Session::new(machine, Some(log), true, None)?;
    if !terminal::is_interactive() {
        let gate = session.gate();
        thread::spawn(move || {
            gate.wait();
            // Ends with the input or the machine; both are no error.
            let _ = io::copy(&mut io::stdin(), &mut serial);
        });
    }
    let deadline = Instant::now() + timeout.unwrap_or(Duration::from_secs(u32::MAX.into()));
    let outcome = session.expect(expression, deadline);
    // The console may have left the cursor anywhere.
    eprintln!();
    match outcome {
        Ok(_) => {
            say::step(format!("found {:?}", expression.as_str()));
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => {
            say::step(match failure {
                Failure::Timeout => format!("{:?} did not appear in time", expression.as_str()),
                Failure::Ended | Failure::Forbidden(_) => {
                    format!("the machine stopped before {:?} appeared", expression.as_str())
                }
            });
            Ok(ExitCode::FAILURE)
        }
    }
}

/// What can happen while a user sits at the console.
enum Event {
    /// The machine said something.
    Output(Vec<u8>),
    /// The machine stopped.
    Ended,
    /// The user wants to leave.
    Quit,
}

/// A user at the console of a machine.
struct Console {
    machine: Machine,
    log: File,
    events: Receiver<Event>,
    start: Start,
    deadline: Option<Instant>,
}

impl Console {
    fn new(machine: Machine, log: File, timeout: Option<Duration>) -> Result<Self> {
        let (sender, events) = channel();
        let output = read_in_background(machine.serial()?);
        forward(output, sender.clone());
        let (start, gate) = Start::new();
        let gate = (!terminal::is_interactive()).then_some(gate);
        read_keys(machine.serial()?, sender, gate);
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        Ok(Self { machine, log, events, start, deadline })
    }

    /// Until the machine stops or somebody wants to leave.
    fn attend(mut self) -> Result<ExitCode> {
        let raw = if terminal::is_interactive() {
            say::step("the terminal is the console now; to quit: Ctrl-A, then X");
            Some(Raw::enter().into_diagnostic().wrap_err("the terminal cannot be made raw")?)
        } else {
            None
        };
        let (text, code) = loop {
            match self.next() {
                Ok(Event::Output(bytes)) => {
                    self.start.see(&bytes);
                    let mut output = io::stdout().lock();
                    if output.write_all(&bytes).and_then(|()| output.flush()).is_err() {
                        break ("nobody reads the console any more".to_owned(), ExitCode::FAILURE);
                    }
                    // A full disk must not end the session.
                    let _ = self.log.write_all(&bytes);
                }
                Ok(Event::Ended) => {
                    break ("the machine has stopped".to_owned(), ExitCode::SUCCESS);
                }
                Ok(Event::Quit) => break ("stopping the machine".to_owned(), ExitCode::SUCCESS),
                Err(_) => break ("time is up".to_owned(), ExitCode::FAILURE),
            }
        };
        self.machine.stop();
        drop(raw);
        // The console may have left the cursor anywhere.
        eprintln!();
        say::step(text);
        Ok(code)
    }

    fn next(&self) -> std::result::Result<Event, RecvTimeoutError> {
        match self.deadline {
            Some(deadline) => {
                self.events.recv_timeout(deadline.saturating_duration_since(Instant::now()))
            }
            None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }
}

fn forward(output: Receiver<Vec<u8>>, events: Sender<Event>) {
    thread::spawn(move || {
        for bytes in output {
            if events.send(Event::Output(bytes)).is_err() {
                return;
            }
        }
        let _ = events.send(Event::Ended);
    });
}

/// Takes what is typed or piped in to the serial port. Piped input waits at the gate, and its end is no reason to leave: the
/// guest may still have something to say.
fn read_keys(mut serial: impl Write + Send + 'static, events: Sender<Event>, gate: Option<Gate>) {
    let input = read_in_background(io::stdin());
    thread::spawn(move || {
        let interactive = gate.is_none();
        if let Some(gate) = gate {
            gate.wait();
        }
        let mut escape = EscapeKeys::default();
        for bytes in input {
            let keys = if interactive { escape.read(&bytes) } else { Keys::Type(bytes) };
            match keys {
                Keys::Type(typed) if serial.write_all(&typed).is_ok() => {}
                Keys::Type(_) => return,
                Keys::Quit => {
                    // An error means that the session is over already.
                    let _ = events.send(Event::Quit);
                    return;
                }
            }
        }
    });
}
