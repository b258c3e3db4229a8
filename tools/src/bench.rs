//! `scripts/bench`: how many instructions the paths that matter take, in an emulator whose
//! time-stamp counter counts instructions: Bochs for VT-x, QEMU with `-icount` for AMD-V.

use std::collections::BTreeMap;
use std::fs::File;
use std::process::ExitCode;
use std::time::Instant;

use miette::{IntoDiagnostic, Result, bail, miette};
use regex::bytes::Regex;
use serde::Serialize;

use crate::cli::{BenchArguments, BenchPlatform, PlatformArgument};
use crate::compile::{self, Built};
use crate::expect::{Failure, Session};
use crate::files;
use crate::image;
use crate::machine::{self, Extension, Machine, Pace, Platform, Specification};
use crate::manifest::Manifest;
use crate::say;
use crate::workspace::Workspace;

/// What the benchmark task measures, in the order of the table.
const PATHS: [Path; 11] = [
    Path::new("loop", "empty loop"),
    Path::new("cpuid", "CPUID exit, answered, resume").kvm(970, 2_420).nova(600).goals(400, 320),
    Path::new("out80", "OUT 0x80, resume").kvm(3_170, 2_830).nova(582).goals(400, 300),
    Path::new("uart", "OUT 0x3f8, byte accepted").kvm(3_140, 2_830).goals(600, 450),
    Path::new("mmio", "one-byte MMIO store").kvm(5_800, 5_060).goals(1_500, 900),
    Path::new("ipc", "IPC call and reply, two PDs, one word").nova(281).goals(220, 160),
    Path::new("sem_up", "semaphore up").nova(147).goals(100, 80),
    Path::new("sem_down", "semaphore down").nova(159).goals(100, 80),
    Path::new("ping_pong", "two threads waking each other").nova(3_935).goals(900, 600),
    Path::new("grant", "grant one page to a guest").nova(962).goals(600, 400),
    Path::new("grant_next", "each further page").nova(709).goals(60, 20),
];

/// A measured path and the figures it is compared with, in ticks: see `docs/`.
struct Path {
    key: &'static str,
    text: &'static str,
    on_vtx: Compared,
    on_amdv: Compared,
}

/// What others take for a path, and what Ferrite is to reach.
#[derive(Clone, Copy, Default)]
struct Compared {
    kvm: Option<u32>,
    nova: Option<u32>,
    /// First, and finally.
    goals: [Option<u32>; 2],
}

impl Path {
    const fn new(key: &'static str, text: &'static str) -> Self {
        let nothing = Compared { kvm: None, nova: None, goals: [None, None] };
        Self { key, text, on_vtx: nothing, on_amdv: nothing }
    }

    const fn kvm(mut self, on_vtx: u32, on_amdv: u32) -> Self {
        self.on_vtx.kvm = Some(on_vtx);
        self.on_amdv.kvm = Some(on_amdv);
        self
    }

    const fn nova(mut self, on_vtx: u32) -> Self {
        self.on_vtx.nova = Some(on_vtx);
        self
    }

    const fn goals(mut self, first: u32, last: u32) -> Self {
        self.on_vtx.goals = [Some(first), Some(last)];
        self
    }

    fn compared(&self, extension: Extension) -> Compared {
        match extension {
            Extension::VtX => self.on_vtx,
            Extension::AmdV => self.on_amdv,
        }
    }
}

/// One figure, per iteration.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Figure {
    ticks: f64,
    vmread: u64,
    vmwrite: u64,
    rdmsr: u64,
    wrmsr: u64,
}

/// All figures by the name of their path.
type Figures = BTreeMap<String, Figure>;

/// Ticks of the longest call of each case, by name.
type Longest = BTreeMap<String, u64>;

/// What one run of the benchmark found.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Report {
    #[serde(flatten)]
    figures: Figures,
    longest: Longest,
}

