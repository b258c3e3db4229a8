//! The fields of a VMCS (SDM 3D appendix B), typed: a field's encoding cannot be taken for its
//! value, and what is read-only cannot be written.

use core::marker::PhantomData;

/// Width marker of the fields that are as wide as a register.
#[derive(Clone, Copy, Debug)]
pub enum Natural {}

/// Access marker of the fields that VM exits write.
#[derive(Clone, Copy, Debug)]
pub enum ReadOnly {}

/// Access marker of all others.
#[derive(Clone, Copy, Debug)]
pub enum ReadWrite {}

/// The width of a field.
pub trait Width: Copy {
    /// What it holds.
    type Value: Copy;
    /// Bits 14:13 of its encoding (SDM 3C 25.11.2).
    const CODE: u32;
    /// From what VMREAD gives.
    fn from_raw(raw: u64) -> Self::Value;
    /// To what VMWRITE takes.
    fn into_raw(value: Self::Value) -> u64;
}

macro_rules! width {
    ($($width:ty: $value:ty = $code:literal,)*) => {$(
        impl Width for $width {
            type Value = $value;
            const CODE: u32 = $code;
            #[inline(always)]
            fn from_raw(raw: u64) -> $value {
                raw as $value
            }
            #[inline(always)]
            fn into_raw(value: $value) -> u64 {
                value as u64
            }
        }
    )*};
}

width! {
    u16: u16 = 0,
    u64: u64 = 1,
    u32: u32 = 2,
    Natural: u64 = 3,
}

/// A field of width `W`.
#[derive(Clone, Copy, Debug)]
pub struct Field<W, A = ReadWrite>(u32, PhantomData<(W, A)>);

impl<W: Width, A> Field<W, A> {
    /// The operand of VMREAD and VMWRITE.
    #[inline(always)]
    #[must_use]
    pub const fn encoding(self) -> u64 {
        self.0 as u64
    }
}

/// A 16-bit field.
pub type Field16 = Field<u16>;
/// A 32-bit field.
pub type Field32 = Field<u32>;
/// A 64-bit field.
pub type Field64 = Field<u64>;
/// A field as wide as a register.
pub type FieldNatural = Field<Natural>;
/// A 32-bit field that is not written.
pub type ReadOnly32 = Field<u32, ReadOnly>;
/// A 64-bit field that is not written.
pub type ReadOnly64 = Field<u64, ReadOnly>;
/// A field as wide as a register that is not written.
pub type ReadOnlyNatural = Field<Natural, ReadOnly>;

macro_rules! fields {
    ($($name:ident: $ty:ident = $encoding:literal,)*) => {
        $(
            #[allow(missing_docs)]
            pub const $name: super::$ty = super::Field($encoding, core::marker::PhantomData);
        )*
        /// Every field here with its encoding, the code of its width, and whether it can be
        /// written.
        #[cfg(test)]
        pub(crate) const ALL: &[(&str, u64, u32, bool)] =
            &[$((stringify!($name), $name.encoding(), super::code($name), super::writable(stringify!($ty)))),*];
    };
}

#[cfg(test)]
const fn code<W: Width, A>(_: Field<W, A>) -> u32 {
    W::CODE
}

#[cfg(test)]
const fn writable(ty: &str) -> bool {
    ty.as_bytes()[0] == b'F'
}

