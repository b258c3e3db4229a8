//! Where a system test runs: an emulator, and a processor model of it.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

use crate::machine::{Extension, Platform};

/// A platform of the table, written as `bochs corei7_skylake_x`. The host's KVM is none: a test
/// must mean the same everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The emulator.
    pub platform: Platform,
    /// The processor model, in the emulator's words.
    pub cpu: String,
    extension: Extension,
}

impl Place {
    /// Where a test runs that does not say.
    pub fn usual() -> Vec<Self> {
        [Platform::Bochs, Platform::QemuTcg]
            .iter()
            .filter_map(|platform| Self::new(*platform, platform.default_cpu()))
            .collect()
    }

    fn new(platform: Platform, cpu: &str) -> Option<Self> {
        let extension = platform.extension()?;
        Some(Self { platform, cpu: cpu.to_owned(), extension })
    }

    fn parse(text: &str) -> Option<Self> {
        let (platform, cpu) = text.split_once(' ')?;
        let platform = [Platform::Bochs, Platform::QemuTcg]
            .into_iter()
            .find(|known| known.name() == platform)?;
        let sound = !cpu.is_empty() && !cpu.contains(char::is_whitespace);
        sound.then(|| Self::new(platform, cpu))?
    }

    /// A name for files.
    pub fn file_name(&self) -> String {
        let name = format!("{}.{}", self.platform.name(), self.cpu);
        name.replace(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c), "_")
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.extension.name(), self.platform.name(), self.cpu)
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            let example = "write `bochs MODEL` or `qemu-tcg MODEL`";
            de::Error::custom(format!("{text:?} is not a platform for tests: {example}"))
        })
    }
}

/// Whether every extension has a place among these.
pub fn both_extensions(places: &[Place]) -> bool {
    let has = |extension| places.iter().any(|place| place.extension == extension);
    has(Extension::VtX) && has(Extension::AmdV)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_platform_and_a_model() {
        let place = Place::parse("qemu-tcg max,-svm").unwrap();
        assert_eq!((place.platform, place.cpu.as_str()), (Platform::QemuTcg, "max,-svm"));
        assert_eq!(place.to_string(), "AMD-V: qemu-tcg max,-svm");
        assert_eq!(place.file_name(), "qemu-tcg.max_-svm");
        for bad in ["", "bochs", "bochs ", "vax 780", "qemu-kvm host", "bochs a b"] {
            assert_eq!(Place::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_test_usually_runs_on_both_extensions() {
        assert!(both_extensions(&Place::usual()));
        assert!(!both_extensions(&Place::usual()[..1]));
        assert!(!both_extensions(&Place::usual()[1..]));
    }
}
