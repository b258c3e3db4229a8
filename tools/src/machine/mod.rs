//! Machines to run the system on: emulated, or a virtual one with nested virtualization.

mod bochs;
mod children;
mod choice;
mod log;
mod monitor;
mod probe;
mod qemu;
mod specification;

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use miette::{IntoDiagnostic, Result, WrapErr, bail, miette};

use crate::files;
use crate::image::Packed;
use crate::workspace::Workspace;

pub use choice::choose;
pub use monitor::Monitor;
pub use specification::{Extension, Pace, Platform, Specification};

/// A running machine. It ends with this value.
#[derive(Debug)]
pub struct Machine {
    child: children::Bound,
    serial: TcpStream,
    monitor: Option<monitor::Monitor>,
    screenshot: Option<PathBuf>,
    log: PathBuf,
}

/// How long an emulator may take to connect its serial port.
const CONNECT_TIME: Duration = Duration::from_secs(120);

impl Machine {
    /// Starts a machine, with its files in `folder`, which is emptied.
    ///
    /// # Errors
    /// An emulator that is not there or ends at once, with what it said.
    pub fn start(
        workspace: &Workspace,
        specification: &Specification,
        packed: &Packed,
        folder: &Path,
    ) -> Result<Self> {
        files::fresh_folder(folder)?;
        let console = Listener::new()?;
        let screenshot = specification.screenshot.clone();
        let monitored = specification.gdb || specification.monitor || screenshot.is_some();
        let monitor = monitored.then(Listener::new).transpose()?;
        let command = match specification.platform {
            Platform::Bochs => {
                bochs::command(workspace, specification, packed, folder, console.port)?
            }
            Platform::QemuKvm | Platform::QemuTcg => {
                let monitor = monitor.as_ref().map(|listener| listener.port);
                let ports = qemu::Ports { console: console.port, monitor };
                qemu::command(workspace, specification, packed, folder, ports)?
            }
        };
        let name = command.get_program().to_string_lossy().into_owned();
        let log = folder.join("emulator.log");
        let mut child = children::Bound::start(&command, log.clone())
            .into_diagnostic()
            .wrap_err_with(|| format!("cannot start {name}"))?;
        let connected = monitor
            .map(|listener| listener.accept(&mut child))
            .transpose()
            .and_then(|monitor| Ok((monitor, console.accept(&mut child)?)));
        let (monitor, serial) = match connected {
            Ok(connected) => connected,
            Err(error) => {
                child.stop();
                bail!(help = tail(&log), "{name} did not start: {error}");
            }
        };
        let monitor = monitor
            .map(|stream| monitor::Monitor::greet(stream, screenshot.clone()))
            .transpose()?;
        Ok(Self { child, serial, monitor, screenshot, log })
    }

    /// Its serial port; reading ends when the machine does.
    pub fn serial(&self) -> Result<TcpStream> {
        self.serial.try_clone().into_diagnostic()
    }

    /// Where it waits for gdb.
    ///
    /// # Errors
    /// When it does not.
    pub fn gdb(&self) -> Result<SocketAddr> {
        self.monitor()?.gdb()
    }

    /// Its monitor.
    ///
    /// # Errors
    /// When it was started without.
    pub fn monitor(&self) -> Result<&Monitor> {
        self.monitor.as_ref().ok_or_else(|| miette!("this machine has no monitor"))
    }

    /// Takes the picture of the screen, if one is wanted, and gives its place. A machine that has
    /// ended by itself has taken it.
    ///
    /// # Errors
    /// When there is none.
    pub fn take_screenshot(&mut self) -> Result<Option<&Path>> {
        let Some(file) = &self.screenshot else { return Ok(None) };
        let failure = match &self.monitor {
            Some(monitor) if self.child.ended().is_none() => monitor.screenshot(file).err(),
            _ => None,
        };
        match failure {
            // It may have ended just now.
            Some(report) if !file.is_file() => Err(report),
            None if !file.is_file() => bail!("the machine ended too early for a screenshot"),
            _ => Ok(Some(file)),
        }
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.ended()
    }

    /// Where the emulator keeps its own log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Stops it, wherever it is.
    pub fn stop(&mut self) {
        self.child.stop();
    }
}

/// Where an emulator connects to us.
struct Listener {
    socket: TcpListener,
    port: u16,
}

impl Listener {
    fn new() -> Result<Self> {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).into_diagnostic()?;
        let port = socket.local_addr().into_diagnostic()?.port();
        Ok(Self { socket, port })
    }

    /// Waits for the emulator.
    fn accept(self, child: &mut children::Bound) -> io::Result<TcpStream> {
        self.socket.set_nonblocking(true)?;
        let deadline = Instant::now() + CONNECT_TIME;
        loop {
            match self.socket.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if let Some(status) = child.ended() {
                return Err(io::Error::other(format!("it ended with {status}")));
            }
            if Instant::now() > deadline {
                return Err(io::Error::other("it did not connect to its console"));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The last lines of a log, for an error message.
pub fn tail(log: &Path) -> String {
    const LINES: usize = 20;
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
