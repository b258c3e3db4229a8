//! Virtual CPUs: why they stop, and their state.
//!
//! When a virtual CPU leaves its guest, the portal at "first event selector + [`Exit`]" is called. The kernel
//! moves the groups of state that the portal asks for ([`Groups`]) into the handler's UTCB as a
//! [`VcpuState`]; the reply names the groups to write back, and the guest goes on.

pub use crate::fault::Gprs;

/// Why a virtual CPU left its guest. The number is the offset of the portal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Exit {
    /// The first entry, before any guest instruction: the handler sets the initial state.
    Startup = 0,
    /// [`crate::hypercall::EcOp::Recall`], or the deadline of [`VcpuState::deadline`] passed.
    Recall = 1,
    /// The processor refused the guest state, or the event to inject. `qual[0]` = the vendor's reason and `qual[2]` = its error
    /// number, for people.
    BadState = 2,
    /// Triple fault.
    TripleFault = 3,
    /// An exception that [`VcpuState::exceptions`] intercepts. `qual[0]` = event as in
    /// [`Event`] `info`, `qual[1]` = error code, `qual[2]` = address of a page fault, or the DR6 bits of a debug exception.
    Exception = 4,
    /// The guest can take an interrupt, as asked with [`Window::INTERRUPT`].
    InterruptWindow = 5,
    /// The guest can take an NMI, as asked with [`Window::NMI`].
    NmiWindow = 6,
    /// HLT.
    Hlt = 7,
    /// CPUID.
    Cpuid = 8,
    /// IN, OUT, INS or OUTS: `qual[0]` = [`PortAccess`], `qual[1]` = linear address of a string access
    /// if bit [`PortAccess::ADDRESS_VALID`].
    Port = 9,
    /// RDMSR.
    MsrRead = 10,
    /// WRMSR.
    MsrWrite = 11,
    /// An access to guest-physical memory that is not mapped so: `qual[0]` = [`MemoryAccess`] bits, `qual[1]` =
    /// guest-physical address, `qual[2]` = guest-linear address if bit [`MemoryAccess::LINEAR_VALID`].
    Memory = 12,
    /// MOV to or from a control register, CLTS, LMSW, SMSW: `qual[0]` = [`ControlAccess`].
    Control = 13,
    /// MOV to or from a debug register: `qual[0]` = [`ControlAccess`] of kind 0 or 1.
    Debug = 14,
    /// Loads and stores of GDTR, IDTR, LDTR, TR.
    DescriptorTable = 15,
    /// The guest called the hypervisor (VMCALL, VMMCALL).
    Hypercall = 16,
    /// Another virtualization instruction.
    Virtualization = 17,
    /// INVD or WBINVD.
    CacheInvalidate = 18,
    /// XSETBV.
    Xsetbv = 19,
    /// RDTSC, RDTSCP.
    Rdtsc = 20,
    /// RDPMC.
    Rdpmc = 21,
    /// INVLPG, INVPCID.
    Invlpg = 22,
    /// PAUSE.
    Pause = 23,
    /// MONITOR, MWAIT.
    Mwait = 24,
    /// A task switch: `qual[0]` = selector in bits 0-15, source in 30-31 (0 CALL, 1 IRET, 2 JMP, 3 task gate).
    TaskSwitch = 25,
    /// An INIT reached the physical processor.
    Init = 26,
    /// Anything else: `qual[0]` = the vendor's exit code, for people.
    Other = 27,
}

/// Number of portals a virtual CPU needs.
pub const EXITS: u32 = 28;

impl Exit {
    /// All exits, in the order of their numbers.
    pub const ALL: [Self; EXITS as usize] = [
        Self::Startup,
        Self::Recall,
        Self::BadState,
        Self::TripleFault,
        Self::Exception,
        Self::InterruptWindow,
        Self::NmiWindow,
        Self::Hlt,
        Self::Cpuid,
        Self::Port,
        Self::MsrRead,
        Self::MsrWrite,
        Self::Memory,
        Self::Control,
        Self::Debug,
        Self::DescriptorTable,
        Self::Hypercall,
        Self::Virtualization,
        Self::CacheInvalidate,
        Self::Xsetbv,
        Self::Rdtsc,
        Self::Rdpmc,
        Self::Invlpg,
        Self::Pause,
        Self::Mwait,
        Self::TaskSwitch,
        Self::Init,
        Self::Other,
    ];
}

/// `qual[0]` of [`Exit::Port`]: bits 0-2 = size in bytes minus one, 3 = IN, 4 = string, 5 = REP, 7 = [`PortAccess::ADDRESS_VALID`],
/// 16-31 = port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct PortAccess(pub u64);