/// The fields, named as in the manual, with `GUEST_` and `HOST_` for the two state areas.
pub mod field {
    fields! {
        // 16 bits.
        VPID: Field16 = 0x0000,
        POSTED_INTERRUPT_VECTOR: Field16 = 0x0002,
        GUEST_ES_SELECTOR: Field16 = 0x0800,
        GUEST_CS_SELECTOR: Field16 = 0x0802,
        GUEST_SS_SELECTOR: Field16 = 0x0804,
        GUEST_DS_SELECTOR: Field16 = 0x0806,
        GUEST_FS_SELECTOR: Field16 = 0x0808,
        GUEST_GS_SELECTOR: Field16 = 0x080a,
        GUEST_LDTR_SELECTOR: Field16 = 0x080c,
        GUEST_TR_SELECTOR: Field16 = 0x080e,
        GUEST_INTERRUPT_STATUS: Field16 = 0x0810,
        HOST_ES_SELECTOR: Field16 = 0x0c00,
        HOST_CS_SELECTOR: Field16 = 0x0c02,
        HOST_SS_SELECTOR: Field16 = 0x0c04,
        HOST_DS_SELECTOR: Field16 = 0x0c06,
        HOST_FS_SELECTOR: Field16 = 0x0c08,
        HOST_GS_SELECTOR: Field16 = 0x0c0a,
        HOST_TR_SELECTOR: Field16 = 0x0c0c,
        // 64 bits.
        IO_BITMAP_A: Field64 = 0x2000,
        IO_BITMAP_B: Field64 = 0x2002,
        MSR_BITMAP: Field64 = 0x2004,
        EXIT_MSR_STORE_ADDRESS: Field64 = 0x2006,
        EXIT_MSR_LOAD_ADDRESS: Field64 = 0x2008,
        ENTRY_MSR_LOAD_ADDRESS: Field64 = 0x200a,
        PML_ADDRESS: Field64 = 0x200e,
        TSC_OFFSET: Field64 = 0x2010,
        VIRTUAL_APIC_ADDRESS: Field64 = 0x2012,
        APIC_ACCESS_ADDRESS: Field64 = 0x2014,
        POSTED_INTERRUPT_DESCRIPTOR: Field64 = 0x2016,
        VM_FUNCTION_CONTROLS: Field64 = 0x2018,
        EPT_POINTER: Field64 = 0x201a,
        EOI_EXIT_BITMAP_0: Field64 = 0x201c,
        EOI_EXIT_BITMAP_1: Field64 = 0x201e,
        EOI_EXIT_BITMAP_2: Field64 = 0x2020,
        EOI_EXIT_BITMAP_3: Field64 = 0x2022,
        XSS_EXITING_BITMAP: Field64 = 0x202c,
        TSC_MULTIPLIER: Field64 = 0x2032,
        GUEST_PHYSICAL_ADDRESS: ReadOnly64 = 0x2400,
        VMCS_LINK_POINTER: Field64 = 0x2800,
        GUEST_DEBUGCTL: Field64 = 0x2802,
        GUEST_PAT: Field64 = 0x2804,
        GUEST_EFER: Field64 = 0x2806,
        GUEST_PERF_GLOBAL_CTRL: Field64 = 0x2808,
        GUEST_PDPTE0: Field64 = 0x280a,
        GUEST_PDPTE1: Field64 = 0x280c,
        GUEST_PDPTE2: Field64 = 0x280e,
        GUEST_PDPTE3: Field64 = 0x2810,
        HOST_PAT: Field64 = 0x2c00,
        HOST_EFER: Field64 = 0x2c02,
        HOST_PERF_GLOBAL_CTRL: Field64 = 0x2c04,
        // 32 bits.
        PIN_CONTROLS: Field32 = 0x4000,
        PRIMARY_CONTROLS: Field32 = 0x4002,
        EXCEPTION_BITMAP: Field32 = 0x4004,
        PAGE_FAULT_ERROR_MASK: Field32 = 0x4006,
        PAGE_FAULT_ERROR_MATCH: Field32 = 0x4008,
        CR3_TARGET_COUNT: Field32 = 0x400a,
        EXIT_CONTROLS: Field32 = 0x400c,
        EXIT_MSR_STORE_COUNT: Field32 = 0x400e,
        EXIT_MSR_LOAD_COUNT: Field32 = 0x4010,
        ENTRY_CONTROLS: Field32 = 0x4012,
        ENTRY_MSR_LOAD_COUNT: Field32 = 0x4014,
        ENTRY_INTERRUPTION_INFO: Field32 = 0x4016,
        ENTRY_EXCEPTION_ERROR: Field32 = 0x4018,
        ENTRY_INSTRUCTION_LENGTH: Field32 = 0x401a,
        TPR_THRESHOLD: Field32 = 0x401c,
        SECONDARY_CONTROLS: Field32 = 0x401e,
        PLE_GAP: Field32 = 0x4020,
        PLE_WINDOW: Field32 = 0x4022,
        VM_INSTRUCTION_ERROR: ReadOnly32 = 0x4400,
        EXIT_REASON: ReadOnly32 = 0x4402,
        EXIT_INTERRUPTION_INFO: ReadOnly32 = 0x4404,
        EXIT_INTERRUPTION_ERROR: ReadOnly32 = 0x4406,
        IDT_VECTORING_INFO: ReadOnly32 = 0x4408,
        IDT_VECTORING_ERROR: ReadOnly32 = 0x440a,
        EXIT_INSTRUCTION_LENGTH: ReadOnly32 = 0x440c,
        EXIT_INSTRUCTION_INFO: ReadOnly32 = 0x440e,
        GUEST_ES_LIMIT: Field32 = 0x4800,
        GUEST_CS_LIMIT: Field32 = 0x4802,
        GUEST_SS_LIMIT: Field32 = 0x4804,
        GUEST_DS_LIMIT: Field32 = 0x4806,
        GUEST_FS_LIMIT: Field32 = 0x4808,
        GUEST_GS_LIMIT: Field32 = 0x480a,
        GUEST_LDTR_LIMIT: Field32 = 0x480c,
        GUEST_TR_LIMIT: Field32 = 0x480e,
        GUEST_GDTR_LIMIT: Field32 = 0x4810,
        GUEST_IDTR_LIMIT: Field32 = 0x4812,
        GUEST_ES_ACCESS_RIGHTS: Field32 = 0x4814,
        GUEST_CS_ACCESS_RIGHTS: Field32 = 0x4816,
        GUEST_SS_ACCESS_RIGHTS: Field32 = 0x4818,
        GUEST_DS_ACCESS_RIGHTS: Field32 = 0x481a,
        GUEST_FS_ACCESS_RIGHTS: Field32 = 0x481c,
        GUEST_GS_ACCESS_RIGHTS: Field32 = 0x481e,
        GUEST_LDTR_ACCESS_RIGHTS: Field32 = 0x4820,
        GUEST_TR_ACCESS_RIGHTS: Field32 = 0x4822,
        GUEST_INTERRUPTIBILITY: Field32 = 0x4824,
        GUEST_ACTIVITY: Field32 = 0x4826,
        GUEST_SMBASE: Field32 = 0x4828,
        GUEST_SYSENTER_CS: Field32 = 0x482a,
        PREEMPTION_TIMER_VALUE: Field32 = 0x482e,
        HOST_SYSENTER_CS: Field32 = 0x4c00,
        // Natural width.
        CR0_MASK: FieldNatural = 0x6000,
        CR4_MASK: FieldNatural = 0x6002,
        CR0_READ_SHADOW: FieldNatural = 0x6004,
        CR4_READ_SHADOW: FieldNatural = 0x6006,
        CR3_TARGET_0: FieldNatural = 0x6008,
        CR3_TARGET_1: FieldNatural = 0x600a,
        CR3_TARGET_2: FieldNatural = 0x600c,
        CR3_TARGET_3: FieldNatural = 0x600e,
        EXIT_QUALIFICATION: ReadOnlyNatural = 0x6400,
        IO_RCX: ReadOnlyNatural = 0x6402,
        IO_RSI: ReadOnlyNatural = 0x6404,
        IO_RDI: ReadOnlyNatural = 0x6406,
        IO_RIP: ReadOnlyNatural = 0x6408,
        GUEST_LINEAR_ADDRESS: ReadOnlyNatural = 0x640a,
        GUEST_CR0: FieldNatural = 0x6800,
        GUEST_CR3: FieldNatural = 0x6802,
        GUEST_CR4: FieldNatural = 0x6804,
        GUEST_ES_BASE: FieldNatural = 0x6806,
        GUEST_CS_BASE: FieldNatural = 0x6808,
        GUEST_SS_BASE: FieldNatural = 0x680a,
        GUEST_DS_BASE: FieldNatural = 0x680c,
        GUEST_FS_BASE: FieldNatural = 0x680e,
        GUEST_GS_BASE: FieldNatural = 0x6810,
        GUEST_LDTR_BASE: FieldNatural = 0x6812,
        GUEST_TR_BASE: FieldNatural = 0x6814,
        GUEST_GDTR_BASE: FieldNatural = 0x6816,
        GUEST_IDTR_BASE: FieldNatural = 0x6818,
        GUEST_DR7: FieldNatural = 0x681a,
        GUEST_RSP: FieldNatural = 0x681c,
        GUEST_RIP: FieldNatural = 0x681e,
        GUEST_RFLAGS: FieldNatural = 0x6820,
        GUEST_PENDING_DEBUG: FieldNatural = 0x6822,
        GUEST_SYSENTER_ESP: FieldNatural = 0x6824,
        GUEST_SYSENTER_EIP: FieldNatural = 0x6826,
        HOST_CR0: FieldNatural = 0x6c00,
        HOST_CR3: FieldNatural = 0x6c02,
        HOST_CR4: FieldNatural = 0x6c04,
        HOST_FS_BASE: FieldNatural = 0x6c06,
        HOST_GS_BASE: FieldNatural = 0x6c08,
        HOST_TR_BASE: FieldNatural = 0x6c0a,
        HOST_GDTR_BASE: FieldNatural = 0x6c0c,
        HOST_IDTR_BASE: FieldNatural = 0x6c0e,
        HOST_SYSENTER_ESP: FieldNatural = 0x6c10,
        HOST_SYSENTER_EIP: FieldNatural = 0x6c12,
        HOST_RSP: FieldNatural = 0x6c14,
        HOST_RIP: FieldNatural = 0x6c16,
    }
}
