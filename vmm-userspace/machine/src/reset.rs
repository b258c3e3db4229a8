//! The state of a virtual CPU after power-on (SDM 3A table 10-1).

use abi::vcpu::{Event, Segment, VcpuState, Window};

/// IA32_PAT after reset (SDM 3A 12.12.4).
pub const PAT: u64 = 0x0007_0406_0007_0406;

/// All of the state image as after power-on, with CPUID leaf 1 EAX in EDX.
#[must_use]
pub fn power_on(signature: u32) -> VcpuState {
    let data = Segment { selector: 0, attr: 0x93, limit: 0xffff, base: 0 };
    let mut state = VcpuState {
        rip: 0xfff0,
        rflags: 2,
        event: Event::NONE,
        window: Window(0),
        deadline: u64::MAX,
        cr0: 0x6000_0010,
        dr6: 0xffff_0ff0,
        dr7: 0x400,
        pat: PAT,
        cs: Segment { selector: 0xf000, attr: 0x9b, limit: 0xffff, base: 0xffff_0000 },
        ss: data,
        ds: data,
        es: data,
        fs: data,
        gs: data,
        tr: Segment { attr: 0x8b, ..data },
        ldtr: Segment { attr: 0x82, ..data },
        xcr0: 1,
        ..VcpuState::default()
    };
    state.gdtr.limit = 0xffff;
    state.idtr.limit = 0xffff;
    state.gpr.rdx = u64::from(signature);
    state
}
