//! Machines to run the system on: emulated, or a virtual one with nested VT-x.

mod bochs;
mod children;
mod qemu;

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use miette::{IntoDiagnostic, Result, WrapErr, bail, miette};

use crate::cli::{Firmware, MachineArguments, PlatformArgument};
use crate::files;
use crate::image::Packed;
use crate::units::show_size;
use crate::workspace::Workspace;

pub use bochs::DEFAULT_CPU as DEFAULT_BOCHS_CPU;

/// What runs the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Platform {
    /// Bochs, which emulates VT-x.
    Bochs,
    /// QEMU, with the host's VT-x nested.
    QemuKvm,
    /// QEMU emulating, without VT-x.
    QemuTcg,
}

/// How emulated time passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As fast as the host can: idle time is skipped. For tests.
    Fast,
    /// Not faster than the clock on the wall. For people.
    Wall,
}

/// A machine to start.
#[derive(Clone, Debug)]
pub struct Specification {
    /// What runs it.
    pub platform: Platform,
    /// Processor model, in the platform's words.
    pub cpu: Option<String>,
    /// Processors.
    pub cpus: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// What boots it.
    pub firmware: Firmware,
    /// Whether to load the kernel without firmware.
    pub direct: bool,
    /// How its time passes.
    pub pace: Pace,
}

impl Specification {
    /// What the command line asks for, with the platform chosen, and the reason for the choice.
    ///
    /// # Errors
    /// A combination that does not exist.
    pub fn choose(arguments: &MachineArguments, pace: Pace) -> Result<(Self, String)> {
        let uefi = arguments.firmware == Firmware::Uefi;
        let needs_qemu = uefi || arguments.direct;
        let (platform, reason) = match arguments.platform {
            PlatformArgument::Bochs => (Platform::Bochs, "as asked".to_owned()),
            PlatformArgument::QemuTcg => (Platform::QemuTcg, "as asked; it has no VT-x".to_owned()),
            PlatformArgument::QemuKvm => {
                qemu::nested_vtx().map_err(|reason| {
                    miette!(help = "use --platform bochs", "qemu-kvm does not work here: {reason}")
                })?;
                (Platform::QemuKvm, "as asked".to_owned())
            }
            PlatformArgument::Auto => match qemu::nested_vtx() {
                Ok(()) => (Platform::QemuKvm, "this host offers nested VT-x".to_owned()),
                Err(reason) if needs_qemu => {
                    (Platform::QemuTcg, format!("{reason}; without VT-x the kernel will refuse"))
                }
                Err(reason) => (Platform::Bochs, reason),
            },
        };
        let specification = Self {
            platform,
            cpu: arguments.cpu.clone(),
            cpus: arguments.cpus,
            memory: arguments.memory,
            firmware: arguments.firmware,
            direct: arguments.direct,
            pace,
        };
        specification.check()?;
        Ok((specification, reason))
    }

    /// Whether the platform can do that.
    ///
    /// # Errors
    /// What it cannot do.
    pub fn check(&self) -> Result<()> {
        if self.platform == Platform::Bochs && self.firmware == Firmware::Uefi {
            bail!(help = "use --platform qemu-kvm or qemu-tcg", "Bochs has no UEFI firmware");
        }
        if self.platform == Platform::Bochs && self.direct {
            bail!(help = "use --platform qemu-kvm or qemu-tcg", "Bochs has no direct boot");
        }
        if !self.memory.is_multiple_of(1 << 20) || self.memory < 32 << 20 {
            bail!("a machine has whole MiB of memory, and no less than 32");
        }
        Ok(())
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        let (name, cpu) = match self.platform {
            Platform::Bochs => ("Bochs", self.cpu.as_deref().unwrap_or(bochs::DEFAULT_CPU)),
            Platform::QemuKvm => ("QEMU with KVM", self.cpu.as_deref().unwrap_or("host")),
            Platform::QemuTcg => ("QEMU emulating", self.cpu.as_deref().unwrap_or("max")),
        };
        let plural = if self.cpus == 1 { "" } else { "s" };
        let memory = show_size(self.memory);
        let firmware = match (self.direct, self.firmware) {
            (true, _) => "direct boot",
            (false, Firmware::Bios) => "BIOS",
            (false, Firmware::Uefi) => "UEFI",
        };
        format!("{name}, {cpu}, {} CPU{plural}, {memory}, {firmware}", self.cpus)
    }
}

/// A running machine. It ends with this value.
#[derive(Debug)]
pub struct Machine {
    child: children::Bound,
    serial: TcpStream,
    log: PathBuf,
}

/// How long an emulator may take to connect its serial port.
const CONNECT_TIME: Duration = Duration::from_secs(30);

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
        // The emulator connects to us, not we to it: that way no port number has to be guessed.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).into_diagnostic()?;
        let port = listener.local_addr().into_diagnostic()?.port();
        let (command, log) = match specification.platform {
            Platform::Bochs => bochs::command(workspace, specification, packed, folder, port)?,
            Platform::QemuKvm | Platform::QemuTcg => {
                qemu::command(specification, packed, folder, port)?
            }
        };
        let name = command.get_program().to_string_lossy().into_owned();
        let output = folder.join("emulator.out");
        let said = File::create(&output).into_diagnostic()?;
        let mut child = children::Bound::start(&command, said)
            .into_diagnostic()
            .wrap_err_with(|| format!("cannot start {name}"))?;
        let serial = accept(&listener, &mut child)
            .map_err(|error| miette!(help = tail(&output), "{name} did not start: {error}"))?;
        Ok(Self { child, serial, log })
    }

    /// Its serial port; reading ends when the machine does.
    pub fn serial(&self) -> Result<TcpStream> {
        self.serial.try_clone().into_diagnostic()
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

fn accept(listener: &TcpListener, child: &mut children::Bound) -> io::Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + CONNECT_TIME;
    loop {
        match listener.accept() {
            Ok((serial, _)) => {
                serial.set_nonblocking(false)?;
                serial.set_nodelay(true)?;
                return Ok(serial);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if let Some(status) = child.ended() {
            return Err(io::Error::other(format!("it ended with {status}")));
        }
        if Instant::now() > deadline {
            return Err(io::Error::other("it did not connect its serial port"));
        }
        thread::sleep(Duration::from_millis(5));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(platform: PlatformArgument, firmware: Firmware, direct: bool) -> MachineArguments {
        MachineArguments { platform, cpu: None, cpus: 1, memory: 1 << 30, firmware, direct }
    }

    #[test]
    fn bochs_is_refused_what_it_cannot_do() {
        let choose = |firmware, direct| {
            Specification::choose(&arguments(PlatformArgument::Bochs, firmware, direct), Pace::Fast)
        };
        assert!(choose(Firmware::Bios, false).is_ok());
        assert!(choose(Firmware::Uefi, false).is_err());
        assert!(choose(Firmware::Bios, true).is_err());
    }

    #[test]
    fn auto_finds_a_platform_for_every_firmware() {
        for (firmware, direct) in
            [(Firmware::Bios, false), (Firmware::Uefi, false), (Firmware::Bios, true)]
        {
            let arguments = arguments(PlatformArgument::Auto, firmware, direct);
            let (specification, reason) = Specification::choose(&arguments, Pace::Fast).unwrap();
            assert!(!reason.is_empty());
            assert!(specification.platform != Platform::Bochs || firmware == Firmware::Bios);
        }
    }
}
