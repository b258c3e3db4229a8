//! Starting a worker for each target, and judging how it ended.
//!
//! `unsafe` is needed for a call of the C library that the standard library does not offer.

use std::env;
use std::ffi::{c_int, c_ulong};
use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use crate::allocation;
use crate::corpus;
use crate::targets::Target;
use crate::worker::{PANICKED, Scratch, scratch_path};

/// CPU time that an input may take.
pub const TIME_LIMIT: Duration = Duration::from_secs(1);
/// Time by the clock after which an input counts as stuck, however busy the machine is.
const STUCK: Duration = Duration::from_secs(60);

/// How the worker of a target ended.
#[derive(Debug)]
pub enum Verdict {
    /// Nothing was found; what it did.
    Passed(String),
    /// An input that finds a bug.
    Found {
        /// What happened.
        what: String,
        /// The file that holds the input.
        input: PathBuf,
    },
}

unsafe extern "C" {
    fn personality(persona: c_ulong) -> c_int;
}

/// Gives workers that are started from now on the same addresses every time (`personality(2)`):
/// addresses are compared as well, so runs would differ by them. Where that is forbidden, they do.
pub fn fix_addresses() {
    const ADDR_NO_RANDOMIZE: c_ulong = 0x004_0000;
    // SAFETY: it takes a number and touches no memory.
    unsafe { personality(ADDR_NO_RANDOMIZE) };
}

/// Runs a worker with the given arguments to its end.
///
/// # Errors
/// When processes or files do not work, or the worker itself does not.
pub fn run(target: &Target, arguments: &[String], folder: &Path) -> io::Result<Verdict> {
    fs::create_dir_all(folder)?;
    let scratch = scratch_path(folder, target);
    let log = folder.join(format!("{}.log", target.name));
    let _ = fs::remove_file(&scratch);
    let out = File::create(&log)?;
    let mut child = Command::new(env::current_exe()?)
        .args(["--worker", target.name])
        .args(arguments)
        .env("RUST_BACKTRACE", "1")
        .stderr(out.try_clone()?)
        .stdout(out)
        .spawn()?;
    let status = watch(&mut child, &scratch)?;
    let text = String::from_utf8_lossy(&fs::read(&log)?).trim().to_owned();
    let what = match status {
        Some(status) if status.success() => return Ok(Verdict::Passed(text)),
        Some(status) => match explain(status) {
            Some(why) => format!("{text}\n{why}").trim().to_owned(),
            None => return Err(io::Error::other(format!("the worker ended: {status}\n{text}"))),
        },
        None => format!("an input took more than {} s", TIME_LIMIT.as_secs()),
    };
    let Some((_, input)) = Scratch::get(&scratch) else {
        return Err(io::Error::other(format!("the worker had not begun\n{what}")));
    };
    let failures = folder.join("failures");
    fs::create_dir_all(&failures)?;
    let path = failures.join(format!("{}-{}", target.name, corpus::name(&input)));
    fs::write(&path, input)?;
    Ok(Verdict::Found { what, input: path })
}

/// What a status says about the input that was tried, if anything.
fn explain(status: ExitStatus) -> Option<String> {
    if status.code() == Some(i32::from(PANICKED)) {
        return Some(String::new());
    }
    Some(match status.signal()? {
        6 => format!("aborted, perhaps out of its {} MiB of memory", allocation::LIMIT >> 20),
        4 | 5 => "executed an instruction that stops it".to_owned(),
        7 | 11 => "touched memory that is not there, perhaps below its stack".to_owned(),
        _ => return None,
    })
}

/// Waits for the end of a worker; `None` if an input took too long and it was killed.
fn watch(child: &mut Child, scratch: &Path) -> io::Result<Option<ExitStatus>> {
    let (mut number, mut since, mut used) = (None, Instant::now(), Duration::ZERO);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(Duration::from_millis(50));
        let now = Scratch::get(scratch).map(|(number, _)| number);
        let time = cpu_time(child.id()).unwrap_or(used);
        if now != number {
            (number, since, used) = (now, Instant::now(), time);
        } else if number.is_some() && (time - used > TIME_LIMIT || since.elapsed() > STUCK) {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
    }
}

/// CPU time of a process with one thread: the first number of its schedstat, in nanoseconds (Linux,
/// Documentation/scheduler/sched-stats.rst).
fn cpu_time(process: u32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{process}/schedstat")).ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}
