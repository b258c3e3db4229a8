//! Takes new lines out of the kernel's log.

use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::hip::{LOG_SIZE, LogRing};

/// Longest line; a longer one is shown in pieces.
const MAX_LINE: usize = 400;

/// A reader of the log.
#[derive(Clone, Debug)]
pub struct KernelLog {
    /// Bytes read so far.
    read: u64,
    /// The start of a line whose end is not there yet.
    line: Vec<u8>,
}

impl KernelLog {
    /// From the next line on: what is there already, the kernel itself showed.
    #[must_use]
    pub fn new(ring: &LogRing) -> Self {
        Self { read: ring.written.load(Ordering::Acquire), line: Vec::new() }
    }

    /// Hands every line that was finished since the last time to `show`.
    pub fn pump(&mut self, ring: &LogRing, mut show: impl FnMut(&str)) {
        let written = ring.written.load(Ordering::Acquire);
        let oldest = written.saturating_sub(LOG_SIZE as u64);
        if self.read < oldest {
            self.line.clear();
            let lost = oldest - self.read;
            self.read = oldest;
            show(&alloc::format!("[{lost} bytes of the log are lost]"));
        }
        while self.read < written {
            // The remainder is below the size of the ring.
            let Some(byte) = ring.text.get((self.read % LOG_SIZE as u64) as usize) else { return };
            let byte = byte.load(Ordering::Relaxed);
            self.read += 1;
            if byte != b'\n' && byte != b'\r' {
                self.line.push(byte);
            }
            if byte == b'\n' || self.line.len() >= MAX_LINE {
                show(&String::from_utf8_lossy(&self.line));
                self.line.clear();
            }
        }
    }
}

/// What the kernel has counted and nobody was told of, if there is anything: for people who wonder about their devices.
#[must_use]
pub fn counted(ring: &LogRing) -> Option<String> {
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    let [unwanted, storms, nmis] = [count(&ring.spurious), count(&ring.storms), count(&ring.nmis)];
    (unwanted | storms | nmis != 0).then(|| {
        alloc::format!(
            "interrupts: {unwanted} that nobody wanted, {storms} that came too often and were held back, {nmis} NMIs"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(ring: &LogRing, text: &str) {
        for byte in text.bytes() {
            let at = ring.written.fetch_add(1, Ordering::Release);
            ring.text[at as usize % LOG_SIZE].store(byte, Ordering::Relaxed);
        }
    }

    fn pump(log: &mut KernelLog, ring: &LogRing) -> Vec<String> {
        let mut lines = Vec::new();
        log.pump(ring, |line| lines.push(line.into()));
        lines
    }

    #[test]
    fn lines_appear_once_and_whole() {
        let ring = LogRing::new();
        append(&ring, "shown by the kernel\n");
        let mut log = KernelLog::new(&ring);
        append(&ring, "one\r\ntw");
        assert_eq!(pump(&mut log, &ring), ["one"]);
        append(&ring, "o\n\nthree\n");
        assert_eq!(pump(&mut log, &ring), ["two", "", "three"]);
        assert!(pump(&mut log, &ring).is_empty());
    }

    #[test]
    fn an_overrun_is_reported_and_the_rest_shown() {
        let ring = LogRing::new();
        let mut log = KernelLog::new(&ring);
        append(&ring, "first\n");
        let line = "x".repeat(99) + "\n";
        append(&ring, &line.repeat(LOG_SIZE / 100 + 1));
        let lines = pump(&mut log, &ring);
        let lost = 6 + (LOG_SIZE / 100 + 1) * 100 - LOG_SIZE;
        assert_eq!(lines[0], format!("[{lost} bytes of the log are lost]"));
        assert_eq!(lines.len(), 1 + LOG_SIZE / 100 + 1);
        assert!(lines[2..].iter().all(|shown| *shown == "x".repeat(99)));
    }

    #[test]
    fn a_line_without_end_does_not_grow_for_ever() {
        let ring = LogRing::new();
        let mut log = KernelLog::new(&ring);
        append(&ring, &"y".repeat(2 * MAX_LINE + 1));
        assert_eq!(pump(&mut log, &ring), ["y".repeat(MAX_LINE), "y".repeat(MAX_LINE)]);
    }

    #[test]
    fn only_what_was_counted_is_told() {
        let ring = LogRing::new();
        assert_eq!(counted(&ring), None);
        ring.nmis.store(3, Ordering::Relaxed);
        ring.spurious.store(1, Ordering::Relaxed);
        let text =
            "interrupts: 1 that nobody wanted, 0 that came too often and were held back, 3 NMIs";
        assert_eq!(counted(&ring).as_deref(), Some(text));
    }
}
