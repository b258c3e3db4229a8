//! QEMU: with the host's nested virtualization where there is some, and with its own AMD-V
//! everywhere.
//!
//! Choices that are not obvious:
//! * Serial port and monitor are sockets that QEMU connects to us, not we to it: that way no port
//!   number has to be guessed.
//! * Where instructions are counted, each takes the same emulated time, and idle time is skipped:
//!   a run repeats, but for what the CD and the console take from the host. For measurements that
//!   time is a nanosecond, because the time-stamp counter counts nanoseconds then. For tests it is
//!   eight: 125 million instructions a second are about what the emulator runs on a host of today,
//!   as in Bochs.
//! * Several processors are emulated by one thread, in turn. QEMU 7.2's AMD-V changes the set of
//!   interrupts that wait for a processor without the lock under which the threads of other
//!   processors add to it, so one that they send just then would be lost.
//! * Who wants a picture of the screen at the end needs the screen after the end: the machine is
//!   then kept, stopped, when it turns itself off.

use std::path::{Path, PathBuf};
use std::process::Command;

use miette::{Result, miette};

use super::specification::{Extension, Pace, Platform, Specification};
use crate::cli::Firmware;
use crate::files;
use crate::image::Packed;
use crate::workspace::Workspace;

/// The model with all that QEMU can emulate.
pub const DEFAULT_CPU: &str = "max";

/// OVMF in a folder: code, and the template of its variables.
const OVMF: [(&str, &str); 2] =
    [("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"), ("OVMF_CODE.fd", "OVMF_VARS.fd")];

/// Where we listen, for QEMU to connect to.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// The serial console.
    pub console: u16,
    /// The monitor, if there is to be one.
    pub monitor: Option<u16>,
}

/// The QEMU that `scripts/setup` chose.
pub fn program(workspace: &Workspace) -> PathBuf {
    workspace.tools.join("bin/qemu-system-x86_64")
}

/// The command that starts it.
///
/// # Errors
/// When there is no firmware for it.
pub fn command(
    workspace: &Workspace,
    specification: &Specification,
    packed: &Packed,
    folder: &Path,
    ports: Ports,
) -> Result<Command> {
    let mut command = Command::new(program(workspace));
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-vga", "std"])
        .args(["-no-reboot", "-d", "cpu_reset,guest_errors"])
        .args(["-m", &format!("{}M", specification.memory >> 20)])
        .args(["-smp", &specification.cpus.to_string()])
        .args(["-chardev", &socket("console", ports.console)])
        .args(["-serial", "chardev:console"])
        .args(["-machine", "q35", "-accel", &threads(specification)])
        .args(["-cpu", &cpu(specification)])
        .current_dir(folder);
    if let Some(port) = ports.monitor {
        command.args(["-chardev", &socket("monitor", port)]);
        command.args(["-mon", "chardev=monitor,mode=control"]);
    }
    if let Some(shift) = instruction_time(specification) {
        command.args(["-icount", &format!("shift={shift},sleep=off")]);
        // The machine's clock starts at the same time, and goes on with its own.
        command.args(["-rtc", "base=2026-01-01T00:00:00,clock=vm"]);
    }
    if specification.screenshot.is_some() {
        command.arg("-no-shutdown");
    } else {
        command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
    }
    if specification.gdb {
        // Port 0: any that is free. The monitor tells which.
        command.args(["-S", "-gdb", "chardev:gdb"]);
        command.args(["-chardev", "socket,id=gdb,host=127.0.0.1,port=0,server=on,wait=off"]);
    }
    if specification.direct {
        command.arg("-kernel").arg(&packed.loader).arg("-initrd").arg(&packed.direct_bundle);
        return Ok(command);
    }
    if specification.firmware == Firmware::Uefi {
        let (code, variables) = ovmf(workspace).ok_or_else(|| {
            miette!(help = "run scripts/setup", "there is no UEFI firmware for QEMU (ovmf)")
        })?;
        files::copy(&variables, &folder.join("variables.fd"))?;
        let code = code.display();
        command.args(["-drive", &format!("if=pflash,format=raw,readonly=on,file={code}")]);
        command.args(["-drive", "if=pflash,format=raw,file=variables.fd"]);
    }
    files::link(&packed.image, &folder.join("image.iso"))?;
    command.args(["-drive", "if=none,id=cd,media=cdrom,format=raw,readonly=on,file=image.iso"]);
    command.args(["-device", "ide-cd,drive=cd,bootindex=0"]);
    Ok(command)
}

