//! The table of system tests, `tests/system.toml`: its own head says how it is written.

use std::path::PathBuf;

use miette::{LabeledSpan, NamedSource, Result, bail, miette};
use regex::bytes::Regex;
use serde::{Deserialize, Deserializer};

use super::place::{Place, both_extensions};
use crate::cli::Firmware;
use crate::files;
use crate::machine::{Pace, Specification};
use crate::units::Size;
use crate::workspace::Workspace;

/// One system test, and where it runs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemTest {
    name: String,
    /// The system, from the root of the checkout.
    pub manifest: PathBuf,
    #[serde(default = "Place::usual")]
    platforms: Vec<Place>,
    reason: Option<String>,
    #[serde(default = "one")]
    cpus: u32,
    #[serde(default = "a_gigabyte")]
    memory: Size,
    #[serde(default)]
    firmware: Firmware,
    #[serde(default)]
    direct: bool,
    #[serde(default)]
    gdb: bool,
    /// Seconds of wall time for all of it.
    pub timeout: u64,
    /// What fails the test as soon as it appears.
    #[serde(default, deserialize_with = "optional_regex")]
    pub forbid: Option<Regex>,
    /// What happens, in order.
    pub steps: Vec<Step>,
}

/// A test in one of its places.
#[derive(Clone, Debug)]
pub struct Run {
    /// The name of the test, and where it runs: unique.
    pub name: String,
    /// A name for its files.
    pub folder: String,
    /// The test.
    pub test: SystemTest,
    /// The machine it runs on.
    pub specification: Specification,
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
    /// So many NMIs, one after the other.
    Nmi(usize),
    /// A machine check.
    #[serde(rename = "machine-check")]
    MachineCheck,
    /// Through gdb's protocol: run to the hypervisor's first instruction, stop there, and go on.
    #[serde(rename = "break-at-entry")]
    BreakAtEntry,
    /// Wait until the machine has stopped by itself.
    End,
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

/// The table of the checkout: each test once for each place it runs in.
///
/// # Errors
/// What is wrong with it, and where.
pub fn read(workspace: &Workspace) -> Result<Vec<Run>> {
    let path = workspace.root.join("tests/system.toml");
    parse(&workspace.short(&path), files::read_text(&path)?)
}

fn parse(title: &str, text: String) -> Result<Vec<Run>> {
    let table: Table = match toml::from_str(&text) {
        Ok(table) => table,
        Err(error) => {
            let label = LabeledSpan::at(error.span().unwrap_or(0..0), "here");
            let message = error.message().to_owned();
            return Err(miette!(labels = vec![label], "{message}")
                .with_source_code(NamedSource::new(title, text)));
        }
    };
    let mut runs: Vec<Run> = Vec::new();
    for test in table.test {
        if runs.iter().any(|earlier| earlier.test.name == test.name) {
            bail!("{title}: two tests named {:?}", test.name);
        }
        test.check().map_err(|why| miette!("{title}: {:?} {why}", test.name))?;
        for place in &test.platforms {
            let run = test.run(place);
            run.specification.check()?;
            runs.push(run);
        }
    }
    Ok(runs)
}

impl SystemTest {
    /// Whether the test makes sense.
    fn check(&self) -> std::result::Result<(), &'static str> {
        let fails = |step: &Step| matches!(step, Step::Expect(_) | Step::Md5);
        if !self.steps.iter().any(fails) {
            return Err("expects nothing, so it cannot fail");
        }
        if self.steps.iter().any(|step| matches!(step, Step::BreakAtEntry)) != self.gdb {
            return Err("has to say gdb = true and have a step \"break-at-entry\", or neither");
        }
        for (index, place) in self.platforms.iter().enumerate() {
            if self.platforms[..index].contains(place) {
                return Err("names a platform twice");
            }
        }
        let reasoned = self.reason.as_ref().is_some_and(|reason| !reason.trim().is_empty());
        match (both_extensions(&self.platforms), reasoned) {
            (false, false) => Err("does not run on both VT-x and AMD-V, and gives no reason"),
            (true, true) => Err("runs on both VT-x and AMD-V, and gives a reason why not"),
            _ => Ok(()),
        }
    }

    fn run(&self, place: &Place) -> Run {
        let specification = Specification {
            cpu: Some(place.cpu.clone()),
            cpus: self.cpus,
            memory: self.memory.0,
            firmware: self.firmware,
            direct: self.direct,
            gdb: self.gdb,
            monitor: self.steps.iter().any(|s| matches!(s, Step::Nmi(_) | Step::MachineCheck)),
            ..Specification::usual(place.platform, Pace::Repeatable)
        };
        Run {
            name: format!("{} [{place}]", self.name),
            folder: format!("{}.{}", self.name, place.file_name()),
            test: self.clone(),
            specification,
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
    use crate::machine::Platform;

    const GOOD: &str = r#"
        [[test]]
        name = "a"
        manifest = "guests/demo.toml"
        platforms = ["bochs corei5_arrandale_m520", "qemu-tcg max"]
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
        let runs = parse("t", GOOD.to_owned()).unwrap();
        let [on_bochs, on_qemu] = runs.as_slice() else { panic!("not two") };
        assert_eq!(on_bochs.name, "a [VT-x: bochs corei5_arrandale_m520]");
        assert_eq!(on_qemu.name, "a [AMD-V: qemu-tcg max]");
        assert_ne!(on_bochs.folder, on_qemu.folder);
        let specification = &on_bochs.specification;
        assert_eq!(specification.platform, Platform::Bochs);
        assert_eq!(specification.cpu.as_deref(), Some("corei5_arrandale_m520"));
        assert_eq!(specification.memory, 1 << 30);
        let test = &on_bochs.test;
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
            ("timeout", "firmware = \"uefi\"\ntimeout", "Bochs has no UEFI"),
            ("timeout", "gdb = true\ntimeout", "break-at-entry"),
            ("\"end\"", "{ nmi = 3 }", "Bochs has no monitor"),
            ("\"end\"", "\"machine-check\"", "Bochs has no monitor"),
            ("\"end\"", "\"break-at-entry\"", "gdb = true"),
            (", \"qemu-tcg max\"", "", "gives no reason"),
            (", \"qemu-tcg max\"]", "]\nreason = \" \"", "gives no reason"),
            ("timeout", "reason = \"none\"\ntimeout", "gives a reason why not"),
            ("qemu-tcg max", "bochs corei5_arrandale_m520", "twice"),
            ("qemu-tcg max", "qemu-kvm host", "not a platform for tests"),
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
        let alone = GOOD.replace(", \"qemu-tcg max\"]", "]\nreason = \"it is about Bochs\"");
        assert_eq!(parse("t", alone).unwrap().len(), 1);
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
