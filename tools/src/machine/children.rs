//! Emulators never outlive this process: not its end, not a signal to it, not its being killed.

use std::fs::File;
use std::io;
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::terminal;

/// The processes that a signal to us must end.
static RUNNING: Mutex<Vec<u32>> = Mutex::new(Vec::new());
static WATCH: Once = Once::new();

fn running() -> MutexGuard<'static, Vec<u32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child process that is bound to this value.
#[derive(Debug)]
pub struct Bound(Child);

impl Bound {
    /// Starts it, with nothing to read, and with what it says going to `said`. The thread that
    /// starts it must live as long as the child shall.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &Command, said: File) -> io::Result<Self> {
        WATCH.call_once(watch_signals);
        // Held while the child starts, so that no signal comes between start and entry.
        let mut running = running();
        let child = dies_with_us(command)
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said)
            .spawn()?;
        running.push(child.id());
        Ok(Self(child))
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().ok().flatten()
    }

    /// Ends it.
    pub fn stop(&mut self) {
        let mut running = running();
        // Errors mean that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
        running.retain(|&id| id != self.0.id());
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
