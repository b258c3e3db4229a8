//! The page that the root task hands to every task it starts.
//!
//! It lies at [`ADDRESS`] in the task's memory, read-only for the task, and says where everything
//! else is. The first thread's UTCB lies at [`UTCBS`]; the task puts the UTCBs of further threads
//! behind it. Apart from these addresses a task's memory is laid out by its linker script, its
//! own choice, and the areas named here.

use abi::cap::Selector;

/// Where a task finds its [`Startup`] page.
pub const ADDRESS: u64 = 0x7ffe_0000_0000;
/// Where the first thread's UTCB lies; the following pages are for those of further threads.
pub const UTCBS: u64 = 0x7ffd_0000_0000;

/// First word of the page.
pub const MAGIC: u64 = u64::from_le_bytes(*b"FerriteT");
/// Changes whenever the meaning of anything here does.
pub const VERSION: u64 = 5;

/// Most clients a console service can have.
pub const MAX_CLIENTS: usize = 24;
/// Longest name of a client in bytes.
pub const MAX_NAME: usize = 32;

/// A range of the task's memory; `len` 0 if there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Area {
    /// Address of the first byte, page-aligned.
    pub base: u64,
    /// Bytes. Areas are mapped in whole pages; the rest of the last one is zero.
    pub len: u64,
}

impl Area {
    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// Selectors from one CPU's [`Caps::exceptions`] and [`Caps::exit`] to those of the next.
pub const PORTALS: Selector = 64;

/// Selectors that are filled besides [`abi::cap::own`], [`abi::cap::NULL`] where the task was not
/// given such a thing; and those that the task is to fill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Caps {
    /// First of 32 portals to the root task, one for each exception: the first event selector of
    /// every thread of a task that wants its faults reported. They cannot be called. A message stays on its CPU, so each CPU
    /// that the task may use has portals of its own, [`PORTALS`] apart: see [`Startup::portals`].
    pub exceptions: Selector,
    /// First of the portals of [`crate::outcome::Outcome`]; likewise for each CPU.
    pub exit: Selector,
    /// Semaphore that wakes this task for its console and log channels. Others in the task may
    /// use it as well: a wake-up is a reason to look, nothing more.
    pub wake: Selector,
    /// Semaphore that wakes the console service; up only.
    pub console: Selector,
    /// MSR space with the registers that a guest may use without an exit.
    pub msrs: Selector,
    /// Where the task puts its virtual CPU: the root task looks there from time to time whether
    /// exits are answered.
    pub vcpu: Selector,
    /// Where it puts the scheduling context of that virtual CPU, which tells a monitor that works
    /// without end from one that gets no time.
    pub vcpu_time: Selector,
    /// Port space with the ports of the machine that the task may use. It is its domain's own.
    pub ports: Selector,
    /// First of the interrupts of the machine that the task may serve, in the order of its description: semaphores that it can
    /// assign and wait for.
    pub interrupts: Selector,
    /// Selectors from here on are free.
    pub free: Selector,
}

/// CPU time the task was promised, for the scheduling contexts it makes itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Share {
    /// Priority of its first thread; it can make no context above that.
    pub priority: u64,
    /// Ticks in each period, or the length of a time slice.
    pub budget: u64,
    /// Ticks, 0 if there are only time slices.
    pub period: u64,
}

/// The machine's screen, for the console service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Display {
    /// Its memory; empty if there is none.
    pub memory: Area,
    /// Bytes from one line to the next.
    pub stride: u32,
    /// Pixels in a line; characters on a text screen.
    pub width: u32,
    /// Lines of pixels, or of characters.
    pub height: u32,
    /// Bytes in a pixel; 0 for the text screen of a PC.
    pub bytes_per_pixel: u32,
}

/// A client of the console service, in the service's start-up page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Client {
    /// Name, padded with zeros.
    pub name: [u8; MAX_NAME],
    /// Its [`crate::console::ConsoleChannel`].
    pub console: Area,
    /// Its [`crate::console::LogChannel`].
    pub log: Area,
    /// Semaphore that wakes it; up only.
    pub wake: Selector,
    reserved: u32,
}

