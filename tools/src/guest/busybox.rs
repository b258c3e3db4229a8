//! The demo guest's user space: one static program under its many names, and a shell on the
//! serial console.

use std::path::Path;
use std::process::Command;

use miette::{IntoDiagnostic, Result, WrapErr, bail};

use super::cpio::Archive;
use crate::files;

/// What busybox's init does: see its `examples/inittab`. A leading dash makes a login shell that
/// controls its terminal, which is what Ctrl-C and job control need.
const INITTAB: &str = "\
::sysinit:/etc/rc
ttyS0::respawn:-/bin/sh
::ctrlaltdel:/sbin/reboot
";

const RC: &str = "\
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /tmp
hostname ferrite
echo
echo \"Ferrite demo: Linux $(uname -r). Type 'poweroff' to leave.\"
";

/// A serial line cannot tell the size of the terminal behind it; without one, the shell would ask
/// the terminal after every prompt.
const PROFILE: &str = "\
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root TERM=vt100
export PS1='ferrite# '
stty rows 24 cols 80
cd /root
";

/// The initial RAM disk: an archive of `busybox`, a link for each of its commands, and the few
/// files that turn it into a system.
///
/// # Errors
/// When busybox cannot be read, or not be asked for its commands.
pub fn ram_disk(busybox: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in
        ["bin", "dev", "etc", "proc", "root", "sbin", "sys", "tmp", "usr", "usr/bin", "usr/sbin"]
    {
        archive.folder(folder);
    }
    // Before the device file system is mounted, init speaks through this one.
    archive.character_device("dev/console", 0o600, (5, 1));
    archive.character_device("dev/null", 0o666, (1, 3));
    archive.file("bin/busybox", 0o755, &files::read(busybox)?);
    for command in commands(busybox)? {
        if command != "bin/busybox" {
            archive.link(&command, "/bin/busybox");
        }
    }
    archive.link("init", "/bin/busybox");
    archive.file("etc/inittab", 0o644, INITTAB.as_bytes());
    archive.file("etc/rc", 0o755, RC.as_bytes());
    archive.file("etc/profile", 0o644, PROFILE.as_bytes());
    archive.file("etc/passwd", 0o644, b"root::0:0:root:/root:/bin/sh\n");
    archive.file("etc/group", 0o644, b"root:x:0:\n");
    Ok(archive.into_bytes())
}

/// The paths of the commands that this busybox is, such as `bin/ls`.
fn commands(busybox: &Path) -> Result<Vec<String>> {
    let output = Command::new(busybox)
        .arg("--list-full")
        .output()
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot run {}", busybox.display()))?;
    let list = String::from_utf8_lossy(&output.stdout);
    let commands: Vec<String> = list
        .lines()
        .filter(|path| path.contains('/') && !path.starts_with('/'))
        .map(str::to_owned)
        .collect();
    if !output.status.success() || !commands.iter().any(|path| path.ends_with("/sh")) {
        bail!("{} does not list its commands", busybox.display());
    }
    Ok(commands)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::workspace::Workspace;
    use std::path::PathBuf;

    /// The busybox that set-up fetched.
    pub fn busybox() -> PathBuf {
        let workspace = Workspace::find().expect("run scripts/setup");
        workspace.tools.join("busybox/bin/busybox")
    }

    #[test]
    fn the_disk_holds_what_the_init_scripts_call() {
        let busybox = busybox();
        let commands = commands(&busybox).unwrap();
        for needed in ["mount", "mkdir", "hostname", "uname", "poweroff", "reboot", "md5sum"] {
            assert!(commands.iter().any(|c| c.ends_with(&format!("/{needed}"))), "{needed}");
        }
        assert_eq!(ram_disk(&busybox).unwrap(), ram_disk(&busybox).unwrap());
    }
}
