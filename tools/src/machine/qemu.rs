//! QEMU: on a host with nested VT-x the fastest platform; without, good for the boot path.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;

use miette::{Result, miette};

use super::{Platform, Specification};
use crate::cli::Firmware;
use crate::files;
use crate::image::Packed;

/// Where Debian keeps OVMF: code, and the template of its variables.
const OVMF: [(&str, &str); 2] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
];

/// Whether this host gives its virtual machines VT-x.
///
/// # Errors
/// Why not, for people.
pub fn nested_vtx() -> std::result::Result<(), String> {
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        return Err(format!("/dev/kvm cannot be used ({error})"));
    }
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = processor.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    if !flags.split_whitespace().any(|flag| flag == "vmx") {
        return Err("this host's processor has no VT-x".into());
    }
    match fs::read_to_string("/sys/module/kvm_intel/parameters/nested") {
        Ok(text) if matches!(text.trim(), "Y" | "1") => Ok(()),
        Ok(_) => Err("this host's KVM does not nest (kvm_intel.nested is off)".into()),
        Err(_) => Err("this host's KVM does not say that it nests VT-x".into()),
    }
}

/// The command that starts it, and where it logs.
pub fn command(
    specification: &Specification,
    packed: &Packed,
    folder: &Path,
    port: u16,
) -> Result<(Command, PathBuf)> {
    let log = folder.join("emulator.out");
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-vga", "std"])
        .args(["-no-reboot", "-d", "cpu_reset,guest_errors", "-D", "qemu-cpu.log"])
        .args(["-m", &format!("{}M", specification.memory >> 20)])
        .args(["-smp", &specification.cpus.to_string()])
        .args(["-chardev", &format!("socket,id=console,host=127.0.0.1,port={port}")])
        .args(["-serial", "chardev:console"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
        .current_dir(folder);
    let (accelerator, default_cpu) = match specification.platform {
        Platform::QemuKvm => ("kvm", "host"),
        Platform::QemuTcg | Platform::Bochs => ("tcg", "max"),
    };
    let cpu = specification.cpu.as_deref().unwrap_or(default_cpu);
    command.args(["-machine", "q35", "-accel", accelerator, "-cpu", cpu]);
    if specification.direct {
        command.arg("-kernel").arg(&packed.loader).arg("-initrd").arg(&packed.direct_bundle);
        return Ok((command, log));
    }
    if specification.firmware == Firmware::Uefi {
        let (code, variables) =
            OVMF.iter().find(|(code, _)| Path::new(code).is_file()).ok_or_else(|| {
                miette!(help = "run scripts/setup", "there is no UEFI firmware for QEMU (ovmf)")
            })?;
        files::copy(Path::new(variables), &folder.join("variables.fd"))?;
        command.args(["-drive", &format!("if=pflash,format=raw,readonly=on,file={code}")]);
        command.args(["-drive", "if=pflash,format=raw,file=variables.fd"]);
    }
    files::link(&packed.image, &folder.join("image.iso"))?;
    command.args(["-drive", "if=none,id=cd,media=cdrom,format=raw,readonly=on,file=image.iso"]);
    command.args(["-device", "ide-cd,drive=cd,bootindex=0"]);
    Ok((command, log))
}
