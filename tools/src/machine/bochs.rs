//! Bochs: the emulator that has VT-x.
//!
//! Choices that are not obvious:
//! * The serial port is a socket. Bochs then hands the guest a byte only when the guest has taken
//!   the one before, so nothing that is typed or pasted is lost, however slow the guest is. Its
//!   terminal mode drops bytes instead.
//! * `ips` says how many instructions make a second of emulated time, and with that the rate of
//!   the time-stamp counter, which advances once an instruction. What CPUID leaves 0x15 and 0x16
//!   of a model claim (3.5 GHz for `corei7_skylake_x`) has nothing to do with it: who wants to
//!   know the rate must measure it. At 100 million, a guest's timer ticks at 250 Hz are 400,000
//!   instructions apart, far more than a tick costs; the emulator runs about that many in a second
//!   on a host of today, so that time feels right, and idle time costs it next to nothing.
//! * The display is one that nobody has to look at. It takes the first free port from 5900 up.
//! * It logs to standard error, where somebody sees to it that the log does not grow for ever.
//! * The bytes of `Shutdown` at port 0x8900 end the emulator.

use std::path::{Path, PathBuf};
use std::process::Command;

use miette::Result;

use super::specification::{Pace, Specification};
use crate::files;
use crate::image::Packed;
use crate::workspace::Workspace;

/// The model that the numbers are about.
pub const DEFAULT_CPU: &str = "corei7_skylake_x";

/// Instructions in a second of emulated time.
const INSTRUCTIONS_PER_SECOND: u32 = 100_000_000;

/// The Bochs that `scripts/setup` chose.
pub fn program(workspace: &Workspace) -> PathBuf {
    workspace.tools.join("bin/bochs")
}

/// The command that starts it.
///
/// # Errors
/// When its files cannot be written.
pub fn command(
    workspace: &Workspace,
    specification: &Specification,
    packed: &Packed,
    folder: &Path,
    port: u16,
) -> Result<Command> {
    files::write(&folder.join("bochsrc"), configuration(specification, port))?;
    // A link in the folder has a plain name, and Bochs does not read every path.
    files::link(&packed.image, &folder.join("image.iso"))?;
    let mut command = Command::new(program(workspace));
    command.args(["-q", "-f", "bochsrc"]).current_dir(folder);
    Ok(command)
}

fn configuration(specification: &Specification, port: u16) -> String {
    let cpu = specification.cpu.as_deref().unwrap_or(DEFAULT_CPU);
    let count = specification.cpus;
    let memory = specification.memory >> 20;
    // Bochs keeps at most this much of the machine's memory in its own.
    let host = memory.min(2048);
    let clock = match specification.pace {
        Pace::Fast | Pace::Repeatable | Pace::Counted => "none",
        Pace::Wall => "slowdown",
    };
    format!(
        "\
config_interface: textconfig
display_library: rfb, options=\"timeout=0\"
plugin_ctrl: unmapped=1, speaker=0, gameport=0, parallel=0
cpu: model={cpu}, count={count}, ips={INSTRUCTIONS_PER_SECOND}, reset_on_triple_fault=0
memory: guest={memory}, host={host}
romimage: file=$BXSHARE/BIOS-bochs-latest, options=fastboot
vgaromimage: file=$BXSHARE/VGABIOS-lgpl-latest
pci: enabled=1, chipset=i440fx
clock: sync={clock}, time0=utc
boot: cdrom
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path=image.iso, status=inserted
com1: enabled=1, mode=socket-client, dev=127.0.0.1:{port}
log: /dev/stderr
panic: action=fatal
error: action=report
info: action=report
debug: action=ignore
"
    )
}