/// `scripts/bench`. Boots twice: the kernel that counts accesses to control structures and MSRs is
/// slower by its counting, so the ticks are those of the one that does not.
///
/// # Errors
/// When the benchmark does not run to its end.
pub fn command(workspace: &Workspace, arguments: &BenchArguments) -> Result<ExitCode> {
    let (platform, extension) = match arguments.platform {
        BenchPlatform::Bochs => (PlatformArgument::Bochs, Extension::VtX),
        BenchPlatform::QemuTcg => (PlatformArgument::QemuTcg, Extension::AmdV),
    };
    let wish = Specification {
        cpu: arguments.cpu.clone(),
        ..Specification::usual(Platform::Bochs, Pace::Counted)
    };
    let specification = machine::choose(platform, &wish, workspace)?.specification;
    let manifest = Manifest::read(workspace, &workspace.root.join("tests/bench.toml"))?;
    let run = |built: &Built, doing| {
        measure(workspace, built, &manifest, &specification, arguments, doing)
    };
    // The plain kernel comes last: it is the one that other commands expect to find.
    let built = compile::build(workspace)?;
    build_counting_kernel(workspace)?;
    let counts = run(&built, "counting")?;
    let built = compile::build(workspace)?;
    let ticks = run(&built, "measuring")?;
    let figures = merge(ticks.figures, &counts.figures, extension)?;
    let report = Report { figures, ..ticks };
    print_table(&report.figures, extension);
    print_longest(&report.longest);
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&report).into_diagnostic()?;
        files::write(path, text + "\n")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Replaces the kernel that was built by one that counts.
fn build_counting_kernel(workspace: &Workspace) -> Result<()> {
    say::step("building the kernel that counts");
    let status = compile::bare_metal_cargo(workspace, "build")
        .args(["--features", "hypervisor/counters"])
        .status()
        .into_diagnostic()?;
    if !status.success() {
        bail!("the build failed");
    }
    Ok(())
}

/// Boots the benchmark and waits for its figures.
fn measure(
    workspace: &Workspace,
    built: &Built,
    manifest: &Manifest,
    specification: &Specification,
    arguments: &BenchArguments,
    doing: &'static str,
) -> Result<Report> {
    let packed = image::pack(workspace, built, manifest)?;
    let folder = workspace.target.join("bench").join(doing);
    say::step(format!("{doing} on {}", specification.summary()));
    let machine = Machine::start(workspace, specification, &packed, &folder)?;
    let log = folder.join("console.log");
    let mut session =
        Session::new(machine, Some(File::create(&log).into_diagnostic()?), false, None)?;
    let wheel = say::wheel(doing);
    let end = Regex::new(r"(?m)^BENCH-END\s").into_diagnostic()?;
    let outcome = session.expect(&end, Instant::now() + arguments.timeout);
    wheel.finish_and_clear();
    if let Err(failure) = outcome {
        let text = match failure {
            Failure::Timeout => "the benchmark did not end in time",
            Failure::Ended | Failure::Forbidden(_) => "the machine stopped in the benchmark",
        };
        return Err(miette!(help = session.transcript.tail(20), "{text}"));
    }
    parse(&String::from_utf8_lossy(session.transcript.text()))
}

/// The ticks of one run with the counts of the other. On VT-x no exit is answered without a
/// VMREAD, so that none at all means that nothing was counted; AMD-V has no such instruction.
fn merge(mut ticks: Figures, counts: &Figures, extension: Extension) -> Result<Figures> {
    if !ticks.keys().eq(counts.keys()) {
        bail!("the two runs of the benchmark measured different paths");
    }
    for (figure, counts) in ticks.values_mut().zip(counts.values()) {
        *figure = Figure { ticks: figure.ticks, ..counts.clone() };
    }
    if extension == Extension::VtX && ticks.values().all(|figure| figure.vmread == 0) {
        bail!("nothing was counted: the kernel's counters did not reach the benchmark");
    }
    Ok(ticks)
}