impl PortAccess {
    /// The processor told the linear address of a string access.
    pub const ADDRESS_VALID: u64 = 1 << 7;

    /// Bytes: 1, 2 or 4.
    #[must_use]
    pub const fn size(self) -> u8 {
        (self.0 & 7) as u8 + 1
    }
    /// Whether it is an IN or INS.
    #[must_use]
    pub const fn is_in(self) -> bool {
        self.0 & 8 != 0
    }
    /// Whether it is an INS or OUTS.
    #[must_use]
    pub const fn is_string(self) -> bool {
        self.0 & 16 != 0
    }
    /// Whether it has a REP prefix.
    #[must_use]
    pub const fn is_rep(self) -> bool {
        self.0 & 32 != 0
    }
    /// The port.
    #[must_use]
    pub const fn port(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// `qual[0]` of [`Exit::Memory`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct MemoryAccess(pub u64);

impl MemoryAccess {
    /// It was a read.
    pub const READ: u64 = 1 << 0;
    /// It was a write.
    pub const WRITE: u64 = 1 << 1;
    /// It was an instruction fetch.
    pub const FETCH: u64 = 1 << 2;
    /// `qual[2]` holds the linear address.
    pub const LINEAR_VALID: u64 = 1 << 7;
    /// The access was to the translation of the linear address, not to a paging structure.
    pub const FINAL: u64 = 1 << 8;
}

/// `qual[0]` of [`Exit::Control`]: bits 0-3 = register, 4-5 = 0 MOV to, 1 MOV from, 2 CLTS, 3 LMSW, 7 = [`ControlAccess::DECODED`],
/// 8-11 = general register, 16-31 = LMSW operand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct ControlAccess(pub u64);

impl ControlAccess {
    /// The processor told what the instruction is. Without this bit, only the register is known, and whether it is written
    /// (kind 0) or read (kind 1, which may be SMSW): the handler has to decode the instruction.
    pub const DECODED: u64 = 1 << 7;

    /// Whether bit [`Self::DECODED`] is set.
    #[must_use]
    pub const fn is_decoded(self) -> bool {
        self.0 & Self::DECODED != 0
    }
    /// Number of the control register.
    #[must_use]
    pub const fn register(self) -> u8 {
        (self.0 & 15) as u8
    }
    /// 0 MOV to it, 1 MOV from it, 2 CLTS, 3 LMSW.
    #[must_use]
    pub const fn kind(self) -> u8 {
        (self.0 >> 4 & 3) as u8
    }
    /// Number of the general register.
    #[must_use]
    pub const fn gpr(self) -> u8 {
        (self.0 >> 8 & 15) as u8
    }
    /// Source operand of LMSW.
    #[must_use]
    pub const fn lmsw(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// An event to deliver to the guest at its next entry, or that was being delivered when it left.
///
/// `info`: bits 0-7 = vector, 8-10 = [`EventKind`], 11 = has an error code, 31 = valid (SDM 3C 25.8.3 and APM 2
/// 15.20 use the same layout).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// What, see above.
    pub info: u32,
    /// Error code, if bit 11 of `info` is set.
    pub error: u32,
}

impl Event {
    /// No event.
    pub const NONE: Self = Self { info: 0, error: 0 };

    /// An external interrupt.
    #[must_use]
    pub const fn interrupt(vector: u8) -> Self {
        Self { info: 1 << 31 | vector as u32, error: 0 }
    }

    /// A non-maskable interrupt.
    #[must_use]
    pub const fn nmi() -> Self {
        Self { info: 1 << 31 | (EventKind::Nmi as u32) << 8 | 2, error: 0 }
    }

    /// A hardware exception, with its error code if the vector has one.
    #[must_use]
    pub const fn exception(vector: u8, error: Option<u32>) -> Self {
        let info = 1 << 31 | (EventKind::Exception as u32) << 8 | vector as u32;
        match error {
            Some(error) => Self { info: info | 1 << 11, error },
            None => Self { info, error: 0 },
        }
    }

    /// Whether there is an event.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.info >> 31 != 0
    }

    /// Its vector.
    #[must_use]
    pub const fn vector(self) -> u8 {
        self.info as u8
    }

    /// Bits 8-10 of `info`.
    #[must_use]
    pub const fn kind(self) -> u8 {
        (self.info >> 8 & 7) as u8
    }
}

/// Kinds of [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EventKind {
    /// External interrupt.
    Interrupt = 0,
    /// NMI.
    Nmi = 2,
    /// Hardware exception.
    Exception = 3,
    /// INT n.
    SoftwareInterrupt = 4,
}

/// Bits of [`VcpuState::window`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Window(pub u32);

impl Window {
    /// Exit with [`Exit::InterruptWindow`] as soon as the guest can take an interrupt.
    pub const INTERRUPT: Self = Self(1 << 0);
    /// Exit with [`Exit::NmiWindow`] as soon as the guest can take an NMI.
    pub const NMI: Self = Self(1 << 1);
}

/// Bits of [`VcpuState::blocking`].
pub mod blocking {
    /// The instruction after STI.
    pub const STI: u32 = 1 << 0;
    /// The instruction after MOV SS or POP SS.
    pub const MOV_SS: u32 = 1 << 1;
    /// An NMI is being handled.
    pub const NMI: u32 = 1 << 3;
}

/// A segment register with its hidden part.
///
/// `attr`: bits 0-3 type, 4 S, 5-6 DPL, 7 P, 8 AVL, 9 L, 10 D/B, 11 G, 12 unusable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Segment {
    /// Visible part.
    pub selector: u16,
    /// Attributes, see above.
    pub attr: u16,
    /// Limit in bytes.
    pub limit: u32,
    /// Base address.
    pub base: u64,
}

