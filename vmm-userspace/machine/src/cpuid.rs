//! What CPUID tells the guest.
//!
//! The table is made once from the host's; a look-up at an exit is an index. Bits that follow the guest's state are written
//! into the table when that state changes. What is passed and why is in [`policy`].

pub mod policy;
mod xsave;

use alloc::vec::Vec;

use crate::layout::PHYSICAL_BITS_MAX;

/// EAX, EBX, ECX, EDX.
pub type Registers = [u32; 4];

/// First leaf of the hypervisor's range.
const HYPERVISOR: u32 = 0x4000_0000;
/// "FerriteVMM" in EBX, ECX, EDX of leaf 4000_0000.
const SIGNATURE: [u8; 12] = *b"FerriteVMM\0\0";
/// Highest basic leaf at most: nothing above has anything to offer to a guest.
const BASIC_MAX: u32 = 0xd;
/// Highest extended leaf at most (SDM 2A, CPUID; APM 3 E.4).
const EXTENDED_MAX: [u32; 2] = [0x8000_0008, 0x8000_0021];
/// Leaf 8000_0001 ECX: leaves 8000_001D and 8000_001E are there.
const TOPOLOGY_EXTENSIONS: u32 = 1 << 22;
const OSXSAVE: u32 = 1 << 27;
const APIC: u32 = 1 << 9;

/// Which of the two manuals describes a processor, where they differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manual {
    /// The Software Developer's Manual.
    #[default]
    Sdm,
    /// The Architecture Programmer's Manual.
    Apm,
}

impl Manual {
    /// By the name in leaf 0 (APM 3 E.3.1).
    #[must_use]
    pub fn of(leaf: Registers) -> Self {
        let [_, b, c, d] = leaf;
        let words = [b, d, c].map(u32::to_le_bytes);
        match words.as_flattened() {
            b"AuthenticAMD" | b"HygonGenuine" => Self::Apm,
            _ => Self::Sdm,
        }
    }
}

/// What the table depends on beside the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Virtual CPUs of the machine.
    pub cpus: u32,
    /// APIC id of the one that asks.
    pub apic_id: u32,
    /// Whether the kernel lets guests use XSAVE.
    pub xsave: bool,
}

/// One leaf: its registers, or those of its subleaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Leaf {
    registers: Registers,
    /// Subleaves, if ECX matters. Above the last one `registers` count.
    sub: Vec<Registers>,
}

/// The CPUID of one virtual CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpuid {
    basic: Vec<Leaf>,
    extended: Vec<Leaf>,
    hypervisor: Leaf,
    manual: Manual,
}

/// A leaf that says nothing.
static EMPTY: Leaf = Leaf { registers: [0; 4], sub: Vec::new() };

impl Cpuid {
    /// Makes the table from `host`, which answers CPUID for a leaf and a subleaf on the CPU the guest runs on.
    #[must_use]
    pub fn new(mut host: impl FnMut(u32, u32) -> Registers, topology: Topology) -> Self {
        let manual = Manual::of(host(0, 0));
        let mut masked =
            |leaf: u32, subleaf: u32| policy::mask(leaf, host(leaf, subleaf), topology, manual);
        let max = masked(0, 0)[0].clamp(0xb, BASIC_MAX);
        let mut basic: Vec<Leaf> =
            (0..=max).map(|leaf| Leaf { registers: masked(leaf, 0), sub: Vec::new() }).collect();
        let [sdm_max, apm_max] = EXTENDED_MAX;
        let extended_limit = if manual == Manual::Apm { apm_max } else { sdm_max };
        let extended_max = masked(0x8000_0000, 0)[0].clamp(0x8000_0000, extended_limit);
        let mut extended: Vec<Leaf> = (0x8000_0000..=extended_max)
            .map(|leaf| Leaf { registers: masked(leaf, 0), sub: Vec::new() })
            .collect();
        if let Some(leaf) = basic.first_mut() {
            leaf.registers[0] = max;
        }
        if let Some(leaf) = extended.first_mut() {
            leaf.registers[0] = extended_max;
        }
        if let Some(leaf) = basic.get_mut(4) {
            leaf.sub = caches(&mut masked, 4, topology);
            leaf.registers = [0; 4];
        }
        let described = extended.get(1).is_some_and(|leaf| {
            let [_, _, ecx, _] = leaf.registers;
            ecx & TOPOLOGY_EXTENSIONS != 0
        });
        if let Some([caches_leaf, topology_leaf]) = extended.get_mut(0x1d..0x1f) {
            caches_leaf.registers = [0; 4];
            if described {
                caches_leaf.sub = caches(&mut masked, 0x8000_001d, topology);
            } else {
                topology_leaf.registers = [0; 4];
            }
        }
        if let Some(leaf) = basic.get_mut(7) {
            leaf.sub = alloc::vec![leaf.registers];
            leaf.registers = [0; 4];
        }
        if let Some(leaf) = basic.get_mut(0xb) {
            leaf.sub = policy::topology_levels(topology).to_vec();
            leaf.registers = [0, 0, 0, topology.apic_id];
        }
        if let Some(leaf) = basic.get_mut(0xd) {
            leaf.registers = [0; 4];
            if topology.xsave {
                leaf.sub = xsave::subleaves(&mut masked);
            }
        }
        let word = |at: usize| {
            SIGNATURE.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
        };
        let registers = [HYPERVISOR, word(0), word(4), word(8)];
        let mut cpuid =
            Self { basic, extended, hypervisor: Leaf { registers, sub: Vec::new() }, manual };
        cpuid.set_xcr0(1);
        cpuid
    }

