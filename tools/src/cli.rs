//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use regex::bytes::Regex;

use crate::machine::{Pace, Platform, Specification};
use crate::units::{parse_seconds, parse_size};

/// Builds, boots, tests and measures Ferrite.
#[derive(Parser, Debug)]
#[command(name = "ferrite", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// One for each script.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Builds a bootable image: BIOS, UEFI, CD or USB stick
    #[command(override_usage = "scripts/image [MANIFEST] [-o FILE]")]
    Image(ImageArguments),
    /// Builds the system, starts it, and connects the terminal to its serial console
    #[command(override_usage = "scripts/run [MANIFEST] [OPTIONS]")]
    Run(RunArguments),
    /// Writes the image to a disk or a file, and verifies it
    #[command(override_usage = "scripts/flash DEVICE|FILE [OPTIONS]")]
    Flash(FlashArguments),
    /// Measures the paths that matter, in an emulator that counts instructions
    #[command(override_usage = "scripts/bench [--platform bochs|qemu-tcg] [--json FILE]")]
    Bench(BenchArguments),
    /// Runs the checks, the host tests and the system tests
    #[command(override_usage = "scripts/test [FILTER] [OPTIONS]")]
    Test(TestArguments),
    /// Writes docs/src/hypercalls.md from the doc comments in abi/src
    #[command(override_usage = "scripts/reference")]
    Reference,
}

/// Arguments of `scripts/image`.
#[derive(Args, Debug)]
pub struct ImageArguments {
    /// Which system; without it, guests/demo.toml
    pub manifest: Option<PathBuf>,
    /// Where the image goes [default: target/images/NAME.iso]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Arguments of `scripts/run`.
#[derive(Args, Debug)]
pub struct RunArguments {
    /// Which system; without it, guests/demo.toml
    pub manifest: Option<PathBuf>,
    /// The machine it runs on.
    #[command(flatten)]
    pub machine: MachineArguments,
    /// Print the console to standard output and succeed as soon as it matches; fail at the
    /// time-out, or when the machine stops first
    #[arg(long, value_name = "REGEX")]
    pub until: Option<Regex>,
    /// Stop the machine, and fail, after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub timeout: Option<Duration>,
    /// Write the console to FILE, and the emulator's own log to FILE.machine
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// QEMU only: stop before the first instruction and wait for gdb; prints the command that
    /// connects gdb, with the hypervisor's symbols
    #[arg(long)]
    pub gdb: bool,
    /// QEMU only: write a picture of the machine's screen when the run ends, at the match of
    /// --until, at the time-out, or when the machine turns itself off
    #[arg(long, value_name = "FILE.png")]
    pub screenshot: Option<PathBuf>,
}

/// The machine to start.
#[derive(Args, Debug, Clone)]
pub struct MachineArguments {
    /// What runs the system
    #[arg(long, value_enum, default_value = "auto")]
    pub platform: PlatformArgument,
    /// Processor model, in the platform's own words, such as corei5_arrandale_m520 in Bochs or
    /// EPYC,-avx in QEMU, where AMD-V (svm and npt) is added unless it is mentioned [default:
    /// host in qemu-kvm, max in qemu-tcg, corei7_skylake_x in bochs]
    #[arg(long, value_name = "MODEL")]
    pub cpu: Option<String>,
    /// Number of processors
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub cpus: u32,
    /// Memory, such as 512M or 2G
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = parse_size)]
    pub memory: u64,
    /// Firmware that boots the image; UEFI is QEMU's
    #[arg(long, value_enum, default_value = "bios")]
    pub firmware: Firmware,
    /// QEMU only: load without firmware and GRUB, through the PVH entry
    #[arg(long, conflicts_with = "firmware")]
    pub direct: bool,
}

impl MachineArguments {
    /// The machine that is asked for; its platform is still to be chosen.
    pub fn specification(&self, pace: Pace) -> Specification {
        Specification {
            cpu: self.cpu.clone(),
            cpus: self.cpus,
            memory: self.memory,
            firmware: self.firmware,
            direct: self.direct,
            ..Specification::usual(Platform::Bochs, pace)
        }
    }
}

/// What runs the system.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlatformArgument {
    /// The first of qemu-kvm, qemu-tcg and bochs that works here and can do what is asked; says
    /// which, and why
    Auto,
    /// Bochs, which emulates VT-x; works everywhere
    Bochs,
    /// QEMU on a host whose KVM offers nested VT-x or AMD-V
    QemuKvm,
    /// QEMU emulating a processor with AMD-V; works everywhere
    QemuTcg,
}

/// Where the benchmark runs: only emulators count instructions.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum BenchPlatform {
    /// VT-x in Bochs
    Bochs,
    /// AMD-V in QEMU, which counts instructions (-icount)
    QemuTcg,
}

/// What boots the image.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// A PC BIOS
    #[default]
    Bios,
    /// UEFI (OVMF)
    Uefi,
}

/// Arguments of `scripts/flash`.
#[derive(Args, Debug)]
pub struct FlashArguments {
    /// Disk (such as /dev/sdX) or file to write
    #[arg(value_name = "DEVICE|FILE")]
    pub target: PathBuf,
    /// Which system [default: guests/demo.toml]
    #[arg(long)]
    pub manifest: Option<PathBuf>,
    /// Do not ask before a disk is overwritten
    #[arg(long)]
    pub yes: bool,
}

/// Arguments of `scripts/bench`.
#[derive(Args, Debug)]
pub struct BenchArguments {
    /// Also write the figures to FILE
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// The emulator, and with it the extension that is measured
    #[arg(long, value_enum, default_value = "bochs")]
    pub platform: BenchPlatform,
    /// Processor model of the emulator [default: corei7_skylake_x in bochs, max in qemu-tcg]
    #[arg(long, value_name = "MODEL")]
    pub cpu: Option<String>,
    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = parse_seconds)]
    pub timeout: Duration,
}

/// Arguments of `scripts/test`.
#[derive(Args, Debug)]
pub struct TestArguments {
    /// Only what has this in its name; that of a system test ends with where it runs, so that
    /// AMD-V, qemu-tcg or skylake is a filter too
    pub filter: Option<String>,
    /// Name what there is, and run nothing
    #[arg(long)]
    pub list: bool,
    /// System tests at a time [default: one for each processor of the host]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_takes_all_its_options() {
        let line = "ferrite run a.toml --platform bochs --cpu corei5_arrandale_m520 --cpus 2 \
                    --memory 512M --firmware bios --until a.c --timeout 1.5 --log x --gdb \
                    --screenshot x.png";
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Run(run) = cli.command else { panic!("not run") };
        assert_eq!(run.machine.memory, 512 << 20);
        assert_eq!(run.machine.cpus, 2);
        assert!(run.gdb && run.screenshot.is_some());
        assert_eq!(run.machine.platform, PlatformArgument::Bochs);
        assert_eq!(run.timeout, Some(Duration::from_millis(1500)));
        assert!(run.until.unwrap().is_match(b"abc"));
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "ferrite run --memory lots",
            "ferrite run --cpus 0",
            "ferrite run --until [",
            "ferrite run --timeout -1",
            "ferrite run --platform vax",
            "ferrite bench --platform qemu-kvm",
            "ferrite flash",
        ] {
            assert!(Cli::try_parse_from(line.split_whitespace()).is_err(), "{line}");
        }
    }
}
