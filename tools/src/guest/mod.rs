//! What guests are made of: kernels and initial RAM disks, by the words a manifest uses.

mod busybox;
mod cpio;

use std::path::{Path, PathBuf};

use miette::Result;

use crate::files;
use crate::workspace::Workspace;

/// The word for Debian's unmodified kernel.
const DEBIAN_KERNEL: &str = "debian:cloud";
/// The word for the RAM disk that is made of busybox.
const BUSYBOX: &str = "busybox";

/// A file that a guest gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A file as it is.
    File(PathBuf),
    /// The RAM disk with busybox, made anew.
    Busybox,
}

/// What a manifest means by a kernel.
pub fn kernel(workspace: &Workspace, folder: &Path, word: &str) -> Content {
    Content::File(match word {
        DEBIAN_KERNEL => workspace.tools.join("linux/boot/vmlinuz"),
        path => folder.join(path),
    })
}

/// What a manifest means by an initial RAM disk.
pub fn initrd(folder: &Path, word: &str) -> Content {
    match word {
        BUSYBOX => Content::Busybox,
        path => Content::File(folder.join(path)),
    }
}

impl Content {
    /// The file that must exist for this, if it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Busybox => None,
        }
    }

    /// A name for people: the VMM's errors use it.
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => {
                // The Debian kernel is reached through a link; its own name says the version.
                let real = path.canonicalize().unwrap_or_else(|_| path.clone());
                real.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
            }
            Self::Busybox => "busybox.cpio".into(),
        }
    }

    /// Its bytes.
    pub fn load(&self, workspace: &Workspace) -> Result<Vec<u8>> {
        match self {
            Self::File(path) => files::read(path),
            Self::Busybox => busybox::ram_disk(&workspace.tools.join("busybox/bin/busybox")),
        }
    }
}
