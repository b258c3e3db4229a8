//! What everything here works with.

use alloc::format;

use abi::bundle::{Bundle, Entry};
use abi::hip::Hip;
use abi::utcb::Utcb;
use root_task::status::Failure;
use runtime::clock::Clock;
use runtime::sm::Sm;

use crate::memory::Memory;

/// The machine, and what came with it.
#[derive(Debug)]
pub struct Context {
    /// What the kernel says about it.
    pub hip: &'static Hip,
    /// This thread's message page.
    pub utcb: &'static mut Utcb,
    /// Its clock.
    pub clock: Clock,
    /// Seconds from 1970 to the moment when that clock was zero; 0 if nobody knows.
    pub epoch: u64,
    /// Its memory.
    pub memory: Memory,
    /// The boot bundle.
    pub bundle: Bundle<'static>,
    /// Wakes the root task's first thread.
    pub wake: Sm,
    /// Wakes the console service.
    pub console: Sm,
}

impl Context {
    /// An entry of the bundle, and its physical address.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(&self, name: &str) -> Result<(Entry<'static>, u64), Failure> {
        let entry = self.bundle.find(name).ok_or_else(|| {
            Failure::Other(format!(
                "the boot image has no `{name}`: correct the manifest or build the image again"
            ))
        })?;
        Ok((entry, self.hip.bundle_base + entry.offset as u64))
    }
}