impl Segment {
    /// Bit of `attr`: the segment cannot be used.
    pub const UNUSABLE: u16 = 1 << 12;
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TableRegister {
    /// Base address.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u64,
}

/// The state of a virtual CPU, as it lies in the words of a UTCB. Only the groups that a portal asks for are filled,
/// only those named in the reply are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct VcpuState {
    /// General-purpose registers: [`Groups::ACDB`], [`Groups::BSD`], [`Groups::RSP`], [`Groups::R8_R15`].
    pub gpr: Gprs,
    /// [`Groups::RIP`].
    pub rip: u64,
    /// [`Groups::RIP`]: length of the instruction that exited, in bytes; 0 where the processor does not tell.
    pub inst_len: u64,
    /// [`Groups::RFLAGS`].
    pub rflags: u64,
    /// [`Groups::QUAL`]: what exactly happened; see [`Exit`].
    pub qual: [u64; 3],
    /// [`Groups::EVENT`]: to inject at the next entry. On an exit: what was being delivered; it will be delivered again
    /// unless the reply replaces it. Written back as it was read, with `inst_len` 0, it keeps its own length.
    pub event: Event,
    /// [`Groups::WINDOW`]: exits to ask for ([`Window`]).
    pub window: Window,
    /// [`Groups::BLOCKING`]: see [`blocking`].
    pub blocking: u32,
    /// [`Groups::CONTROL`]: exceptions that exit instead of being delivered, bit n = vector n. Machine checks (18) are the kernel's:
    /// their bit is ignored and reads as 0.
    pub exceptions: u32,
    /// [`Groups::CONTROL`]: bit 0: RDTSC exits; bit 1: PAUSE exits; bit 2: MOV DR exits.
    pub intercepts: u32,
    /// [`Groups::CONTROL`]: bits of CR0 whose changes exit; a write that changes none of them may exit as well. The kernel adds
    /// those it must own.
    pub cr0_mask: u64,
    /// [`Groups::CONTROL`]: bits of CR4 whose changes exit, in the same way.
    pub cr4_mask: u64,
    /// [`Groups::TSC`]: added to the time-stamp counter that the guest reads.
    pub tsc_offset: u64,
    /// [`Groups::DEADLINE`]: host time-stamp-counter value at which to leave the guest with [`Exit::Recall`]; `u64::MAX` never.
    pub deadline: u64,
    /// [`Groups::CR`]: as the guest sees it.
    pub cr0: u64,
    /// [`Groups::CR`]. In [`Groups::CR2`] alone as well.
    pub cr2: u64,
    /// [`Groups::CR`].
    pub cr3: u64,
    /// [`Groups::CR`]: as the guest sees it.
    pub cr4: u64,
    /// [`Groups::CR`]: PAE page-directory-pointer entries, if the guest is in PAE paging. All 0, and ignored in replies, where the
    /// processor keeps none: there it reads them from memory, at `cr3`, whenever it walks.
    pub pdpte: [u64; 4],
    /// [`Groups::DR`].
    pub dr: [u64; 4],
    /// [`Groups::DR`].
    pub dr6: u64,
    /// [`Groups::DR`].
    pub dr7: u64,
    /// [`Groups::EFER_PAT`]: IA32_EFER as the guest sees it.
    pub efer: u64,
    /// [`Groups::EFER_PAT`].
    pub pat: u64,
    /// [`Groups::CS_SS`].
    pub cs: Segment,
    /// [`Groups::CS_SS`].
    pub ss: Segment,
    /// [`Groups::DS_ES`].
    pub ds: Segment,
    /// [`Groups::DS_ES`].
    pub es: Segment,
    /// [`Groups::FS_GS`].
    pub fs: Segment,
    /// [`Groups::FS_GS`].
    pub gs: Segment,
    /// [`Groups::TABLES`].
    pub tr: Segment,
    /// [`Groups::TABLES`].
    pub ldtr: Segment,
    /// [`Groups::TABLES`].
    pub gdtr: TableRegister,
    /// [`Groups::TABLES`].
    pub idtr: TableRegister,
    /// [`Groups::SYSENTER`].
    pub sysenter_cs: u64,
    /// [`Groups::SYSENTER`].
    pub sysenter_esp: u64,
    /// [`Groups::SYSENTER`].
    pub sysenter_eip: u64,
    /// [`Groups::SYSCALL`].
    pub star: u64,
    /// [`Groups::SYSCALL`].
    pub lstar: u64,
    /// [`Groups::SYSCALL`].
    pub cstar: u64,
    /// [`Groups::SYSCALL`].
    pub fmask: u64,
    /// [`Groups::SYSCALL`].
    pub kernel_gs_base: u64,
    /// [`Groups::SYSCALL`].
    pub tsc_aux: u64,
    /// [`Groups::XSAVE`]: XCR0.
    pub xcr0: u64,
    /// [`Groups::XSAVE`]: IA32_XSS. Always 0: no guest gets supervisor state components.
    pub xss: u64,
}