/// How long an instruction takes, as a power of two in nanoseconds; `None`: as long as it does.
fn instruction_time(specification: &Specification) -> Option<u8> {
    match (specification.platform, specification.pace) {
        (Platform::QemuKvm, _) | (_, Pace::Fast | Pace::Wall) => None,
        (_, Pace::Repeatable) => Some(3),
        (_, Pace::Counted) => Some(0),
    }
}

/// What runs the instructions.
pub const fn accelerator(platform: Platform) -> &'static str {
    match platform {
        Platform::QemuKvm => "kvm",
        Platform::QemuTcg | Platform::Bochs => "tcg",
    }
}

/// The same, and how many threads of the host do that.
fn threads(specification: &Specification) -> String {
    let accelerator = accelerator(specification.platform);
    match (specification.platform, specification.cpus) {
        (Platform::QemuTcg, 2..) => format!("{accelerator},thread=single"),
        _ => accelerator.to_owned(),
    }
}

fn socket(id: &str, port: u16) -> String {
    format!("socket,id={id},host=127.0.0.1,port={port}")
}

fn ovmf(workspace: &Workspace) -> Option<(PathBuf, PathBuf)> {
    let folders = [workspace.tools.join("qemu/usr/share/OVMF"), "/usr/share/OVMF".into()];
    folders
        .iter()
        .flat_map(|folder| OVMF.map(|(code, vars)| (folder.join(code), folder.join(vars))))
        .find(|(code, variables)| code.is_file() && variables.is_file())
}

/// The processor as QEMU wants it. Only some of its models come with AMD-V, so that is added
/// unless the user has said something about it. With KVM the host's models have what there is.
fn cpu(specification: &Specification) -> String {
    let cpu = specification.cpu.as_deref().unwrap_or(specification.platform.default_cpu());
    let mut cpu = cpu.to_owned();
    if specification.platform.extension() == Some(Extension::AmdV) {
        for feature in ["svm", "npt"] {
            if !mentions(&cpu, feature) {
                cpu += &format!(",+{feature}");
            }
        }
    }
    cpu
}

/// Whether a list such as `max,+svm,npt=off` says something about a feature.
fn mentions(cpu: &str, feature: &str) -> bool {
    cpu.split(',').skip(1).any(|property| {
        let name = property.trim_start_matches(['+', '-']);
        name.split('=').next() == Some(feature)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(platform: Platform, cpu: Option<&str>) -> String {
        let usual = Specification::usual(platform, Pace::Fast);
        super::cpu(&Specification { cpu: cpu.map(str::to_owned), ..usual })
    }

    #[test]
    fn several_emulated_processors_take_turns() {
        for (platform, cpus, expected) in [
            (Platform::QemuTcg, 1, "tcg"),
            (Platform::QemuTcg, 2, "tcg,thread=single"),
            (Platform::QemuKvm, 1, "kvm"),
            (Platform::QemuKvm, 2, "kvm"),
        ] {
            let usual = Specification::usual(platform, Pace::Fast);
            assert_eq!(threads(&Specification { cpus, ..usual }), expected);
        }
    }

    #[test]
    fn amd_v_is_added_unless_the_user_has_said_something_about_it() {
        for (said, expected) in [
            (None, "max,+svm,+npt"),
            (Some("EPYC"), "EPYC,+svm,+npt"),
            (Some("max,-svm"), "max,-svm,+npt"),
            (Some("max,svm=off,npt=off"), "max,svm=off,npt=off"),
            (Some("max,+svm,-npt"), "max,+svm,-npt"),
            (Some("max,-svm-lock"), "max,-svm-lock,+svm,+npt"),
        ] {
            assert_eq!(given(Platform::QemuTcg, said), expected);
        }
        assert_eq!(given(Platform::QemuKvm, None), "host");
        assert_eq!(given(Platform::QemuKvm, Some("max,-avx")), "max,-avx");
    }
}