impl Client {
    /// A client with no channels yet. A name that is too long is cut.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut client = Self::default();
        for (to, from) in client.name.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        client
    }

    /// The name as text, as far as it is text.
    #[must_use]
    pub fn name(&self) -> &str {
        let name = self.name.split(|byte| *byte == 0).next().unwrap_or_default();
        match core::str::from_utf8(name) {
            Ok(name) => name,
            Err(error) => {
                let valid = name.get(..error.valid_up_to()).unwrap_or_default();
                core::str::from_utf8(valid).unwrap_or_default()
            }
        }
    }
}

/// The page.
#[derive(Clone, Debug)]
#[repr(C, align(4096))]
pub struct Startup {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`VERSION`].
    pub version: u64,
    /// Time-stamp-counter ticks in a second.
    pub tsc_hz: u64,
    /// What virtual CPUs can do: [`abi::hip::features`].
    pub features: u64,
    /// The CPU that the first thread runs on.
    pub cpu: u64,
    /// How many CPUs the machine has. They are numbered from 0.
    pub cpus: u64,
    /// Those that the task may use: a bit for each, from CPU 0 on.
    pub usable: u64,
    /// How many times the task was started before.
    pub restarts: u64,
    /// Seconds from 1970-01-01 00:00 UTC to the moment when the time-stamp counter was zero.
    pub epoch: u64,
    /// Selectors.
    pub caps: Caps,
    /// CPU time.
    pub share: Share,
    /// The system description with this task's partition alone in it, encoded as the image builder
    /// does it.
    pub config: Area,
    /// The guest's kernel image, read-only.
    pub kernel: Area,
    /// The guest's initial RAM disk, read-only.
    pub initrd: Area,
    /// Memory for the guest; at a multiple of 2 MiB.
    pub guest_memory: Area,
    /// The task's [`crate::console::ConsoleChannel`].
    pub console: Area,
    /// The task's [`crate::console::LogChannel`].
    pub log: Area,
    /// For the console service: where it shows what its clients write.
    pub display: Display,
    /// Number of valid `clients`.
    pub client_count: u64,
    /// For the console service: whom it serves.
    pub clients: [Client; MAX_CLIENTS],
}

impl Startup {
    /// A page that promises nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            magic: MAGIC,
            version: VERSION,
            tsc_hz: 0,
            features: 0,
            cpu: 0,
            cpus: 1,
            usable: 1,
            restarts: 0,
            epoch: 0,
            caps: Caps::default(),
            share: Share::default(),
            config: Area::default(),
            kernel: Area::default(),
            initrd: Area::default(),
            guest_memory: Area::default(),
            console: Area::default(),
            log: Area::default(),
            display: Display::default(),
            client_count: 0,
            clients: [Client::default(); MAX_CLIENTS],
        }
    }

    /// Whether the page is one that this code understands.
    #[must_use]
    pub const fn is_valid(&self) -> bool {
        self.magic == MAGIC && self.version == VERSION
    }

    /// How far the portals for `cpu` are from [`Caps::exceptions`] and [`Caps::exit`].
    #[must_use]
    pub const fn portals(&self, cpu: u16) -> Selector {
        portals(self.usable, cpu)
    }

    /// The valid clients.
    #[must_use]
    pub fn clients(&self) -> &[Client] {
        let count = usize::try_from(self.client_count).unwrap_or(MAX_CLIENTS).min(MAX_CLIENTS);
        self.clients.get(..count).unwrap_or_default()
    }
}

/// How far the portals for `cpu` are from the first, in a task that may use the CPUs `usable`.
#[must_use]
pub const fn portals(usable: u64, cpu: u16) -> Selector {
    let below = if cpu < 64 { usable & ((1 << cpu) - 1) } else { usable };
    below.count_ones() * PORTALS
}

impl Default for Startup {
    fn default() -> Self {
        Self::new()
    }
}

const _: () = assert!(size_of::<Startup>() == 4096);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_usable_cpu_has_portals_of_its_own() {
        for (usable, cpu, index) in [
            (0b1, 0, 0),
            (0b1000, 3, 0),
            (0b1010, 1, 0),
            (0b1010, 3, 1),
            (u64::MAX, 5, 5),
            (u64::MAX, 63, 63),
            (u64::MAX, 64, 64),
        ] {
            assert_eq!(portals(usable, cpu), index * PORTALS, "{cpu} of {usable:#b}");
        }
    }
}
