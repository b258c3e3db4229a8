//! The table of system tests, `tests/system.toml`: its own head says how it is written.

use std::path::PathBuf;

use miette::{LabeledSpan, NamedSource, Result, miette};
use regex::bytes::Regex;
use serde::{Deserialize, Deserializer};

use crate::cli::Firmware;
use crate::files;
use crate::machine::{Pace, Platform, Specification};
use crate::units::Size;
use crate::workspace::Workspace;

/// One system test.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemTest {
    /// Unique.
    pub name: String,
    /// The system, from the root of the checkout.
    pub manifest: PathBuf,
    #[serde(default = "bochs")]
    platform: Platform,
    cpu: Option<String>,
    #[serde(default = "one")]
    cpus: u32,
    #[serde(default = "a_gigabyte")]
    memory: Size,
    #[serde(default)]
    firmware: Firmware,
    #[serde(default)]
    direct: bool,
    /// Seconds of wall time for all of it.
    pub timeout: u64,
    /// What fails the test as soon as it appears.
    #[serde(default, deserialize_with = "optional_regex")]
    pub forbid: Option<Regex>,
    /// What happens, in order.
    pub steps: Vec<Step>,
}

/// One step of a test.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Step {
    /// Wait until the console matches.
    #[serde(deserialize_with = "regex")]
    Expect(Regex),
    /// Type.
    Send(String),
    /// Type so many bytes of text in lines, always the same for the same number.
    Paste(usize),
    /// Wait until the MD5 sum of the last paste appears.
    Md5,
    /// Wait until the machine has stopped by itself.
    End,
}

fn bochs() -> Platform {
    Platform::Bochs
}

fn one() -> u32 {
    1
}

fn a_gigabyte() -> Size {
    Size(1 << 30)
}

fn regex<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Regex, D::Error> {
    let text = String::deserialize(deserializer)?;
    // Tests look for words in lines: ^ and $ are ends of lines.
    Regex::new(&format!("(?m){text}")).map_err(serde::de::Error::custom)
}

fn optional_regex<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<Regex>, D::Error> {
    regex(deserializer).map(Some)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    test: Vec<SystemTest>,
}

/// The table of the checkout.
///
/// # Errors
/// What is wrong with it, and where.
pub fn read(workspace: &Workspace) -> Result<Vec<SystemTest>> {
    let path = workspace.root.join("tests/system.toml");
    parse(&workspace.short(&path), files::read_text(&path)?)
}

fn parse(title: &str, text: String) -> Result<Vec<SystemTest>> {
    let table: Table = match toml::from_str(&text) {
        Ok(table) => table,
        Err(error) => {
            let label = LabeledSpan::at(error.span().unwrap_or(0..0), "here");
            let message = error.message().to_owned();
            return Err(miette!(labels = vec![label], "{message}")
                .with_source_code(NamedSource::new(title, text)));
        }
    };
    for (index, test) in table.test.iter().enumerate() {
        if table.test[..index].iter().any(|earlier| earlier.name == test.name) {
            return Err(miette!("{title}: two tests named {:?}", test.name));
        }
        if !test.steps.iter().any(|step| matches!(step, Step::Expect(_) | Step::Md5)) {
            return Err(miette!("{title}: {:?} expects nothing, so it cannot fail", test.name));
        }
        test.specification().check()?;
    }
    Ok(table.test)
}

impl SystemTest {
    /// The machine it runs on.
    pub fn specification(&self) -> Specification {
        Specification {
            platform: self.platform,
            cpu: self.cpu.clone(),
            cpus: self.cpus,
            memory: self.memory.0,
            firmware: self.firmware,
            direct: self.direct,
            pace: Pace::Fast,
        }
    }
}

/// Text of exactly `length` bytes for a paste: lines of letters and digits, none alike.
pub fn paste_text(length: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(length + 72);
    let mut state: u32 = 1;
    while text.len() < length {
        for _ in 0..63 {
            // A linear congruential generator will do: the text only has to differ from itself.
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let digit = (state >> 24) % 36;
            text.push(char::from_digit(digit, 36).map_or(b'0', |digit| digit as u8));
        }
        text.push(b'\n');
    }
    text.truncate(length);
    if let Some(last) = text.last_mut() {
        // A line that is not finished would wait in the guest's line editor.
        *last = b'\n';
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        [[test]]
        name = "a"
        manifest = "guests/demo.toml"
        cpu = "corei5_arrandale_m520"
        timeout = 10
        forbid = "panic"
        steps = [
            { expect = "^ferrite# $" },
            { send = "poweroff\n" },
            { paste = 65536 },
            "md5",
            "end",
        ]
    "#;

    #[test]
    fn a_test_has_its_machine_and_its_steps() {
        let tests = parse("t", GOOD.to_owned()).unwrap();
        let [test] = tests.as_slice() else { panic!("not one") };
        let specification = test.specification();
        assert_eq!(specification.platform, Platform::Bochs);
        assert_eq!(specification.cpu.as_deref(), Some("corei5_arrandale_m520"));
        assert_eq!(specification.memory, 1 << 30);
        let [Step::Expect(prompt), Step::Send(text), Step::Paste(65536), Step::Md5, _] =
            test.steps.as_slice()
        else {
            panic!("other steps")
        };
        assert!(prompt.is_match(b"banner\nferrite# "));
        assert_eq!(text, "poweroff\n");
        assert!(test.forbid.as_ref().unwrap().is_match(b"kernel panic"));
    }

    #[test]
    fn mistakes_are_found() {
        for (from, to, expected) in [
            ("timeout = 10", "", "missing field `timeout`"),
            ("timeout = 10", "timeout = 10\nspeed = 1", "unknown field `speed`"),
            ("expect = \"^ferrite# $\"", "expect = \"[\"", "regex parse error"),
            ("\"end\"", "\"finish\"", "unknown variant"),
            ("cpu =", "firmware = \"uefi\"\ncpu =", "Bochs has no UEFI"),
            ("{ expect = \"^ferrite# $\" },", "", ""),
        ] {
            let mut text = GOOD.replace(from, to);
            if expected.is_empty() {
                text = text.replace("\"md5\",", "");
            }
            let report = parse("t", text).expect_err(to).to_string();
            assert!(report.contains(expected), "{report}");
        }
        assert!(parse("t", GOOD.repeat(2)).is_err());
    }

    #[test]
    fn paste_text_is_made_of_whole_lines() {
        for length in [1, 64, 100, 65536] {
            let text = paste_text(length);
            assert_eq!((text.len(), text.last()), (length, Some(&b'\n')));
            assert!(text.split(|&byte| byte == b'\n').all(|line| line.len() < 80));
        }
        let text = paste_text(65536);
        let mut lines: Vec<_> = text.split(|&byte| byte == b'\n').collect();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), 1024 + 1);
    }
}
