//! What the tool tells people while it works: on standard error, so that standard output is free
//! for the console.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// One line of news.
pub fn step(text: impl AsRef<str>) {
    eprintln!("ferrite: {}", text.as_ref());
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
