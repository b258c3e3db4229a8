//! Sizes and times as people write them.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

/// Bytes from a number with an optional binary suffix: `4096`, `512K`, `256M`, `2G`, `256MiB`.
///
/// # Errors
/// What is wrong with it, for people.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, suffix) = split_number(text);
    let shift = match suffix {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        _ => return Err(format!("{text:?} is not a size such as 512K, 256M or 2G")),
    };
    let number: u64 =
        number.parse().map_err(|_| format!("{text:?} is not a size such as 512K, 256M or 2G"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} is too large"))
}

/// Microseconds from a number with a unit: `500us`, `10ms`, `1s`.
///
/// # Errors
/// What is wrong with it, for people.
pub fn parse_microseconds(text: &str) -> Result<u64, String> {
    let (number, suffix) = split_number(text);
    let unit: u64 = match suffix {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        _ => return Err(format!("{text:?} is not a time such as 500us, 10ms or 1s")),
    };
    let number: u64 =
        number.parse().map_err(|_| format!("{text:?} is not a time such as 500us, 10ms or 1s"))?;
    number.checked_mul(unit).ok_or_else(|| format!("{text:?} is too long"))
}

/// First and last of a range of ports: `0x40-0x43`, or one port alone.
///
/// # Errors
/// What is wrong with it, for people.
pub fn parse_ports(text: &str) -> Result<(u16, u16), String> {
    let number = |text: &str| match text.strip_prefix("0x") {
        _ if text.contains('+') => None,
        Some(digits) => u16::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (number(first.trim()), number(last.trim())) {
        (Some(first), Some(last)) if first <= last => Ok((first, last)),
        _ => Err(format!("{text:?} is not a range of ports such as 0x40-0x43")),
    }
}

/// A time from seconds, with or without a fraction.
///
/// # Errors
/// What is wrong with it, for people.
pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("{text:?} is not a number of seconds"))
}

/// Bytes for people: the largest binary unit that leaves a whole number, else one decimal.
pub fn show_size(bytes: u64) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >= 1 << shift {
            return if bytes.is_multiple_of(1 << shift) {
                format!("{} {unit}", bytes >> shift)
            } else {
                format!("{:.1} {unit}", bytes as f64 / (1u64 << shift) as f64)
            };
        }
    }
    format!("{bytes} bytes")
}

fn split_number(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    (number, suffix.trim_start())
}

/// A size in a manifest: text with a unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size(pub u64);

/// A time in a manifest: text with a unit; microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Microseconds(pub u64);

/// Ports in a manifest: text; the first and the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange(pub u16, pub u16);

struct Text<T>(fn(&str) -> Result<T, String>, &'static str);

impl<T> de::Visitor<'_> for Text<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text(parse_size, "a size such as \"256M\"")).map(Size)
    }
}

impl<'de> Deserialize<'de> for Microseconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_str(Text(parse_microseconds, "a time such as \"10ms\""))
            .map(Microseconds)
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_str(Text(parse_ports, "a range of ports such as \"0x40-0x43\""))
            .map(|(first, last)| Self(first, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("256M"), Ok(256 << 20));
        assert_eq!(parse_size("2 GiB"), Ok(2 << 30));
        for bad in ["", "M", "1.5G", "-1M", "1T", "99999999999999999999", "99999999999G"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports() {
        assert_eq!(parse_ports("0x40-0x43"), Ok((0x40, 0x43)));
        assert_eq!(parse_ports("97"), Ok((97, 97)));
        assert_eq!(parse_ports("0 - 65535"), Ok((0, 65535)));
        for bad in ["", "-", "0x", "1-", "-1", "2-1", "65536", "0x10000", "+5", "0x+4", "1-2-3"] {
            assert!(parse_ports(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(parse_microseconds("500us"), Ok(500));
        assert_eq!(parse_microseconds("10ms"), Ok(10_000));
        assert_eq!(parse_microseconds("1s"), Ok(1_000_000));
        for bad in ["", "10", "ms", "1m", "99999999999999999s"] {
            assert!(parse_microseconds(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_seconds("0.25"), Ok(Duration::from_millis(250)));
        for bad in ["", "x", "-1", "inf", "nan"] {
            assert!(parse_seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_for_people() {
        assert_eq!(show_size(17), "17 bytes");
        assert_eq!(show_size(1 << 30), "1 GiB");
        assert_eq!(show_size(3 << 19), "1.5 MiB");
    }
}