    /// What the guest gets for `leaf` (EAX) and `subleaf` (ECX).
    ///
    /// Leaves above the highest of their range answer like the highest basic leaf (SDM 2A, CPUID), or zeros (APM 3 appendix E).
    #[inline]
    #[must_use]
    pub fn lookup(&self, leaf: u32, subleaf: u32) -> Registers {
        let entry = match self.basic.get(leaf as usize) {
            Some(entry) => entry,
            None => self.outside(leaf),
        };
        if entry.sub.is_empty() {
            return entry.registers;
        }
        match entry.sub.get(subleaf as usize) {
            Some(registers) => *registers,
            None => {
                let [a, b, c, d] = entry.registers;
                // Leaf 0xb repeats the number of a level that does not exist (SDM 2A, CPUID).
                [a, b, if leaf == 0xb { c | subleaf & 0xff } else { c }, d]
            }
        }
    }

    fn outside(&self, leaf: u32) -> &Leaf {
        if leaf == HYPERVISOR {
            return &self.hypervisor;
        }
        let index = leaf.wrapping_sub(0x8000_0000) as usize;
        let beyond = || match self.manual {
            Manual::Sdm => self.basic.last(),
            Manual::Apm => None,
        };
        self.extended.get(index).or_else(beyond).unwrap_or(&EMPTY)
    }

    /// The guest changed CR4.OSXSAVE.
    pub fn set_osxsave(&mut self, on: bool) {
        if let Some(leaf) = self.basic.get_mut(1) {
            let [_, _, ecx, _] = &mut leaf.registers;
            let supported = *ecx & policy::XSAVE != 0;
            *ecx = *ecx & !OSXSAVE | if on && supported { OSXSAVE } else { 0 };
        }
    }

    /// The guest enabled or disabled its local APIC with IA32_APIC_BASE (SDM 3A 11.4.3).
    pub fn set_apic(&mut self, on: bool) {
        if let Some(leaf) = self.basic.get_mut(1) {
            let [.., edx] = &mut leaf.registers;
            *edx = *edx & !APIC | if on { APIC } else { 0 };
        }
    }

    /// The guest changed XCR0: the sizes in leaf 0xd follow.
    pub fn set_xcr0(&mut self, xcr0: u64) {
        if let Some(leaf) = self.basic.get_mut(0xd) {
            xsave::set_sizes(&mut leaf.sub, xcr0);
        }
    }

    /// Bits that XCR0 may have; 0 without XSAVE.
    #[must_use]
    pub fn xcr0_mask(&self) -> u64 {
        let [low, _, _, high] = self.lookup(0xd, 0);
        u64::from(high) << 32 | u64::from(low)
    }

    /// The manual that describes this processor.
    #[must_use]
    pub const fn manual(&self) -> Manual {
        self.manual
    }

    /// Width of guest-physical addresses.
    #[must_use]
    pub fn physical_bits(&self) -> u32 {
        match self.lookup(0x8000_0008, 0)[0] & 0xff {
            bits @ 32..=PHYSICAL_BITS_MAX => bits,
            _ => 36,
        }
    }

    /// Bits of CR4 that the features allow.
    #[must_use]
    pub fn cr4_mask(&self) -> u64 {
        policy::cr4(self.lookup(1, 0), self.lookup(7, 0))
    }

    /// Bits of IA32_EFER that the features allow.
    #[must_use]
    pub fn efer_mask(&self) -> u64 {
        policy::efer(self.lookup(0x8000_0001, 0))
    }
}

/// Leaf 4 or 8000_001D: the host's caches, shared by the guest's CPUs (SDM 2A table 3-17; APM 3 E.4, function 8000_001D).
fn caches(
    host: &mut impl FnMut(u32, u32) -> Registers,
    leaf: u32,
    topology: Topology,
) -> Vec<Registers> {
    let mut caches = Vec::new();
    for subleaf in 0..8 {
        let [eax, ebx, ecx, edx] = host(leaf, subleaf);
        if eax & 0x1f == 0 {
            break;
        }
        let last = topology.cpus.max(1) - 1;
        let shared = if eax >> 5 & 7 >= 3 { last.min(0xfff) } else { 0 };
        // Only the one leaf has the number of cores.
        let cores = if leaf == 4 { last.min(63) } else { 0 };
        let eax = eax & 0x3fff | shared << 14 | cores << 26;
        caches.push([eax, ebx, ecx, edx]);
    }
    caches.push([0; 4]);
    caches
}

#[cfg(test)]
mod tests;