/// Groups of [`VcpuState`]: what a portal wants to see, what a reply changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Groups(pub u64);

impl Groups {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// RAX, RCX, RDX, RBX.
    pub const ACDB: Self = Self(1 << 0);
    /// RBP, RSI, RDI.
    pub const BSD: Self = Self(1 << 1);
    /// RSP.
    pub const RSP: Self = Self(1 << 2);
    /// R8 to R15.
    pub const R8_R15: Self = Self(1 << 3);
    /// RIP and instruction length.
    pub const RIP: Self = Self(1 << 4);
    /// RFLAGS.
    pub const RFLAGS: Self = Self(1 << 5);
    /// Qualification; ignored in replies.
    pub const QUAL: Self = Self(1 << 6);
    /// Event to inject.
    pub const EVENT: Self = Self(1 << 7);
    /// Windows to ask for.
    pub const WINDOW: Self = Self(1 << 8);
    /// Blocking by STI, MOV SS and NMI.
    pub const BLOCKING: Self = Self(1 << 9);
    /// Exception bitmap, intercepts, CR masks.
    pub const CONTROL: Self = Self(1 << 10);
    /// TSC offset.
    pub const TSC: Self = Self(1 << 11);
    /// Deadline.
    pub const DEADLINE: Self = Self(1 << 12);
    /// CR0, CR2, CR3, CR4, PDPTEs.
    pub const CR: Self = Self(1 << 13);
    /// Debug registers.
    pub const DR: Self = Self(1 << 14);
    /// IA32_EFER, IA32_PAT.
    pub const EFER_PAT: Self = Self(1 << 15);
    /// CS and SS.
    pub const CS_SS: Self = Self(1 << 16);
    /// DS and ES.
    pub const DS_ES: Self = Self(1 << 17);
    /// FS and GS.
    pub const FS_GS: Self = Self(1 << 18);
    /// TR, LDTR, GDTR, IDTR.
    pub const TABLES: Self = Self(1 << 19);
    /// SYSENTER registers.
    pub const SYSENTER: Self = Self(1 << 20);
    /// SYSCALL registers, KERNEL_GS_BASE, TSC_AUX.
    pub const SYSCALL: Self = Self(1 << 21);
    /// XCR0, IA32_XSS.
    pub const XSAVE: Self = Self(1 << 22);
    /// CR2 only.
    pub const CR2: Self = Self(1 << 23);
    /// Reply only: the instruction that exited is done. RIP moves behind it (by the length the processor
    /// gave, or by [`VcpuState::inst_len`] where it gave none; with [`Groups::RIP`] it becomes
    /// [`VcpuState::rip`] instead), blocking by STI and MOV SS ends, and a pending single step is raised
    /// (SDM 3B 18.3.1.4).
    pub const DONE: Self = Self(1 << 32);

    /// All groups that hold state.
    pub const ALL: Self = Self((1 << 24) - 1);
    /// All general-purpose registers.
    pub const GPRS: Self = Self(0b1111);

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in `self`.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl core::ops::BitOr for Groups {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl core::ops::BitOrAssign for Groups {
    fn bitor_assign(&mut self, other: Self) {
        *self = self.union(other);
    }
}

const _: () = assert!(size_of::<VcpuState>() <= crate::utcb::MAX_WORDS * 8);
