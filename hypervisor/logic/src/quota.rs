//! Accounts of kernel memory, in pages.

use abi::hypercall::Status;

/// What a protection domain may spend on kernel memory and what it has left of it.
///
/// Free pages never exceed the limit; the sum of the limits changes by nothing here.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Quota {
    free: u64,
    limit: u64,
    closed: bool,
}

impl Quota {
    /// An account of `limit` pages, all free.
    pub const fn new(limit: u64) -> Self {
        Self { free: limit, limit, closed: false }
    }

    /// Pages that can still be taken.
    pub const fn free(&self) -> u64 {
        self.free
    }

    /// Pages that belong to the account, taken or not.
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// Pays for `pages`.
    ///
    /// # Errors
    /// [`Status::Quota`] if fewer are free, or the account is closed; nothing was taken then.
    pub fn take(&mut self, pages: u64) -> Result<(), Status> {
        if self.closed {
            return Err(Status::Quota);
        }
        self.free = self.free.checked_sub(pages).ok_or(Status::Quota)?;
        Ok(())
    }

    /// From now on nothing can be taken, not even nothing.
    pub const fn close(&mut self) {
        self.closed = true;
    }

    /// Gets back pages that [`Self::take`] paid for.
    pub fn give(&mut self, pages: u64) {
        debug_assert!(pages <= self.limit.wrapping_sub(self.free), "given back twice");
        self.free = self.free.saturating_add(pages).min(self.limit);
    }

    /// Moves free pages from one account to another.
    ///
    /// # Errors
    /// [`Status::Quota`] if `from` has fewer free pages, or `to` cannot count so many; nothing has
    /// moved then.
    pub fn transfer(from: &mut Self, to: &mut Self, pages: u64) -> Result<(), Status> {
        let left = from.free.checked_sub(pages).ok_or(Status::Quota)?;
        // The limit bounds the free pages, so this one check covers both.
        let limit = to.limit.checked_add(pages).ok_or(Status::Quota)?;
        from.free = left;
        from.limit = from.limit.saturating_sub(pages);
        to.free = to.free.saturating_add(pages);
        to.limit = limit;
        Ok(())
    }
}