/// The figures between the markers.
fn parse(text: &str) -> Result<Report> {
    let body = text
        .split_once("BENCH-BEGIN")
        .and_then(|(_, rest)| rest.rsplit_once("BENCH-END"))
        .ok_or_else(|| miette!("the benchmark's output has no beginning or no end"))?
        .0;
    let (mut figures, mut longest) = (BTreeMap::new(), BTreeMap::new());
    for line in body.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("BENCH-LONGEST ") {
            let case =
                rest.split_once(' ').and_then(|(name, ticks)| Some((name, ticks.parse().ok()?)));
            let (name, ticks) = case.ok_or_else(|| miette!("not a benchmark line: {line:?}"))?;
            if longest.insert(name.to_owned(), ticks).is_some() {
                bail!("{name:?} was measured twice");
            }
            continue;
        }
        let Some(rest) = line.strip_prefix("BENCH ") else { continue };
        let (name, figure) =
            parse_line(rest).ok_or_else(|| miette!("not a benchmark line: {line:?}"))?;
        if figures.insert(name.clone(), figure).is_some() {
            bail!("{name:?} was measured twice");
        }
    }
    if figures.is_empty() {
        bail!("the benchmark measured nothing");
    }
    Ok(Report { figures, longest })
}

fn parse_line(line: &str) -> Option<(String, Figure)> {
    let mut words = line.split_whitespace();
    let name = words.next()?.to_owned();
    let ticks: f64 = words.next()?.parse().ok()?;
    let mut figure = Figure { ticks, vmread: 0, vmwrite: 0, rdmsr: 0, wrmsr: 0 };
    for word in words {
        let (key, value) = word.split_once('=')?;
        let field = match key {
            "vmread" => &mut figure.vmread,
            "vmwrite" => &mut figure.vmwrite,
            "rdmsr" => &mut figure.rdmsr,
            "wrmsr" => &mut figure.wrmsr,
            _ => return None,
        };
        *field = value.parse().ok()?;
    }
    (ticks.is_finite() && ticks >= 0.0).then_some((name, figure))
}

fn print_table(figures: &Figures, extension: Extension) {
    say::line(format!(
        "{:<38} {:>8} {:>7} {:>8} {:>6} {:>6} | {:>6} {:>6} | {:>6} {:>6}",
        format!("{}: ticks per iteration", extension.name()),
        "Ferrite",
        "VMREAD",
        "VMWRITE",
        "RDMSR",
        "WRMSR",
        "KVM",
        "NOVA",
        "first",
        "final"
    ));
    for path in PATHS {
        match figures.get(path.key) {
            Some(figure) => say::line(row(path.text, figure, path.compared(extension))),
            None => say::line(format!("{:<38} {:>8}", path.text, "-")),
        }
    }
    let known = |name: &str| PATHS.iter().any(|path| path.key == name);
    for (name, figure) in figures.iter().filter(|(name, _)| !known(name)) {
        say::line(row(name, figure, Compared::default()));
    }
}

/// Each hypercall runs with interrupts off from its entry to its exit.
fn print_longest(longest: &Longest) {
    say::line("");
    say::line("longest stretch with interrupts off, instructions");
    let mut cases: Vec<_> = longest.iter().collect();
    cases.sort_by_key(|(_, ticks)| std::cmp::Reverse(**ticks));
    for (name, ticks) in cases {
        say::line(format!("{name:<38} {ticks:>8}"));
    }
}

