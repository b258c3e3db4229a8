//! What an emulator says, on disk, and never too much of it: a guest that does something wrong
//! without end makes an emulator complain without end.
//!
//! When the log is full it is set aside and begins anew. The first part is kept, because that is
//! where trouble starts; of the later parts, the last two.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

/// Bytes in one file.
const FULL: u64 = 16 << 20;

/// Writes all that comes, until the other end is closed.
///
/// # Errors
/// When the file cannot be made.
pub fn keep(mut said: impl Read + Send + 'static, path: PathBuf) -> io::Result<JoinHandle<()>> {
    let mut log = Log::new(path, FULL)?;
    Ok(thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = said.read(&mut buffer) {
            // With a full disk the log ends, but what is said must go on being read.
            let _ = log.add(&buffer[..count]);
        }
    }))
}

struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    full: u64,
}

impl Log {
    fn new(path: PathBuf, full: u64) -> io::Result<Self> {
        Ok(Self { file: File::create(&path)?, path, size: 0, full })
    }

    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.size >= self.full {
            let first = beside(&self.path, "first");
            let aside = if first.exists() { beside(&self.path, "before") } else { first };
            fs::rename(&self.path, aside)?;
            self.file = File::create(&self.path)?;
            self.size = 0;
        }
        self.size += bytes.len() as u64;
        self.file.write_all(bytes)
    }
}

fn beside(path: &Path, name: &str) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".");
    beside.push(name);
    beside.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_and_the_end_are_kept_and_the_rest_is_not() {
        let folder = std::env::temp_dir().join(format!("ferrite-log-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("log");
        let mut log = Log::new(path.clone(), 100).unwrap();
        for number in 0..1000 {
            log.add(format!("{number:9}\n").as_bytes()).unwrap();
        }
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        assert!(read(&beside(&path, "first")).starts_with("        0\n"));
        assert!(read(&path).ends_with("      999\n"));
        let joined = read(&beside(&path, "before")) + &read(&path);
        let first: usize = joined.lines().next().unwrap().trim().parse().unwrap();
        assert_eq!(joined.lines().count(), 1000 - first, "nothing is missing at the end");
        let total: u64 = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(total <= 3 * 110, "{total}");
        fs::remove_dir_all(folder).unwrap();
    }
}
