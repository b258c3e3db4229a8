//! To bytes and back. Decoding never panics: bytes that are not a sound description are an error.

use alloc::vec::Vec;
use core::fmt;

use crate::{Invalid, System};

/// The first byte of an encoding; changes with the types.
pub const VERSION: u8 = 3;

/// Why bytes are not a system description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// There are none.
    Empty,
    /// The version byte is this, not [`VERSION`]: the builder and the root task are of different
    /// ages.
    Version(u8),
    /// Cut short, or not an encoding at all.
    Malformed,
    /// This many bytes are left over.
    Trailing(usize),
    /// Well-formed, but breaks a rule.
    Invalid(Invalid),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "the system description is empty"),
            Self::Version(found) => {
                write!(f, "the system description has version {found}, not {VERSION}")
            }
            Self::Malformed => write!(f, "the system description is damaged"),
            Self::Trailing(count) => {
                write!(f, "the system description is followed by {count} stray bytes")
            }
            Self::Invalid(invalid) => write!(f, "{invalid}"),
        }
    }
}

/// The bytes of a description.
///
/// # Errors
/// The rule that it breaks: nothing unsound is ever encoded.
pub fn encode(system: &System) -> Result<Vec<u8>, Invalid> {
    system.check()?;
    let bytes = Vec::from([VERSION]);
    // Writing to a growing vector cannot run out of room, and every type here has a fixed shape:
    // the serializer has nothing left to fail with.
    Ok(postcard::to_extend(system, bytes).unwrap_or_default())
}

/// The description that the bytes encode: all of them, and a sound one.
///
/// # Errors
/// Says what is wrong with the bytes.
pub fn decode(bytes: &[u8]) -> Result<System, DecodeError> {
    let (&version, body) = bytes.split_first().ok_or(DecodeError::Empty)?;
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    let (system, rest): (System, _) =
        postcard::take_from_bytes(body).map_err(|_| DecodeError::Malformed)?;
    if !rest.is_empty() {
        return Err(DecodeError::Trailing(rest.len()));
    }
    system.check().map_err(DecodeError::Invalid)?;
    Ok(system)
}
