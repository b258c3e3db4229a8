//! Archives in the "new ASCII" cpio format, which the Linux kernel unpacks as its initial RAM disk
//! (Linux `Documentation/driver-api/early-userspace/buffer-format.rst`).

/// An archive in the making. Files belong to root and have no date, so that the same content makes
/// the same bytes.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const FOLDER: u32 = 0o040_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

impl Archive {
    /// A folder that everybody may enter.
    pub fn folder(&mut self, path: &str) {
        self.entry(path, FOLDER | 0o755, (0, 0), &[]);
    }

    /// A file with its permission bits.
    pub fn file(&mut self, path: &str, permissions: u32, content: &[u8]) {
        self.entry(path, FILE | permissions, (0, 0), content);
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, to: &str) {
        self.entry(path, LINK | 0o777, (0, 0), to.as_bytes());
    }

    /// A character device, by its major and minor number.
    pub fn character_device(&mut self, path: &str, permissions: u32, number: (u32, u32)) {
        self.entry(path, CHARACTER_DEVICE | permissions, number, &[]);
    }

    /// The finished archive.
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let links = 1 + u32::from(mode & FOLDER != 0 && mode & FILE == 0);
        let fields = [
            self.entries,
            mode,
            0,
            0,
            links,
            0,
            content.len() as u32,
            0,
            0,
            device.0,
            device.1,
            path.len() as u32 + 1,
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::busybox::tests::busybox;
    use std::io::Write;
    use std::process::{Command, Stdio};

    // The oracle is busybox's own reader.
    #[test]
    fn another_implementation_reads_it() {
        let mut archive = Archive::default();
        archive.folder("etc");
        archive.file("etc/odd", 0o640, b"12345");
        archive.file("run", 0o755, &[7; 1000]);
        archive.link("here", "etc/odd");
        archive.character_device("console", 0o600, (5, 1));
        let bytes = archive.into_bytes();
        let mut reader = Command::new(busybox())
            .args(["cpio", "-tv"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        reader.stdin.take().unwrap().write_all(&bytes).unwrap();
        let output = reader.wait_with_output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        let pick: Vec<_> = lines.iter().map(|l| (l[0], l[2], l[l.len() - 1])).collect();
        assert_eq!(
            pick,
            [
                ("drwxr-xr-x", "0", "etc"),
                ("-rw-r-----", "5", "etc/odd"),
                ("-rwxr-xr-x", "1000", "run"),
                ("lrwxrwxrwx", "0", "etc/odd"),
                ("crw-------", "0", "console"),
            ]
        );
    }
}
