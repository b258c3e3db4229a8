//! The message page of a thread.
//!
//! The kernel owns the page and maps it into the thread's domain. A message is words and typed
//! items; the tag that says how many travels in a register.

use crate::cap::Selector;

/// Words of payload a message can have.
pub const MAX_WORDS: usize = 256;
/// Capabilities a message can pass.
pub const MAX_ITEMS: usize = 16;

/// A thread's message page: exactly one page.
///
/// While a handler answers a VM exit or a thread's exception, the words are a
/// [`crate::vcpu::VcpuState`] or a [`crate::fault::FaultState`].
#[derive(Clone, Debug)]
#[repr(C, align(4096))]
pub struct Utcb {
    /// Payload.
    pub words: [u64; MAX_WORDS],
    /// Sender: capabilities to pass. Receiver: where they landed.
    pub items: [Item; MAX_ITEMS],
    /// Where this thread takes capabilities that are passed to it.
    pub window: Window,
    reserved: [u64; 222],
}

/// One capability in a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Item {
    /// Sender: which of its capabilities. Receiver: the selector it was put at, or 0 if it was not taken.
    pub selector: Selector,
    /// Sender: permissions to pass on. Receiver: permissions it got.
    pub perms: u32,
    reserved: u64,
}

impl Item {
    /// An item that passes the capability at `selector` with `perms`.
    #[must_use]
    pub const fn new(selector: Selector, perms: crate::cap::Perms) -> Self {
        Self { selector, perms: perms.0 as u32, reserved: 0 }
    }
}

/// The selectors into which a thread takes capabilities: item `i` of a message goes to `base + i`, if `i` is below `count`
/// and that selector is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Window {
    /// First selector.
    pub base: Selector,
    /// How many.
    pub count: u32,
}

/// How much a message carries: words in bits 0-8, items in bits 16-20.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct MsgTag(pub u64);

impl MsgTag {
    /// A message of `words` words and `items` items, each cut to what a UTCB holds.
    #[must_use]
    pub const fn new(words: usize, items: usize) -> Self {
        let words = if words > MAX_WORDS { MAX_WORDS } else { words };
        let items = if items > MAX_ITEMS { MAX_ITEMS } else { items };
        Self(words as u64 | (items as u64) << 16)
    }

    /// Number of words, at most [`MAX_WORDS`].
    #[must_use]
    pub const fn words(self) -> usize {
        let n = (self.0 & 0x1ff) as usize;
        if n > MAX_WORDS { MAX_WORDS } else { n }
    }

    /// Number of items, at most [`MAX_ITEMS`].
    #[must_use]
    pub const fn items(self) -> usize {
        let n = (self.0 >> 16 & 0x1f) as usize;
        if n > MAX_ITEMS { MAX_ITEMS } else { n }
    }
}

const _: () = assert!(size_of::<Utcb>() == 4096);
