//! Inputs that earlier campaigns found worth keeping.
//!
//! The file `corpus/TARGET` holds those of a target, each as a length of 32 bits, little-endian, and
//! so many bytes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::targets::Target;

fn path(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}

/// The stored inputs of a target; one without a file has none.
///
/// # Errors
/// When the file cannot be read, or is cut off.
pub fn read(target: &Target) -> io::Result<Vec<Vec<u8>>> {
    match fs::read(path(target)) {
        Ok(bytes) => unpack(&bytes).ok_or_else(|| io::Error::other("the file is cut off")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Replaces the stored inputs of a target.
///
/// # Errors
/// When the file cannot be written.
pub fn write(target: &Target, inputs: &[Vec<u8>]) -> io::Result<()> {
    fs::write(path(target), pack(inputs))
}

fn pack(inputs: &[Vec<u8>]) -> Vec<u8> {
    inputs
        .iter()
        .flat_map(|input| [&(input.len() as u32).to_le_bytes(), &**input].concat())
        .collect()
}

fn unpack(mut bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut inputs = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (input, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        inputs.push(input.to_vec());
        bytes = rest;
    }
    bytes.is_empty().then_some(inputs)
}

/// A file name that depends on nothing but the content (FNV-1a, 64 bits).
pub fn name(input: &[u8]) -> String {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    format!("{:016x}", input.iter().fold(0xcbf2_9ce4_8422_2325, mix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::TARGETS;

    #[test]
    fn packing_is_undone() {
        let inputs = vec![b"one".to_vec(), vec![], vec![0; 300]];
        let bytes = pack(&inputs);
        assert_eq!(unpack(&bytes), Some(inputs));
        assert_eq!(unpack(&bytes[..bytes.len() - 1]), None);
        assert_eq!(unpack(&bytes[..2]), None);
    }

    #[test]
    fn names_tell_contents_apart() {
        assert_eq!(name(b""), "cbf29ce484222325");
        assert_eq!(name(b"a"), "af63dc4c8601ec8c");
    }

    /// What is stored is a regression test: it costs nothing to run it everywhere.
    #[test]
    fn stored_inputs_are_survived_and_few() {
        let mut total = 0;
        for target in TARGETS {
            for input in read(target).unwrap() {
                assert!(input.len() <= target.longest, "{}/{}", target.name, name(&input));
                (target.run)(&input);
                total += input.len();
            }
        }
        assert!(total < 300 << 10, "{total} bytes of corpus");
    }
}
