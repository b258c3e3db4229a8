//! Debugging the hypervisor in QEMU with gdb.

mod remote;

use std::net::SocketAddr;
use std::path::Path;

use miette::{Result, miette};

pub use remote::Remote;

/// What gdb needs to know of a system.
#[derive(Debug, Clone, Copy)]
pub struct Symbols<'a> {
    /// The hypervisor, linked where it runs.
    pub hypervisor: &'a Path,
    /// Its first instruction.
    pub entry: u64,
    /// The loader, also linked where it runs.
    pub loader: &'a Path,
}

/// A file of gdb commands: the symbols, the connection, and a breakpoint at the hypervisor's first
/// instruction. It is a hardware breakpoint, because at first there is no memory at that address
/// for an instruction to be replaced in.
pub fn script(symbols: Symbols<'_>, stub: SocketAddr) -> String {
    let Symbols { hypervisor, entry, loader } = symbols;
    format!(
        "\
# Written by scripts/run --gdb.
set architecture i386:x86-64
set confirm off
file {}
add-symbol-file {}
set confirm on
target remote {stub}
hbreak *{entry:#x}
echo \\nThe machine waits before its first instruction. \\
`continue` runs it to the hypervisor's entry point.\\n\\
Use hbreak for what is not in memory yet.\\n
",
        quoted(hypervisor),
        quoted(loader),
    )
}

/// A path as a word of gdb's.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The entry point of a 64-bit ELF file (ELF-64 object file format, version 1.5, 3: `e_entry`).
///
/// # Errors
/// When it is no such file.
pub fn entry_point(elf: &[u8]) -> Result<u64> {
    elf.get(24..32)
        .filter(|_| elf.starts_with(b"\x7fELF\x02\x01"))
        .and_then(|bytes| bytes.try_into().ok())
        .map(u64::from_le_bytes)
        .ok_or_else(|| miette!("not a 64-bit ELF file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_knows_symbols_address_and_entry() {
        let symbols = Symbols {
            hypervisor: Path::new("/a b/hypervisor"),
            entry: 0xffff_ffff_8001_1f5f,
            loader: Path::new("/a b/boot"),
        };
        let script = script(symbols, ([127, 0, 0, 1], 4711).into());
        let lines: Vec<&str> = script.lines().collect();
        let place = |line: &str| lines.iter().position(|other| *other == line).expect(line);
        let file = place("file \"/a b/hypervisor\"");
        let remote = place("target remote 127.0.0.1:4711");
        assert!(file < place("add-symbol-file \"/a b/boot\""));
        assert!(file < remote && remote < place("hbreak *0xffffffff80011f5f"));
    }

    #[test]
    fn the_entry_point_is_in_the_header() {
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(24, 0);
        assert!(entry_point(&elf).is_err());
        elf.extend(0x1234_5678_u64.to_le_bytes());
        assert_eq!(entry_point(&elf).unwrap(), 0x1234_5678);
        elf[4] = 1;
        assert!(entry_point(&elf).is_err());
    }
}
