//! Merges the output of all clients into one stream for the terminal.
//!
//! Each source has a prefix. A line that a source begins starts with it, and a source that writes
//! while another is in the middle of a line starts a new one. The console of the only client that
//! has one has no prefix, and its bytes pass as they are.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

/// How the bytes of a source are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They are for a terminal and pass as they are.
    Terminal,
    /// They are lines of text that end with a line feed. Control characters are shown as dots, so
    /// that nobody can steer the terminal by what it logs.
    Text,
}

/// Somebody who writes.
#[derive(Clone, Debug)]
struct Source {
    kind: Kind,
    prefix: String,
}

/// The merged stream.
#[derive(Clone, Debug)]
pub struct Output {
    sources: Vec<Source>,
    /// Who wrote last.
    last: Option<usize>,
    /// Whether the cursor is where a line starts.
    at_start: bool,
    queue: VecDeque<u8>,
}

impl Default for Output {
    fn default() -> Self {
        Self::new()
    }
}

impl Output {
    /// Nothing on it, no sources yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { sources: Vec::new(), last: None, at_start: true, queue: VecDeque::new() }
    }

    /// Adds a source and returns its number.
    pub fn add(&mut self, kind: Kind, prefix: String) -> usize {
        self.sources.push(Source { kind, prefix });
        self.sources.len() - 1
    }

    /// The source that is in the middle of a line.
    #[must_use]
    pub fn unfinished(&self) -> Option<usize> {
        self.last.filter(|_| !self.at_start)
    }

    /// Appends what a source wrote.
    pub fn write(&mut self, source: usize, bytes: &[u8]) {
        let Some(Source { kind, prefix }) = self.sources.get(source) else { return };
        if bytes.is_empty() {
            return;
        }
        if self.last != Some(source) && !self.at_start {
            self.queue.extend(b"\r\n");
            self.at_start = true;
        }
        self.last = Some(source);
        for byte in bytes {
            if self.at_start {
                self.queue.extend(prefix.bytes());
            }
            self.at_start = *byte == b'\n';
            match (kind, *byte) {
                (Kind::Terminal, byte) => self.queue.push_back(byte),
                (Kind::Text, b'\n') => self.queue.extend(b"\r\n"),
                (Kind::Text, byte) if byte < b' ' && byte != b'\t' || byte == 0x7f => {
                    self.queue.push_back(b'.');
                }
                (Kind::Text, byte) => self.queue.push_back(byte),
            }
        }
    }

    /// Bytes that wait for the terminal.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// The next byte for the terminal.
    pub fn next_byte(&mut self) -> Option<u8> {
        self.queue.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(output: &mut Output) -> String {
        let bytes = core::iter::from_fn(|| output.next_byte()).collect();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_log_line_interrupts_a_terminal_on_a_line_of_its_own() {
        let mut output = Output::new();
        let console = output.add(Kind::Terminal, String::new());
        let log = output.add(Kind::Text, "root: ".into());
        output.write(console, b"prompt# ");
        assert_eq!(output.unfinished(), Some(console));
        output.write(log, b"a partition ended\n");
        output.write(console, b"ls\r\n");
        assert_eq!(shown(&mut output), "prompt# \r\nroot: a partition ended\r\nls\r\n");
        assert_eq!(output.unfinished(), None);
    }

    #[test]
    fn several_terminals_have_prefixes() {
        let mut output = Output::new();
        let a = output.add(Kind::Terminal, "a| ".into());
        let b = output.add(Kind::Terminal, "b| ".into());
        output.write(a, b"one\r\ntwo");
        output.write(b, b"three\r\n");
        output.write(a, b"four");
        assert_eq!(shown(&mut output), "a| one\r\na| two\r\nb| three\r\na| four");
    }

    #[test]
    fn a_log_cannot_steer_the_terminal() {
        let mut output = Output::new();
        let log = output.add(Kind::Text, "vmm: ".into());
        output.write(log, b"\x1b[2Jgone?\ttab\x7f\r\n");
        assert_eq!(shown(&mut output), "vmm: .[2Jgone?\ttab..\r\n");
    }

    proptest! {
        #[test]
        fn the_only_terminal_passes_every_byte(chunks in any::<Vec<Vec<u8>>>()) {
            let mut output = Output::new();
            let console = output.add(Kind::Terminal, String::new());
            for chunk in &chunks {
                output.write(console, chunk);
            }
            let out: Vec<u8> = core::iter::from_fn(|| output.next_byte()).collect();
            prop_assert_eq!(out, chunks.concat());
        }

        /// However the sources take turns, each line of the result has one source's prefix, and
        /// without prefixes and line breaks each source's text is whole.
        #[test]
        fn lines_are_never_mixed(turns in proptest::collection::vec((0..3_usize, "[xyz\n]{0,9}"), 0..40)) {
            let mut output = Output::new();
            for name in ["0:", "1:", "2:"] {
                output.add(Kind::Text, name.into());
            }
            let mut written = [String::new(), String::new(), String::new()];
            for (source, text) in &turns {
                output.write(*source, text.as_bytes());
                written[*source].push_str(text);
            }
            let mut seen = [String::new(), String::new(), String::new()];
            for line in shown(&mut output).lines() {
                let (source, text) = line.split_once(':').unwrap();
                seen[source.parse::<usize>().unwrap()].push_str(text);
            }
            for (seen, written) in seen.iter().zip(&written) {
                prop_assert_eq!(seen, &written.replace('\n', ""));
            }
        }
    }
}
