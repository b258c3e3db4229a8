//! How the logic reaches the kernel's table pages.

/// Words in a page.
pub const WORDS: usize = 512;

/// Access to pages that the kernel owns, by physical address.
///
/// A page that is freed may still be cached as part of a translation by a processor until the
/// caller has flushed; the implementor must not hand it out again before that. In practice: the
/// caller holds the only reference to the implementor until the flush is done.
pub trait Frames {
    /// One zeroed page, charged to the account that pays; `None` when that is exhausted.
    fn alloc(&mut self) -> Option<u64>;

    /// Takes back a page that [`Self::alloc`] gave.
    fn free(&mut self, page: u64);

    /// The 64-bit word number `index`, below [`WORDS`], of `page`.
    fn read(&self, page: u64, index: usize) -> u64;

    /// Stores a 64-bit word, in one access: hardware may read it at the same time.
    fn write(&mut self, page: u64, index: usize, value: u64);
}
