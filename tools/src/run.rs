//! `scripts/run`: the system on a machine, and the user at its console.

use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{self, Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use miette::{IntoDiagnostic, Result, WrapErr, bail};
use regex::bytes::Regex;

use crate::cli::RunArguments;
use crate::compile::{self, Built};
use crate::expect::{Failure, Session, read_in_background};
use crate::files;
use crate::gdb;
use crate::image;
use crate::machine::{self, Machine, Pace, Specification};
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
    let choice = machine::choose(arguments.machine.platform, &wish(arguments)?, workspace)?;
    let specification = choice.specification;
    let built = compile::build(workspace)?;
    let packed = image::pack(workspace, &built, &manifest)?;

    let folder = run_folder(workspace, &manifest.name)?;
    say::step(format!("starting {} ({})", specification.summary(), choice.reason));
    let machine = Machine::start(workspace, &specification, &packed, &folder)?;
    let emulator_log = machine.log().to_path_buf();
    let console = arguments.log.clone().unwrap_or_else(|| folder.join("console.log"));
    say::step(format!(
        "console log {}, emulator log {}",
        workspace.short(&console),
        workspace.short(&emulator_log)
    ));
    if arguments.gdb {
        offer_gdb(&machine, &built, packed.entry, &folder)?;
    }
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

/// The machine that the arguments ask for; its platform is still to be chosen.
fn wish(arguments: &RunArguments) -> Result<Specification> {
    let pace = if arguments.until.is_some() { Pace::Fast } else { Pace::Wall };
    let screenshot = match &arguments.screenshot {
        // The emulator works in another folder.
        Some(file) => Some(clear_the_way(&path::absolute(file).into_diagnostic()?)?),
        None => None,
    };
    let gdb = arguments.gdb;
    Ok(Specification { gdb, screenshot, ..arguments.machine.specification(pace) })
}

/// Finds out whether a file can be written before the work begins, and leaves none.
fn clear_the_way(file: &Path) -> Result<PathBuf> {
    File::create(file)
        .and_then(|_| fs::remove_file(file))
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot write {}", file.display()))?;
    Ok(file.to_path_buf())
}

/// Writes the commands for gdb, and tells how to use them.
fn offer_gdb(machine: &Machine, built: &Built, entry: u64, folder: &Path) -> Result<()> {
    let symbols = gdb::Symbols {
        hypervisor: &built.with_symbols("hypervisor"),
        entry,
        loader: &built.with_symbols("boot"),
    };
    let commands = folder.join("commands.gdb");
    files::write(&commands, gdb::script(symbols, machine.gdb()?))?;
    let here = env::current_dir().unwrap_or_default();
    let commands = commands.strip_prefix(here).unwrap_or(&commands);
    say::step("the machine waits for gdb; in another terminal, type");
    say::error(format!("    gdb -x {}", commands.display()));
    Ok(())
}

/// Takes the picture of the screen, if one is wanted, and says so.
fn take_screenshot(machine: &mut Machine) -> Result<()> {
    if let Some(file) = machine.take_screenshot()? {
        say::step(format!("the screen is in {}", file.display()));
    }
    Ok(())
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
    say::error("");
    take_screenshot(session.machine_mut())?;
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
    /// Whether it has said nothing yet.
    silent: bool,
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
        Ok(Self { machine, log, events, start, silent: true, deadline })
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
                    self.silent = false;
                    self.start.see(&bytes);
                    let mut output = io::stdout().lock();
                    if output.write_all(&bytes).and_then(|()| output.flush()).is_err() {
                        // Nobody reads, so there is nobody to tell.
                        break (None, say::NOBODY_READS.into());
                    }
                    // A full disk must not end the session.
                    let _ = self.log.write_all(&bytes);
                }
                Ok(Event::Ended) if self.silent => {
                    let said = machine::tail(self.machine.log());
                    bail!(help = said, "the machine ended before it said anything");
                }
                Ok(Event::Ended) => break (Some("the machine has stopped"), ExitCode::SUCCESS),
                Ok(Event::Quit) => break (Some("stopping the machine"), ExitCode::SUCCESS),
                Err(_) => break (Some("time is up"), ExitCode::FAILURE),
            }
        };
        drop(raw);
        if let Some(text) = text {
            // The console may have left the cursor anywhere.
            say::error("");
            say::step(text);
        }
        let picture = take_screenshot(&mut self.machine);
        self.machine.stop();
        picture.map(|()| code)
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
