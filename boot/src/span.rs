//! Half-open ranges of addresses, and page arithmetic that cannot wrap.

/// Bytes in a base page.
pub const PAGE: u64 = 4096;

/// Addresses from `start` up to but not including `end`, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First address.
    pub start: u64,
    /// One past the last address.
    pub end: u64,
}

impl Span {
    /// The `length` bytes from `start`; what would reach past the last address is cut off.
    pub const fn new(start: u64, length: u64) -> Self {
        Self { start, end: start.saturating_add(length) }
    }

    /// Length in bytes; zero if the span is empty or inverted.
    pub const fn length(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether no address lies inside.
    pub const fn is_empty(self) -> bool {
        self.end <= self.start
    }

    /// Whether an address lies in both spans.
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end && !self.is_empty() && !other.is_empty()
    }

    /// Whether all of `other` lies inside.
    pub const fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// The smallest page-aligned span around this one.
    pub const fn pages_around(self) -> Self {
        Self { start: align_down(self.start, PAGE), end: align_up(self.end, PAGE) }
    }

    /// The largest page-aligned span within this one; may be empty.
    pub const fn pages_within(self) -> Self {
        Self { start: align_up(self.start, PAGE), end: align_down(self.end, PAGE) }
    }
}

/// Rounds down to a multiple of `unit`, a power of two.
pub const fn align_down(value: u64, unit: u64) -> u64 {
    value & !(unit - 1)
}

/// Rounds up to a multiple of `unit`, a power of two; sticks at the highest multiple.
pub const fn align_up(value: u64, unit: u64) -> u64 {
    match value.checked_add(unit - 1) {
        Some(sum) => align_down(sum, unit),
        None => align_down(u64::MAX, unit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding() {
        let span = Span::new(0x1234, 0x2000);
        assert_eq!(span.pages_around(), Span { start: 0x1000, end: 0x4000 });
        assert_eq!(span.pages_within(), Span { start: 0x2000, end: 0x3000 });
        assert!(Span::new(0x1234, 0x10).pages_within().is_empty());
        assert_eq!(Span::new(u64::MAX, 5).pages_around().end, 0xffff_ffff_ffff_f000);
    }

    #[test]
    fn overlap_needs_a_common_address() {
        let span = Span::new(10, 10);
        assert!(span.overlaps(Span::new(19, 1)));
        assert!(!span.overlaps(Span::new(20, 1)));
        assert!(!span.overlaps(Span::new(15, 0)));
        assert!(span.contains(Span::new(10, 10)) && !span.contains(Span::new(10, 11)));
    }
}
