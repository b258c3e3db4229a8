//! Exceptions of threads, as their handler sees them.
//!
//! When a thread raises an exception, its portal at "first event selector + vector" is called with this image in
//! the handler's UTCB. The reply says which groups to write back; the thread then goes on from there.

/// General-purpose registers, in the order of their encoding (SDM 2A 3.1.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Gprs {
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rbx: u64,
    pub rsp: u64,
    pub rbp: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
}

impl Gprs {
    /// All sixteen, indexed as instructions encode them.
    #[must_use]
    pub const fn to_array(&self) -> [u64; 16] {
        [
            self.rax, self.rcx, self.rdx, self.rbx, self.rsp, self.rbp, self.rsi, self.rdi,
            self.r8, self.r9, self.r10, self.r11, self.r12, self.r13, self.r14, self.r15,
        ]
    }

    /// The register with that encoding; only the low four bits of `index` count.
    pub const fn reg_mut(&mut self, index: u8) -> &mut u64 {
        match index & 15 {
            0 => &mut self.rax,
            1 => &mut self.rcx,
            2 => &mut self.rdx,
            3 => &mut self.rbx,
            4 => &mut self.rsp,
            5 => &mut self.rbp,
            6 => &mut self.rsi,
            7 => &mut self.rdi,
            8 => &mut self.r8,
            9 => &mut self.r9,
            10 => &mut self.r10,
            11 => &mut self.r11,
            12 => &mut self.r12,
            13 => &mut self.r13,
            14 => &mut self.r14,
            _ => &mut self.r15,
        }
    }
}

/// The state of a thread that raised an exception.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FaultState {
    /// General-purpose registers.
    pub gpr: Gprs,
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// Exception vector, 0 to 31.
    pub vector: u64,
    /// Error code, 0 where the exception has none.
    pub error: u64,
    /// The address of a page fault (CR2), else 0.
    pub address: u64,
}

/// Groups of [`FaultState`] for portal masks and replies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct FaultGroups(pub u64);

impl FaultGroups {
    /// Everything but the cause.
    pub const STATE: Self = Self(1 << 0);
    /// Vector, error code, address; ignored in replies.
    pub const CAUSE: Self = Self(1 << 1);
}
