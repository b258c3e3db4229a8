//! `scripts/flash`: the image on a disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use indicatif::ProgressBar;
use miette::{IntoDiagnostic, Result, WrapErr, bail, miette};
use rustix::fs::{Advice, fadvise, major, minor};

use crate::cli::FlashArguments;
use crate::compile;
use crate::image;
use crate::manifest::Manifest;
use crate::say;
use crate::units::show_size;
use crate::workspace::Workspace;

const BLOCK: usize = 1 << 20;

/// `scripts/flash`.
///
/// # Errors
/// A disk that must not or cannot be written, or does not hold what was written to it.
pub fn command(workspace: &Workspace, arguments: &FlashArguments) -> Result<ExitCode> {
    let target = &arguments.target;
    let disk = Disk::examine(target)?;
    if let Some(disk) = &disk {
        disk.refuse_if_used()?;
    } else if target.is_dir() {
        bail!("{} is a folder", target.display());
    }
    let path = arguments.manifest.clone().unwrap_or_else(|| workspace.default_manifest());
    let manifest = Manifest::read(workspace, &path)?;
    let built = compile::build(workspace)?;
    let packed = image::pack(workspace, &built, &manifest)?;
    let size = packed.image.metadata().into_diagnostic()?.len();
    if let Some(disk) = &disk {
        disk.refuse_if_small(size)?;
        if !arguments.yes && !confirmed(disk)? {
            say::step("nothing was written");
            return Ok(ExitCode::FAILURE);
        }
        // Much can happen while a question waits for its answer.
        disk.refuse_if_used()?;
    }
    write_verified(&packed.image, target, disk.is_some())?;
    say::step(format!("{} holds the image ({}), verified", target.display(), show_size(size)));
    Ok(ExitCode::SUCCESS)
}

/// A block device.
#[derive(Debug)]
struct Disk {
    path: PathBuf,
    /// Its folder below /sys.
    sys: PathBuf,
    bytes: u64,
    model: String,
}

impl Disk {
    /// What a path is, if it is a block device.
    fn examine(path: &Path) -> Result<Option<Self>> {
        let Ok(metadata) = fs::metadata(path) else { return Ok(None) };
        let kind = metadata.file_type();
        if kind.is_char_device() || kind.is_fifo() || kind.is_socket() {
            bail!("{} is neither a disk nor a file", path.display());
        }
        if !kind.is_block_device() {
            return Ok(None);
        }
        let number = format!("{}:{}", major(metadata.rdev()), minor(metadata.rdev()));
        let sys = fs::canonicalize(Path::new("/sys/dev/block").join(number))
            .into_diagnostic()
            .wrap_err_with(|| format!("the system knows nothing of {}", path.display()))?;
        // In units of 512 bytes, whatever the disk's own are (Linux block/genhd.c).
        let sectors: u64 = attribute(&sys, "size").parse().unwrap_or(0);
        let model = [attribute(&sys, "device/vendor"), attribute(&sys, "device/model")]
            .iter()
            .filter(|text| !text.is_empty())
            .cloned()
            .collect::<Vec<_>>()
            .join(" ");
        Ok(Some(Self { path: path.to_owned(), sys, bytes: sectors * 512, model }))
    }

    /// The disk's own number and those of its partitions.
    fn numbers(&self) -> Vec<String> {
        let mut numbers = vec![attribute(&self.sys, "dev")];
        for entry in fs::read_dir(&self.sys).into_iter().flatten().flatten() {
            if entry.path().join("partition").is_file() {
                numbers.push(attribute(&entry.path(), "dev"));
            }
        }
        numbers
    }

    fn refuse_if_used(&self) -> Result<()> {
        let name = self.path.display();
        if attribute(&self.sys, "ro") == "1" {
            bail!("{name} is write-protected");
        }
        let numbers = self.numbers();
        let mounts = fs::read_to_string("/proc/self/mountinfo").into_diagnostic()?;
        if let Some(place) = mounted_at(&mounts, &numbers) {
            bail!(help = format!("umount {place}"), "{name} is in use: it is mounted at {place}");
        }
        let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
        for area in swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next()) {
            if let Ok(metadata) = fs::metadata(area) {
                let number = format!("{}:{}", major(metadata.rdev()), minor(metadata.rdev()));
                if metadata.file_type().is_block_device() && numbers.contains(&number) {
                    bail!(help = format!("swapoff {area}"), "{name} is in use: {area} is swap");
                }
            }
        }
        for number in &numbers {
            let holders = Path::new("/sys/dev/block").join(number).join("holders");
            if let Some(holder) = fs::read_dir(holders).into_iter().flatten().flatten().next() {
                bail!("{name} is in use: it is part of {}", holder.file_name().display());
            }
        }
        Ok(())
    }

    fn refuse_if_small(&self, size: u64) -> Result<()> {
        if self.bytes < size {
            let (has, needs) = (show_size(self.bytes), show_size(size));
            bail!("{} has {has}, the image needs {needs}", self.path.display());
        }
        Ok(())
    }
}

/// One attribute of a device, without the padding that disks put around their names.
fn attribute(sys: &Path, name: &str) -> String {
    fs::read_to_string(sys.join(name)).unwrap_or_default().trim().to_owned()
}

/// Where one of the devices is mounted, if any is (`proc_pid_mountinfo(5)`: third and fifth field).
fn mounted_at(mounts: &str, numbers: &[String]) -> Option<String> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let number = fields.nth(2)?;
        let place = fields.nth(1)?;
        numbers.iter().any(|known| known == number).then(|| place.to_owned())
    })
}

