//! Writing the boot bundle, the flat archive that the loader hands to the kernel and the root
//! task. Its format is specified in `abi::bundle`.

use abi::bundle::MAGIC;
use miette::{Result, bail};

const HEADER: usize = 16;
const ENTRY: usize = 64;
const NAME: usize = 40;
const ALIGNMENT: usize = 4096;

/// The longest name an entry can have; one byte of the field is left for the final NUL.
pub const LONGEST_NAME: usize = NAME - 1;

/// A bundle in the making.
#[derive(Debug, Default)]
pub struct Bundle {
    entries: Vec<(String, Vec<u8>)>,
}

impl Bundle {
    /// Appends an entry.
    ///
    /// # Errors
    /// When the name is empty, taken, too long, or not printable ASCII.
    pub fn add(&mut self, name: &str, content: Vec<u8>) -> Result<()> {
        if name.is_empty() || name.len() > LONGEST_NAME {
            bail!("{name:?} cannot name a bundle entry: 1 to {LONGEST_NAME} bytes");
        }
        if !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            bail!("{name:?} cannot name a bundle entry: only printable ASCII");
        }
        if self.entries.iter().any(|(taken, _)| taken == name) {
            bail!("two bundle entries named {name:?}");
        }
        self.entries.push((name.to_owned(), content));
        Ok(())
    }

    /// The finished archive.
    pub fn into_bytes(self) -> Vec<u8> {
        let mut offset = align(HEADER + ENTRY * self.entries.len());
        let mut bytes = Vec::new();
        bytes.extend(MAGIC);
        bytes.extend((self.entries.len() as u32).to_le_bytes());
        bytes.extend(0u32.to_le_bytes());
        for (name, content) in &self.entries {
            let mut field = [0; NAME];
            field[..name.len()].copy_from_slice(name.as_bytes());
            bytes.extend(field);
            bytes.extend((offset as u64).to_le_bytes());
            bytes.extend((content.len() as u64).to_le_bytes());
            bytes.extend(0u64.to_le_bytes());
            offset = align(offset + content.len());
        }
        for (_, content) in &self.entries {
            bytes.resize(align(bytes.len()), 0);
            bytes.extend(content);
        }
        bytes.resize(align(bytes.len()), 0);
        bytes
    }
}

fn align(offset: usize) -> usize {
    offset.next_multiple_of(ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        // The reader is the one the kernel and the root task use.
        #[test]
        fn the_reader_finds_every_entry(
            contents in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9000), 0..6)
        ) {
            let mut bundle = Bundle::default();
            for (index, content) in contents.iter().enumerate() {
                bundle.add(&format!("entry-{index}"), content.clone()).unwrap();
            }
            let bytes = bundle.into_bytes();
            prop_assert_eq!(bytes.len() % 4096, 0);
            let parsed = abi::bundle::Bundle::parse(&bytes).unwrap();
            for (index, content) in contents.iter().enumerate() {
                let entry = parsed.find(&format!("entry-{index}")).unwrap();
                prop_assert_eq!(entry.data, content.as_slice());
                prop_assert_eq!(entry.offset % 4096, 0);
            }
        }
    }

    #[test]
    fn names_must_fit_and_differ() {
        let mut bundle = Bundle::default();
        bundle.add("root", vec![1]).unwrap();
        bundle.add(&"x".repeat(LONGEST_NAME), vec![]).unwrap();
        for bad in ["", "root", "a b", "grün", &"x".repeat(LONGEST_NAME + 1)] {
            assert!(bundle.add(bad, vec![]).is_err(), "{bad}");
        }
    }
}
