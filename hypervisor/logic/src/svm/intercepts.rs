//! The intercept words of a VMCB by name (APM 2 15.9 to 15.12, table B-1). The word for exceptions
//! needs no names: bit n is vector n.

use bitflags::bitflags;

bitflags! {
    /// Offset 000h: reads and writes of control registers.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ControlRegisters: u32 {
        /// MOV from CR8.
        const READ_CR8 = 1 << 8;
        /// MOV to CR0, CLTS, LMSW.
        const WRITE_CR0 = 1 << 16;
        /// MOV to CR4.
        const WRITE_CR4 = 1 << 20;
        /// MOV to CR8.
        const WRITE_CR8 = 1 << 24;
    }

    /// Offset 00Ch.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Misc1: u32 {
        /// Physical maskable interrupts.
        const INTR = 1 << 0;
        /// NMIs.
        const NMI = 1 << 1;
        /// INIT.
        const INIT = 1 << 3;
        /// The guest can take the virtual interrupt.
        const VINTR = 1 << 4;
        /// Writes of CR0 that change other bits than TS and MP.
        const CR0_SEL_WRITE = 1 << 5;
        /// RDTSC.
        const RDTSC = 1 << 14;
        /// RDPMC.
        const RDPMC = 1 << 15;
        /// CPUID.
        const CPUID = 1 << 18;
        /// IRET, before it ends the blocking of NMIs.
        const IRET = 1 << 20;
        /// INVD.
        const INVD = 1 << 22;
        /// PAUSE.
        const PAUSE = 1 << 23;
        /// HLT.
        const HLT = 1 << 24;
        /// INVLPGA.
        const INVLPGA = 1 << 26;
        /// I/O instructions exit as the I/O permission map says.
        const IOIO_PROT = 1 << 27;
        /// RDMSR and WRMSR exit as the MSR permission map says.
        const MSR_PROT = 1 << 28;
        /// Task switches.
        const TASK_SWITCH = 1 << 29;
        /// The processor freezes because of FERR.
        const FERR_FREEZE = 1 << 30;
        /// Triple faults, and what else shuts the processor down.
        const SHUTDOWN = 1 << 31;
    }

    /// Offset 010h.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Misc2: u32 {
        /// VMRUN; without it VMRUN is refused.
        const VMRUN = 1 << 0;
        /// VMMCALL.
        const VMMCALL = 1 << 1;
        /// VMLOAD.
        const VMLOAD = 1 << 2;
        /// VMSAVE.
        const VMSAVE = 1 << 3;
        /// STGI.
        const STGI = 1 << 4;
        /// CLGI.
        const CLGI = 1 << 5;
        /// SKINIT.
        const SKINIT = 1 << 6;
        /// RDTSCP.
        const RDTSCP = 1 << 7;
        /// WBINVD, WBNOINVD.
        const WBINVD = 1 << 9;
        /// MONITOR, MONITORX.
        const MONITOR = 1 << 10;
        /// MWAIT, MWAITX.
        const MWAIT = 1 << 11;
        /// XSETBV.
        const XSETBV = 1 << 13;
        /// RDPRU.
        const RDPRU = 1 << 14;
    }

    /// Offset 014h.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Misc3: u32 {
        /// INVLPGB.
        const INVLPGB = 1 << 0;
        /// INVLPGB, where it is not legal.
        const INVLPGB_ILLEGAL = 1 << 1;
        /// MCOMMIT.
        const MCOMMIT = 1 << 3;
        /// TLBSYNC.
        const TLBSYNC = 1 << 4;
    }

    /// The virtual interrupt and what belongs to it, at offset 060h (APM 2 15.21). The vector is
    /// in bits 32 to 39, the task priority in bits 0 to 7, the priority of the virtual interrupt in
    /// bits 16 to 19.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct VirtualInterrupt: u64 {
        /// A virtual interrupt is pending.
        const IRQ = 1 << 8;
        /// The virtual interrupt is taken whatever the task priority is.
        const IGNORE_TPR = 1 << 20;
        /// RFLAGS.IF and CR8 of the guest concern virtual interrupts only.
        const INTR_MASKING = 1 << 24;
    }
}

/// All reads and writes of debug registers, in the word at offset 004h.
pub const DEBUG_REGISTERS: u32 = 0xff << 16 | 0xff;

/// Values of TLB_CONTROL at offset 05Ch: what VMRUN flushes (APM 2 15.16.1).
pub mod tlb_control {
    /// Nothing.
    pub const NONE: u8 = 0;
    /// Everything, of all ASIDs and of the host.
    pub const ALL: u8 = 1;
}
