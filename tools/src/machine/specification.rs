//! What machine to start, and whether its platform can be that.

use std::path::PathBuf;

use miette::{Result, bail};

use super::{bochs, qemu};
use crate::cli::Firmware;
use crate::units::show_size;

/// What runs the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Platform {
    /// Bochs, which emulates VT-x.
    Bochs,
    /// QEMU, with the host's VT-x or AMD-V nested.
    QemuKvm,
    /// QEMU emulating, with AMD-V.
    QemuTcg,
}

/// A processor's extension for virtual machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Intel's.
    VtX,
    /// AMD's.
    AmdV,
}

impl Extension {
    /// As people write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::VtX => "VT-x",
            Self::AmdV => "AMD-V",
        }
    }
}

impl Platform {
    /// As the command line and the table of tests write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bochs => "bochs",
            Self::QemuKvm => "qemu-kvm",
            Self::QemuTcg => "qemu-tcg",
        }
    }

    /// What its machines have, where that is always the same.
    pub const fn extension(self) -> Option<Extension> {
        match self {
            Self::Bochs => Some(Extension::VtX),
            Self::QemuTcg => Some(Extension::AmdV),
            Self::QemuKvm => None,
        }
    }

    /// The processor model that is taken when none is named.
    pub const fn default_cpu(self) -> &'static str {
        match self {
            Self::Bochs => bochs::DEFAULT_CPU,
            Self::QemuKvm => "host",
            Self::QemuTcg => qemu::DEFAULT_CPU,
        }
    }
}

/// How emulated time passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As fast as the host can. For scripts.
    Fast,
    /// By the instruction, at a rate at which a guest's timer ticks are far apart, however busy the
    /// host is; idle time is skipped. For tests.
    Repeatable,
    /// Not faster than the clock on the wall. For people.
    Wall,
    /// By the instruction, so that the time-stamp counter counts them. For measurements.
    Counted,
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
    /// Whether it waits for gdb before its first instruction.
    pub gdb: bool,
    /// Whether something will be asked of its monitor.
    pub monitor: bool,
    /// Where a picture of its screen goes when it ends.
    pub screenshot: Option<PathBuf>,
}

impl Specification {
    /// A machine with one processor and 1 GiB of memory, booted by a BIOS.
    pub fn usual(platform: Platform, pace: Pace) -> Self {
        Self {
            platform,
            cpu: None,
            cpus: 1,
            memory: 1 << 30,
            firmware: Firmware::Bios,
            direct: false,
            pace,
            gdb: false,
            monitor: false,
            screenshot: None,
        }
    }

    /// The processor model, without what was added to it or taken from it.
    pub fn model(&self) -> &str {
        let cpu = self.cpu.as_deref().unwrap_or(self.platform.default_cpu());
        cpu.split(',').next().unwrap_or(cpu)
    }

    /// What of this only QEMU can do.
    fn only_qemu(&self) -> Option<&'static str> {
        let wishes = [
            (self.firmware == Firmware::Uefi, "UEFI firmware"),
            (self.direct, "direct boot"),
            (self.gdb, "gdb stub"),
            (self.monitor, "monitor"),
            (self.screenshot.is_some(), "screenshots"),
        ];
        wishes.into_iter().find(|(wished, _)| *wished).map(|(_, name)| name)
    }

    /// Whether the platform can do that.
    ///
    /// # Errors
    /// What it cannot do.
    pub fn check(&self) -> Result<()> {
        if let (Platform::Bochs, Some(wish)) = (self.platform, self.only_qemu()) {
            bail!(help = "use --platform qemu-tcg", "Bochs has no {wish}");
        }
        if !self.memory.is_multiple_of(1 << 20) || self.memory < 32 << 20 {
            bail!("a machine has whole MiB of memory, and no less than 32");
        }
        Ok(())
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        let platform = match self.platform {
            Platform::Bochs => "Bochs emulating VT-x",
            Platform::QemuKvm => "QEMU with KVM",
            Platform::QemuTcg => "QEMU emulating AMD-V",
        };
        let cpu = self.cpu.as_deref().unwrap_or(self.platform.default_cpu());
        let plural = if self.cpus == 1 { "" } else { "s" };
        let memory = show_size(self.memory);
        let firmware = match (self.direct, self.firmware) {
            (true, _) => "direct boot",
            (false, Firmware::Bios) => "BIOS",
            (false, Firmware::Uefi) => "UEFI",
        };
        format!("{platform}, {cpu}, {} CPU{plural}, {memory}, {firmware}", self.cpus)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bochs_is_refused_what_it_cannot_do() {
        let usual = Specification::usual(Platform::Bochs, Pace::Repeatable);
        assert!(usual.check().is_ok());
        let wishes = [
            Specification { firmware: Firmware::Uefi, ..usual.clone() },
            Specification { direct: true, ..usual.clone() },
            Specification { gdb: true, ..usual.clone() },
            Specification { screenshot: Some("a.png".into()), ..usual },
        ];
        for wish in wishes {
            assert!(wish.check().is_err(), "{wish:?}");
            assert!(Specification { platform: Platform::QemuTcg, ..wish }.check().is_ok());
        }
    }

    #[test]
    fn memory_has_a_least_size() {
        let usual = Specification::usual(Platform::QemuTcg, Pace::Repeatable);
        assert!(Specification { memory: 32 << 20, ..usual.clone() }.check().is_ok());
        assert!(Specification { memory: 31 << 20, ..usual.clone() }.check().is_err());
        assert!(Specification { memory: (64 << 20) + 1, ..usual }.check().is_err());
    }
}
