//! What the loader asks of the processor.

use core::arch::x86_64::__cpuid;

use boot::address_space::PHYSICAL_LIMIT;
use x86_64::instructions::{hlt, interrupts};
use x86_64::registers::model_specific::{Efer, EferFlags};

/// Features that decide how memory is mapped.
pub struct Features {
    /// Execute-disable, CPUID.80000001H:EDX[20].
    pub execute_disable: bool,
    /// 1 GiB pages, CPUID.80000001H:EDX[26].
    pub huge_pages: bool,
    /// Bits of a physical address, CPUID.80000008H:EAX[7:0].
    pub physical_bits: u32,
}

impl Features {
    /// Physical addresses from here on do not exist, or have no place in the kernel's mapping.
    pub fn physical_limit(&self) -> u64 {
        PHYSICAL_LIMIT.min(1 << self.physical_bits.clamp(32, 52))
    }
}

/// Asks CPUID (SDM 2A, CPUID, table 3-8).
pub fn features() -> Features {
    let leaves = __cpuid(0x8000_0000).eax;
    let features = __cpuid(0x8000_0001).edx;
    // Without the leaf, 36 bits are what every processor with long mode has.
    let physical_bits = if leaves >= 0x8000_0008 { __cpuid(0x8000_0008).eax & 0xff } else { 36 };
    Features {
        execute_disable: features & 1 << 20 != 0,
        huge_pages: features & 1 << 26 != 0,
        physical_bits,
    }
}

/// Makes bit 63 of page-table entries mean execute-disable.
pub fn enable_execute_disable() {
    // SAFETY: called only where CPUID offers the bit; no entry in use has bit 63 set.
    unsafe { Efer::update(|flags| flags.insert(EferFlags::NO_EXECUTE_ENABLE)) }
}

/// Stops this processor for good.
pub fn halt() -> ! {
    interrupts::disable();
    loop {
        hlt();
    }
}
