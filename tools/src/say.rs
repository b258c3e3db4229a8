//! What the tool tells people: news on standard error while it works, so that standard output is
//! free for the console and for results.
//!
//! The reader of either may leave: `scripts/test --list | head` is no mistake.

use std::io::{self, ErrorKind, Write};
use std::process;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// One line of news.
pub fn step(text: impl AsRef<str>) {
    error(format!("ferrite: {}", text.as_ref()));
}

/// One line of standard error as it stands.
pub fn error(text: impl AsRef<str>) {
    // With nobody to tell it to, what is being done still has its exit code.
    let _ = writeln!(io::stderr(), "{}", text.as_ref());
}

/// One line of result. Where nobody reads results any more, the work ends.
pub fn line(text: impl AsRef<str>) {
    if let Err(error) = writeln!(io::stdout(), "{}", text.as_ref()) {
        leave(&error);
    }
}

/// What a shell reports of a program that wrote to a closed pipe: 128 and the number of SIGPIPE.
pub const NOBODY_READS: u8 = 128 + 13;

fn leave(error: &io::Error) -> ! {
    if error.kind() != ErrorKind::BrokenPipe {
        step(format!("cannot write to standard output: {error}"));
    }
    // Emulators that are running end with this process.
    process::exit(NOBODY_READS.into())
}

/// A turning wheel with a text, for work of unknown length; nothing where there is no terminal.
pub fn wheel(text: impl Into<String>) -> ProgressBar {
    let wheel = ProgressBar::new_spinner().with_message(text.into());
    wheel.set_style(
        ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
            .unwrap_or_else(|_| ProgressStyle::default_spinner()),
    );
    wheel.enable_steady_tick(Duration::from_millis(120));
    wheel
}

/// A bar for a known number of bytes; nothing where there is no terminal.
pub fn bytes_bar(total: u64, text: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(total).with_message(text);
    let template = "{msg} {bar:40} {bytes}/{total_bytes} {bytes_per_sec} ({eta})";
    bar.set_style(
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar
}
