//! Why the loader cannot go on, in words for the person in front of the machine.

use core::fmt;

/// A reason to stop. `Display` gives one line: what is wrong, and what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The boot protocol's structures contradict themselves; the text names the structure.
    BadHandoff(&'static str),
    /// The boot protocol passed no memory map.
    NoMemoryMap,
    /// More memory map entries than [`crate::handoff::MAX_MEMORY_ENTRIES`].
    MemoryMapTooLong,
    /// Neither a module nor a bundle entry is the hypervisor.
    NoKernel,
    /// The bundle is damaged; the text names the defect.
    BadBundle(&'static str),
    /// The hypervisor's ELF file cannot be loaded; the text names the defect.
    BadKernel(&'static str),
    /// No free stretch of RAM below 4 GiB holds the kernel and its tables.
    OutOfMemory {
        /// The bytes asked for, in one piece.
        bytes: u64,
    },
    /// The CPU (or its firmware set-up) offers no execute-disable bit.
    NoExecuteDisable,
    /// A page was to be mapped where another one is.
    AlreadyMapped,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadHandoff(what) => {
                write!(f, "the boot information is damaged ({what}); boot with GRUB 2 or QEMU")
            }
            Self::NoMemoryMap => {
                write!(f, "the boot information has no memory map; boot with GRUB 2 or QEMU")
            }
            Self::MemoryMapTooLong => {
                write!(f, "the firmware's memory map has too many entries; report this machine")
            }
            Self::NoKernel => write!(
                f,
                "no hypervisor was loaded; add `module2 FILE hypervisor`, or a bundle that has it"
            ),
            Self::BadBundle(what) => write!(f, "the bundle {what}; build the image again"),
            Self::BadKernel(what) => write!(f, "the hypervisor file {what}; build it again"),
            Self::OutOfMemory { bytes } => write!(
                f,
                "no {} KiB of free memory in one piece below 4 GiB; give the machine more memory",
                bytes.div_ceil(1024)
            ),
            Self::NoExecuteDisable => write!(
                f,
                "the processor has no execute-disable (NX) bit; enable it in the firmware set-up"
            ),
            Self::AlreadyMapped => {
                write!(f, "two parts of the hypervisor want the same page; link it again")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_fits_one_screen_line_pair() {
        let all = [
            Error::BadHandoff("a Multiboot2 tag reaches past the end"),
            Error::NoMemoryMap,
            Error::MemoryMapTooLong,
            Error::NoKernel,
            Error::BadBundle("has an entry that reaches past its end"),
            Error::BadKernel("has a segment that is writable and executable"),
            Error::OutOfMemory { bytes: 1 },
            Error::NoExecuteDisable,
            Error::AlreadyMapped,
        ];
        for error in all {
            let text = error.to_string();
            assert!(!text.contains('\n') && text.len() < 130, "{text}");
            assert!(text.contains(';'), "says what to do: {text}");
        }
        assert!(Error::OutOfMemory { bytes: 1025 }.to_string().contains("2 KiB"));
    }
}
