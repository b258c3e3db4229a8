//! Page tables: one code for ring-3 address spaces and for guest memory.
//!
//! [`Format`] says how entries look, [`PageTable`] walks and changes them, [`grant()`] copies
//! mappings from one memory space to another.
//!
//! Freeing and flushing: a changed translation stays usable until it is flushed from the TLBs, and
//! table pages are given back to [`crate::frames::Frames`] in the middle of an operation. Whoever
//! calls holds the lock of the frames, and does not let go of it before it has acted on the
//! [`Flush`] that the operation returned.

mod format;
mod grant;
mod table;
mod walk;

pub use format::{Ept, Format, Host, Npt};
pub use grant::{Cursor, Extent, Run, Source, grant};
pub use table::{Mapping, PageTable};

use abi::cap::MemRights;
use abi::hypercall::Status;

/// Marks a leaf that belongs to the kernel, such as a UTCB: it cannot be the source of a grant, and
/// only [`PageTable::map`], or a removal that names this bit, replaces it. Only leaves of 4 KiB in
/// [`Host`] tables can be pinned. Not part of the ABI.
pub const PINNED: MemRights = MemRights(1 << 31);

/// Whether stale translations may be cached.
///
/// Of two, the larger one counts for both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[must_use]
pub enum Flush {
    /// No present translation changed.
    #[default]
    None,
    /// A present translation changed or lost rights, or a table page was freed.
    Needed,
}

/// How far an operation on a range came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Progress {
    /// 4 KiB pages worked through from the start of the range. Less than asked without an error
    /// means that the work for one go is used up: call again from there.
    pub done: u64,
    /// Whether to flush; meaningful with an error too.
    pub flush: Flush,
    /// What ended the operation early: [`Status::Quota`] or [`Status::BadParam`], as for
    /// [`PageTable::map`].
    pub error: Option<Status>,
}
