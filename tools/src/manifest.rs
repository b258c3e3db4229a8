//! Reading a manifest: the TOML file that says what a system consists of. What is wrong with it is
//! reported with the line it stands in.

use std::ops::Range;
use std::path::{Path, PathBuf};

use config::{
    CONSOLE_INTERRUPT, CONSOLE_PORTS, DEFAULT_PRIORITY, DEFAULT_TIME_SLICE_US, MAX_CPU, MAX_CPUS,
    MAX_INTERRUPT, MAX_INTERRUPTS, MAX_PRIORITY, OnEnd, Place, Ports, Restart,
};
use miette::{Diagnostic, NamedSource, Result, SourceSpan};
use serde::Deserialize;
use toml::Spanned;

use crate::files;
use crate::guest::{self, Content};
use crate::units::{Microseconds, PortRange, Size, show_size};
use crate::workspace::Workspace;

/// A checked manifest.
#[derive(Debug)]
pub struct Manifest {
    /// Names the image and the folders of its runs.
    pub name: String,
    /// What happens when every partition has ended.
    pub on_end: OnEnd,
    /// In the order of the file.
    pub partitions: Vec<Partition>,
    source: NamedSource<String>,
}

/// One checked partition.
#[derive(Debug)]
pub struct Partition {
    /// Unique.
    pub name: String,
    /// Program name of its task, and where the manifest says so.
    pub vmm: Spanned<String>,
    /// Bytes of guest memory.
    pub memory: u64,
    /// Virtual CPUs.
    pub cpus: u32,
    /// CPUs of the machine that it is on.
    pub cpu: Place,
    /// Scheduling priority.
    pub priority: u8,
    /// Microseconds of CPU time in each period.
    pub budget_us: u64,
    /// Microseconds.
    pub period_us: u64,
    /// The guest's kernel.
    pub kernel: Option<Content>,
    /// The guest's initial RAM disk.
    pub initrd: Option<Content>,
    /// The guest kernel's command line.
    pub cmdline: String,
    /// Free text for the task.
    pub args: String,
    /// When it is started again.
    pub restart: Restart,
    /// Whether it has a console.
    pub console: bool,
    /// Ports of the machine that are its task's.
    pub ports: Vec<Ports>,
    /// Interrupts of the machine that are its task's.
    pub interrupts: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestFile {
    system: SystemTable,
    #[serde(default, rename = "partition")]
    partitions: Vec<Spanned<PartitionTable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SystemTable {
    name: Spanned<String>,
    #[serde(default)]
    on_end: OnEnd,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartitionTable {
    name: Spanned<String>,
    vmm: Option<Spanned<String>>,
    memory: Option<Spanned<Size>>,
    cpus: Option<Spanned<u32>>,
    cpu: Option<Spanned<CpuWord>>,
    priority: Option<Spanned<u8>>,
    budget: Option<Spanned<Microseconds>>,
    period: Option<Spanned<Microseconds>>,
    kernel: Option<Spanned<String>>,
    initrd: Option<Spanned<String>>,
    cmdline: Option<Spanned<String>>,
    #[serde(default)]
    args: String,
    #[serde(default)]
    restart: Restart,
    #[serde(default)]
    console: bool,
    #[serde(default)]
    ports: Vec<Spanned<PortRange>>,
    #[serde(default)]
    interrupts: Vec<Spanned<u32>>,
}

/// What `cpu` can be: a number or a word.
#[derive(Deserialize)]
#[serde(untagged, expecting = "cpu is a number such as 1, or \"all\"")]
enum CpuWord {
    Number(i64),
    Word(String),
}

/// A mistake, and where it is.
#[derive(Debug, Diagnostic, thiserror::Error)]
#[error("{message}")]
struct Mistake {
    message: String,
    #[source_code]
    source_code: NamedSource<String>,
    #[label("here")]
    span: SourceSpan,
    #[help]
    help: Option<String>,
}

type Checked<T> = std::result::Result<T, Box<(Range<usize>, String, Option<String>)>>;

fn mistake<T>(span: Range<usize>, message: impl Into<String>) -> Checked<T> {
    Err(Box::new((span, message.into(), None)))
}

fn mistake_with_help<T>(
    span: Range<usize>,
    message: impl Into<String>,
    help: impl Into<String>,
) -> Checked<T> {
    Err(Box::new((span, message.into(), Some(help.into()))))
}

impl Manifest {
    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// The first mistake in it, with its place.
    pub fn read(workspace: &Workspace, path: &Path) -> Result<Self> {
        let text = files::read_text(path)?;
        let folder = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
        Self::parse(workspace, &workspace.short(path), &folder, &text)
    }

    fn parse(workspace: &Workspace, title: &str, folder: &Path, text: &str) -> Result<Self> {
        let source = NamedSource::new(title, text.to_owned()).with_language("TOML");
        let report = |span: Range<usize>, message: String, help| {
            let span = SourceSpan::from(span);
            miette::Report::from(Mistake { message, source_code: source.clone(), span, help })
        };
        let file: ManifestFile = toml::from_str(text).map_err(|error| {
            let span = error.span().unwrap_or(0..text.len().min(1));
            report(span, error.message().to_owned(), None)
        })?;
        let name = check_name(&file.system.name);
        let partitions = check_partitions(workspace, folder, file.partitions);
        match name.and_then(|name| Ok((name, partitions?))) {
            Ok((name, partitions)) => {
                Ok(Self { name, on_end: file.system.on_end, partitions, source })
            }
            Err(mistake) => Err(report(mistake.0, mistake.1, mistake.2)),
        }
    }

    /// An error about a value that only the build can judge, with the place of the value.
    pub fn complain<T>(&self, value: &Spanned<T>, message: String, help: String) -> miette::Report {
        let span = SourceSpan::from(value.span());
        let source_code = self.source.clone();
        Mistake { message, source_code, span, help: Some(help) }.into()
    }
}

/// Names become file names and appear in messages.
fn check_name(name: &Spanned<String>) -> Checked<String> {
    let text = name.get_ref();
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if text.is_empty() || text.len() > 32 || !text.bytes().all(sound) {
        return mistake_with_help(
            name.span(),
            format!("{text:?} is not a name"),
            "a name is 1 to 32 letters, digits, dashes and underscores",
        );
    }
    Ok(text.clone())
}

fn check_partitions(
    workspace: &Workspace,
    folder: &Path,
    tables: Vec<Spanned<PartitionTable>>,
) -> Checked<Vec<Partition>> {
    let mut partitions: Vec<Partition> = Vec::new();
    for table in tables {
        let whole = table.span();
        let table = table.into_inner();
        let name = check_name(&table.name)?;
        if partitions.iter().any(|earlier| earlier.name == name) {
            return mistake(table.name.span(), format!("a second partition named {name:?}"));
        }
        let partition = check_partition(workspace, folder, &partitions, name, table, whole)?;
        partitions.push(partition);
    }
    Ok(partitions)
}

fn check_partition(
    workspace: &Workspace,
    folder: &Path,
    others: &[Partition],
    name: String,
    table: PartitionTable,
    whole: Range<usize>,
) -> Checked<Partition> {
    let cpus = in_range(table.cpus, 1, 1..=MAX_CPUS, "cpus")?;
    let cpu = check_cpu(table.cpu.as_ref())?;
    let priority = in_range(table.priority, DEFAULT_PRIORITY, 1..=MAX_PRIORITY, "priority")?;
    let memory = check_memory(table.memory.as_ref())?;
    let (budget_us, period_us) = check_time(table.budget, table.period)?;
    let kernel = table
        .kernel
        .as_ref()
        .map(|word| existing(word, guest::kernel(workspace, folder, word.get_ref())));
    let initrd =
        table.initrd.as_ref().map(|word| existing(word, guest::initrd(folder, word.get_ref())));
    if let Some(word) = &table.kernel {
        if memory == 0 {
            return mistake_with_help(
                word.span(),
                format!("partition {name:?} has a kernel but no memory"),
                "add a line such as: memory = \"256M\"",
            );
        }
    } else {
        let orphan = [("initrd", &table.initrd), ("cmdline", &table.cmdline)]
            .into_iter()
            .find_map(|(key, value)| value.as_ref().map(|value| (key, value)));
        if let Some((key, value)) = orphan {
            return mistake(value.span(), format!("{key} without a kernel to take it"));
        }
    }
    Ok(Partition {
        name,
        vmm: table.vmm.unwrap_or_else(|| Spanned::new(whole, "vmm".to_owned())),
        memory,
        cpus,
        cpu,
        priority,
        budget_us,
        period_us,
        kernel: kernel.transpose()?,
        initrd: initrd.transpose()?,
        cmdline: table.cmdline.map(Spanned::into_inner).unwrap_or_default(),
        args: table.args,
        restart: table.restart,
        console: table.console,
        ports: check_ports(others, &table.ports)?,
        interrupts: check_interrupts(others, &table.interrupts)?,
    })
}

/// Ports that nobody else has.
fn check_ports(others: &[Partition], words: &[Spanned<PortRange>]) -> Checked<Vec<Ports>> {
    let mut list: Vec<Ports> = Vec::new();
    for word in words {
        let PortRange(first, last) = *word.get_ref();
        let ports = Ports { first, last };
        let theirs = others.iter().find(|other| other.ports.iter().any(|p| p.overlap(ports)));
        let owner = match theirs {
            _ if CONSOLE_PORTS.overlap(ports) => "the console service".to_owned(),
            Some(other) => format!("partition {:?}", other.name),
            None if list.iter().any(|p| p.overlap(ports)) => "this partition".to_owned(),
            None => {
                list.push(ports);
                continue;
            }
        };
        let text = format!("of the ports {first:#x} to {last:#x}, {owner} has some already");
        return mistake(word.span(), text);
    }
    Ok(list)
}

/// Interrupts that nobody else has.
fn check_interrupts(others: &[Partition], words: &[Spanned<u32>]) -> Checked<Vec<u32>> {
    let mut list: Vec<u32> = Vec::new();
    for word in words {
        let number = *word.get_ref();
        let span = word.span();
        if number > MAX_INTERRUPT {
            return mistake(span, format!("interrupt {number}; it can be 0 to {MAX_INTERRUPT}"));
        }
        let theirs = others.iter().find(|other| other.interrupts.contains(&number));
        let owner = match theirs {
            _ if number == CONSOLE_INTERRUPT => "the console service".to_owned(),
            Some(other) => format!("partition {:?}", other.name),
            None if list.contains(&number) => "this partition".to_owned(),
            None if list.len() == MAX_INTERRUPTS => {
                return mistake(span, format!("more than {MAX_INTERRUPTS} interrupts"));
            }
            None => {
                list.push(number);
                continue;
            }
        };
        return mistake(span, format!("{owner} has interrupt {number} already"));
    }
    Ok(list)
}

fn in_range<T: Copy + PartialOrd + std::fmt::Display>(
    value: Option<Spanned<T>>,
    default: T,
    range: std::ops::RangeInclusive<T>,
    key: &str,
) -> Checked<T> {
    let Some(value) = value else { return Ok(default) };
    if range.contains(value.get_ref()) {
        return Ok(value.into_inner());
    }
    let (low, high) = range.into_inner();
    let may = if low == high { format!("only be {low}") } else { format!("be {low} to {high}") };
    mistake(value.span(), format!("{key} is {}; it can {may}", value.get_ref()))
}

fn check_cpu(cpu: Option<&Spanned<CpuWord>>) -> Checked<Place> {
    let Some(cpu) = cpu else { return Ok(Place::default()) };
    match cpu.get_ref() {
        CpuWord::Word(word) if word == "all" => Ok(Place::All),
        CpuWord::Word(word) => {
            mistake(cpu.span(), format!("cpu is {word:?}; it is a number such as 1, or \"all\""))
        }
        CpuWord::Number(number) => match u16::try_from(*number) {
            Ok(number) if number <= MAX_CPU => Ok(Place::Cpu(number)),
            _ => mistake(cpu.span(), format!("cpu is {number}; it can be 0 to {MAX_CPU}")),
        },
    }
}

fn check_memory(size: Option<&Spanned<Size>>) -> Checked<u64> {
    let Some(size) = size else { return Ok(0) };
    let bytes = size.get_ref().0;
    if !bytes.is_multiple_of(config::PAGE_SIZE) {
        let text = format!("{bytes} bytes of memory are not whole pages of 4 KiB");
        return mistake(size.span(), text);
    }
    Ok(bytes)
}

fn check_time(
    budget: Option<Spanned<Microseconds>>,
    period: Option<Spanned<Microseconds>>,
) -> Checked<(u64, u64)> {
    let in_micros =
        |value: &Option<Spanned<Microseconds>>| value.as_ref().map(|value| value.get_ref().0);
    let period_us = in_micros(&period).or(in_micros(&budget)).unwrap_or(DEFAULT_TIME_SLICE_US);
    let budget_us = in_micros(&budget).unwrap_or(period_us);
    if let (Some(at), 0) = (&period, period_us) {
        return mistake(at.span(), "a period of nothing");
    }
    if let Some(at) = &budget
        && !(1..=period_us).contains(&budget_us)
    {
        let text = format!("a budget of {budget_us} us in a period of {period_us} us");
        return mistake(at.span(), text);
    }
    Ok((budget_us, period_us))
}

fn existing(word: &Spanned<String>, content: Content) -> Checked<Content> {
    if let Some(path) = content.file() {
        match path.metadata() {
            Err(error) => return mistake(word.span(), format!("{}: {error}", path.display())),
            Ok(metadata) if !metadata.is_file() => {
                return mistake(word.span(), format!("{} is not a file", path.display()));
            }
            Ok(metadata) if metadata.len() == 0 => {
                return mistake(word.span(), format!("{} is empty", path.display()));
            }
            Ok(_) => {}
        }
    }
    Ok(content)
}

impl Partition {
    /// One line for people.
    pub fn summary(&self) -> String {
        let mut text = format!("{}: {}", self.name, self.vmm.get_ref());
        if self.memory > 0 {
            let plural = if self.cpus == 1 { "" } else { "s" };
            text += &format!(", {} and {} CPU{plural}", show_size(self.memory), self.cpus);
        }
        if let Some(kernel) = &self.kernel {
            text += &format!(", {}", kernel.name());
        }
        match self.cpu {
            Place::Cpu(0) => {}
            Place::Cpu(number) => text += &format!(", on CPU {number}"),
            Place::All => text += ", on all CPUs",
        }
        for Ports { first, last } in &self.ports {
            text += &format!(", ports {first:#x} to {last:#x}");
        }
        for interrupt in &self.interrupts {
            text += &format!(", interrupt {interrupt}");
        }
        text
    }
}

#[cfg(test)]
mod tests;