fn confirmed(disk: &Disk) -> Result<bool> {
    let model = if disk.model.is_empty() { "unknown model" } else { &disk.model };
    // With nobody to read the question, there is nobody to answer it either.
    let _ = write!(
        io::stderr(),
        "Everything on {} ({model}, {}) will be lost. Type yes to go on: ",
        disk.path.display(),
        show_size(disk.bytes)
    );
    io::stderr().flush().into_diagnostic()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).into_diagnostic()?;
    Ok(answer.trim() == "yes")
}

/// Writes, waits until the disk has it, and reads it back.
fn write_verified(image: &Path, target: &Path, is_disk: bool) -> Result<()> {
    let cannot = |verb: &str| format!("cannot {verb} {}", target.display());
    let mut source = File::open(image).into_diagnostic()?;
    let size = source.metadata().into_diagnostic()?.len();
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    if is_disk {
        // The kernel refuses an exclusive open of a disk that anything uses (open(2)).
        options.custom_flags(rustix::fs::OFlags::EXCL.bits().cast_signed());
    } else {
        options.create(true).truncate(true);
    }
    let mut file = options.open(target).into_diagnostic().wrap_err_with(|| cannot("open"))?;

    let bar = say::bytes_bar(size, "writing");
    copy(&mut source, &mut file, &bar).into_diagnostic().wrap_err_with(|| cannot("write"))?;
    file.sync_all().into_diagnostic().wrap_err_with(|| cannot("write"))?;
    bar.finish_and_clear();

    // Without this, what is read back would come from memory and prove nothing.
    fadvise(&file, 0, None, Advice::DontNeed).into_diagnostic()?;
    file.seek(SeekFrom::Start(0)).into_diagnostic()?;
    source.seek(SeekFrom::Start(0)).into_diagnostic()?;
    let bar = say::bytes_bar(size, "verifying");
    let difference =
        compare(&mut source, &mut file, &bar).into_diagnostic().wrap_err_with(|| cannot("read"))?;
    bar.finish_and_clear();
    match difference {
        None => Ok(()),
        Some(at) => Err(miette!(
            help = "the disk is broken, or not as large as it says",
            "{} does not hold what was written: first difference at byte {at}",
            target.display()
        )),
    }
}

fn copy(source: &mut impl Read, target: &mut impl Write, bar: &ProgressBar) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    loop {
        let count = read_block(source, &mut block)?;
        if count == 0 {
            return Ok(());
        }
        target.write_all(&block[..count])?;
        bar.inc(count as u64);
    }
}

/// The first position at which the target differs from the source, which may be shorter.
fn compare(
    source: &mut impl Read,
    target: &mut impl Read,
    bar: &ProgressBar,
) -> io::Result<Option<u64>> {
    let (mut wanted, mut found) = (vec![0; BLOCK], vec![0; BLOCK]);
    let mut done = 0;
    loop {
        let count = read_block(source, &mut wanted)?;
        if count == 0 {
            return Ok(None);
        }
        let got = read_block(target, &mut found[..count])?;
        let same = wanted.iter().zip(&found[..got]).take_while(|(a, b)| a == b).count();
        if same < count {
            return Ok(Some(done + same as u64));
        }
        done += count as u64;
        bar.inc(count as u64);
    }
}

fn read_block(source: &mut impl Read, block: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match source.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mounted_partition_counts_as_the_disk() {
        let mounts = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw\n\
                      37 35 8:2 / /home rw shared:2 - ext4 /dev/sda2 rw\n";
        let numbers = |list: &[&str]| list.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
        assert_eq!(mounted_at(mounts, &numbers(&["8:0", "8:2"])), Some("/home".into()));
        assert_eq!(mounted_at(mounts, &numbers(&["98:0"])), Some("/mnt2".into()));
        assert_eq!(mounted_at(mounts, &numbers(&["8:1", "9:8", "35:0"])), None);
    }

    #[test]
    fn differences_are_found_wherever_they_are() {
        let bar = ProgressBar::hidden();
        let mut target = vec![5; 3 * BLOCK];
        let source = vec![5; 2 * BLOCK + 7];
        let check = |target: &[u8]| compare(&mut source.as_slice(), &mut &target[..], &bar);
        assert_eq!(check(&target).unwrap(), None);
        for at in [0, BLOCK - 1, BLOCK, 2 * BLOCK + 6] {
            target[at] = 6;
            assert_eq!(check(&target).unwrap(), Some(at as u64));
            target[at] = 5;
        }
        assert_eq!(check(&target[..BLOCK + 3]).unwrap(), Some(BLOCK as u64 + 3));
    }

    #[test]
    fn a_file_is_written_and_verified_and_a_longer_one_is_cut() {
        let folder = std::env::temp_dir().join(format!("ferrite-flash-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (image, target) = (folder.join("image"), folder.join("target"));
        let content: Vec<u8> = (0..BLOCK + 999).map(|n| (n % 251) as u8).collect();
        fs::write(&image, &content).unwrap();
        fs::write(&target, vec![1; 3 * BLOCK]).unwrap();
        write_verified(&image, &target, false).unwrap();
        assert_eq!(fs::read(&target).unwrap(), content);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_is_no_disk_is_told_apart() {
        assert!(Disk::examine(Path::new("/dev/null")).is_err());
        assert!(Disk::examine(Path::new("/nowhere/at/all")).unwrap().is_none());
        assert!(Disk::examine(Path::new("/proc/mounts")).unwrap().is_none());
    }
}
