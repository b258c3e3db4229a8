//! Machine checks: the hardware itself is failing, and a CPU cannot be trusted any more.

use core::arch::x86_64::__cpuid;

use super::msr::Msr;
use crate::println;

/// IA32_MCG_CAP.
const MCG_CAP: Msr = Msr(0x179);
/// IA32_MCG_CTL.
const MCG_CTL: Msr = Msr(0x17b);
/// IA32_MC0_CTL; those of further banks follow, four apart.
const MC0_CTL: u32 = 0x400;

/// Has this CPU report all errors that its banks can see: until then it raises none (SDM 3B 16.3, APM 2 9.3).
pub fn enable() {
    const ARCHITECTURE: u32 = 1 << 14;
    const HAS_CONTROL: u64 = 1 << 8;
    if __cpuid(1).edx & ARCHITECTURE == 0 {
        return;
    }
    // SAFETY: a processor with the machine-check architecture has the registers of as many banks as it says.
    unsafe {
        let capabilities = MCG_CAP.read();
        if capabilities & HAS_CONTROL != 0 {
            MCG_CTL.write(u64::MAX);
        }
        for bank in 0..u32::from(capabilities as u8) {
            Msr(MC0_CTL + 4 * bank).write(u64::MAX);
        }
    }
}

/// Tells people, as the last thing.
pub fn report() {
    crate::log::take_back();
    println!("the processor reports a machine check: the hardware is failing");
}

/// One that came while a guest ran.
pub fn stop() -> ! {
    report();
    super::halt_forever()
}
