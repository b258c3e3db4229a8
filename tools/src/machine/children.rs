//! Emulators never outlive this process: not its end, not a signal to it, not its being killed.

use std::io;
use std::path::PathBuf;
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use super::log;
use crate::terminal;

/// The processes that a signal to us must end.
static RUNNING: Mutex<Vec<u32>> = Mutex::new(Vec::new());
static WATCH: Once = Once::new();

fn running() -> MutexGuard<'static, Vec<u32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child process that is bound to this value.
#[derive(Debug)]
pub struct Bound {
    child: Child,
    log: Option<JoinHandle<()>>,
}

impl Bound {
    /// Starts it, with nothing to read, and with what it says going to a log. The thread that
    /// starts it must live as long as the child shall.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &Command, log: PathBuf) -> io::Result<Self> {
        WATCH.call_once(watch_signals);
        let (reader, writer) = io::pipe()?;
        let log = log::keep(reader, log)?;
        // Held while the child starts, so that no signal comes between start and entry.
        let mut running = running();
        let child = dies_with_us(command)
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .spawn()?;
        running.push(child.id());
        Ok(Self { child, log: Some(log) })
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Ends it; its log is complete then.
    pub fn stop(&mut self) {
        let mut running = running();
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        running.retain(|&id| id != self.child.id());
        drop(running);
        if let Some(log) = self.log.take() {
            // Its pipe is closed now, so it ends. A panic in it is its own affair.
            let _ = log.join();
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The same command, ended by the kernel when the thread that starts it ends, for whatever reason.
fn dies_with_us(command: &Command) -> Command {
    // Only a program that sets this for itself can have it without unsafe code here.
    let mut bound = Command::new("setpriv");
    bound.args(["--pdeathsig", "KILL"]).arg(command.get_program()).args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        bound.current_dir(folder);
    }
    bound
}

fn watch_signals() {
    let Ok(mut signals) = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM]) else { return };
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            terminal::restore();
            for &id in running().iter() {
                if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
                    // Errors mean that it has ended already.
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            process::exit(128 + signal);
        }
    });
}