fn row(text: &str, figure: &Figure, compared: Compared) -> String {
    let number = |value: Option<u32>| value.map_or_else(|| "-".to_owned(), |v| v.to_string());
    let goal = |goal: Option<u32>| match goal {
        Some(goal) if figure.ticks <= f64::from(goal) => format!("{goal}*"),
        other => number(other),
    };
    format!(
        "{text:<38} {:>8.1} {:>7} {:>8} {:>6} {:>6} | {:>6} {:>6} | {:>6} {:>6}",
        figure.ticks,
        figure.vmread,
        figure.vmwrite,
        figure.rdmsr,
        figure.wrmsr,
        number(compared.kvm),
        number(compared.nova),
        goal(compared.goals[0]),
        goal(compared.goals[1]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_between_the_markers() {
        let text = "boot\nBENCH cpuid 1\nBENCH-BEGIN\r\n\
                    BENCH cpuid 312.5 vmread=4 vmwrite=2 rdmsr=0 wrmsr=1\r\nnoise\n\
                    BENCH ipc 210\nBENCH-END\n";
        let figures = parse(text).unwrap().figures;
        assert_eq!(figures.len(), 2);
        let cpuid = Figure { ticks: 312.5, vmread: 4, vmwrite: 2, rdmsr: 0, wrmsr: 1 };
        assert_eq!(figures["cpuid"], cpuid);
        assert_eq!(figures["ipc"].ticks, 210.0);
    }

    #[test]
    fn damaged_output_is_no_result() {
        for text in [
            "",
            "BENCH-BEGIN\n",
            "BENCH-BEGIN\nBENCH-END\n",
            "BENCH-BEGIN\nBENCH cpuid\nBENCH-END\n",
            "BENCH-BEGIN\nBENCH cpuid fast\nBENCH-END\n",
            "BENCH-BEGIN\nBENCH cpuid -1\nBENCH-END\n",
            "BENCH-BEGIN\nBENCH cpuid NaN\nBENCH-END\n",
            "BENCH-BEGIN\nBENCH cpuid 1 vmread\nBENCH-END\n",
            "BENCH-BEGIN\nBENCH cpuid 1 colour=2\nBENCH-END\n",
            "BENCH-BEGIN\nBENCH cpuid 1\nBENCH cpuid 1\nBENCH-END\n",
            "BENCH-BEGIN\nBENCH cpuid 1\nBENCH-LONGEST call\nBENCH-END\n",
            "BENCH-BEGIN\nBENCH cpuid 1\nBENCH-LONGEST call 1.5\nBENCH-END\n",
            "BENCH-BEGIN\nBENCH cpuid 1\nBENCH-LONGEST call 1\nBENCH-LONGEST call 1\nBENCH-END\n",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn ticks_come_from_one_run_and_counts_from_the_other() {
        let read = |text: &str| parse(&format!("BENCH-BEGIN\n{text}\nBENCH-END")).unwrap().figures;
        let plain = read("BENCH cpuid 300.5\nBENCH ipc 200");
        let counting = read("BENCH cpuid 390 vmread=5 vmwrite=1\nBENCH ipc 210");
        let merged = merge(plain.clone(), &counting, Extension::VtX).unwrap();
        let cpuid = Figure { ticks: 300.5, vmread: 5, vmwrite: 1, rdmsr: 0, wrmsr: 0 };
        assert_eq!(merged["cpuid"], cpuid);
        assert_eq!(merged["ipc"].ticks, 200.0);
        assert!(merge(plain.clone(), &read("BENCH cpuid 390 vmread=5"), Extension::VtX).is_err());
        assert!(merge(plain.clone(), &plain, Extension::VtX).is_err(), "no counts at all");
        assert!(merge(plain.clone(), &plain, Extension::AmdV).is_ok(), "there is no VMREAD");
    }

    #[test]
    fn the_row_marks_goals_that_are_met() {
        let figure = Figure { ticks: 350.0, vmread: 4, vmwrite: 2, rdmsr: 0, wrmsr: 0 };
        let text = row("x", &figure, PATHS[1].compared(Extension::VtX));
        assert!(text.contains("400*") && text.contains(" 320") && !text.contains("320*"), "{text}");
        let text = row("x", &figure, PATHS[1].compared(Extension::AmdV));
        assert!(text.contains(" 2420 ") && !text.contains('*'), "{text}");
    }

    #[test]
    fn the_json_has_the_shape_that_others_read() {
        let text = "BENCH-BEGIN\nBENCH cpuid 312 vmread=4\nBENCH-LONGEST call 900\nBENCH-END";
        let value = serde_json::to_value(parse(text).unwrap()).unwrap();
        assert_eq!(value["longest"]["call"], 900);
        assert_eq!(value["cpuid"]["ticks"], 312.0);
        assert_eq!(value["cpuid"]["vmread"], 4);
    }
}
