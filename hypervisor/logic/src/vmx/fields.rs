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
    const fn new(encoding: u32) -> Self {
        Self(encoding, PhantomData)
    }

    /// The operand of VMREAD and VMWRITE.
    #[inline(always)]
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

/// The fields of a segment register.
#[derive(Clone, Copy, Debug)]
pub struct SegmentFields {
    /// Selector.
    pub selector: Field16,
    /// Limit in bytes.
    pub limit: Field32,
    /// Access rights (SDM 3C 25.4.1).
    pub rights: Field32,
    /// Base address.
    pub base: FieldNatural,
}

/// The fields of GDTR or IDTR.
#[derive(Clone, Copy, Debug)]
pub struct TableFields {
    /// Limit in bytes.
    pub limit: Field32,
    /// Base address.
    pub base: FieldNatural,
}

/// The segment registers are in the same order in all four groups of fields.
const fn segment(number: u32) -> SegmentFields {
    SegmentFields {
        selector: Field::new(0x0800 + 2 * number),
        limit: Field::new(0x4800 + 2 * number),
        rights: Field::new(0x4814 + 2 * number),
        base: Field::new(0x6806 + 2 * number),
    }
}

/// GDTR and IDTR follow the segment registers.
const fn table(number: u32) -> TableFields {
    TableFields { limit: Field::new(0x4800 + 2 * number), base: Field::new(0x6806 + 2 * number) }
}

macro_rules! fields {
    ($($name:ident: $ty:ident = $encoding:literal,)*) => {
        $(
            #[allow(missing_docs)]
            pub const $name: super::$ty = super::Field::new($encoding);
        )*
        /// Every single field here with its encoding, the code of its width, and whether it can be
        /// written.
        #[cfg(test)]
        pub(crate) const ALL: &[(&str, u64, u32, bool)] =
            &[$((stringify!($name), $name.encoding(), super::code($name), super::writable(stringify!($ty)))),*];
    };
}

/// The fields, named as in the manual, with `GUEST_` and `HOST_` for the two state areas.
pub mod field {
    use super::{SegmentFields, TableFields, segment, table};

    fields! {
        // 16 bits.
        VPID: Field16 = 0x0000,
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
        TSC_OFFSET: Field64 = 0x2010,
        EPT_POINTER: Field64 = 0x201a,
        XSS_EXITING_BITMAP: Field64 = 0x202c,
        GUEST_PHYSICAL_ADDRESS: ReadOnly64 = 0x2400,
        VMCS_LINK_POINTER: Field64 = 0x2800,
        GUEST_DEBUGCTL: Field64 = 0x2802,
        GUEST_PAT: Field64 = 0x2804,
        GUEST_EFER: Field64 = 0x2806,
        GUEST_PDPTE0: Field64 = 0x280a,
        GUEST_PDPTE1: Field64 = 0x280c,
        GUEST_PDPTE2: Field64 = 0x280e,
        GUEST_PDPTE3: Field64 = 0x2810,
        HOST_PAT: Field64 = 0x2c00,
        HOST_EFER: Field64 = 0x2c02,
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
        SECONDARY_CONTROLS: Field32 = 0x401e,
        VM_INSTRUCTION_ERROR: ReadOnly32 = 0x4400,
        EXIT_REASON: ReadOnly32 = 0x4402,
        EXIT_INTERRUPTION_INFO: ReadOnly32 = 0x4404,
        EXIT_INTERRUPTION_ERROR: ReadOnly32 = 0x4406,
        IDT_VECTORING_INFO: ReadOnly32 = 0x4408,
        IDT_VECTORING_ERROR: ReadOnly32 = 0x440a,
        EXIT_INSTRUCTION_LENGTH: ReadOnly32 = 0x440c,
        GUEST_INTERRUPTIBILITY: Field32 = 0x4824,
        GUEST_ACTIVITY: Field32 = 0x4826,
        GUEST_SYSENTER_CS: Field32 = 0x482a,
        HOST_SYSENTER_CS: Field32 = 0x4c00,
        // Natural width.
        CR0_MASK: FieldNatural = 0x6000,
        CR4_MASK: FieldNatural = 0x6002,
        CR0_READ_SHADOW: FieldNatural = 0x6004,
        CR4_READ_SHADOW: FieldNatural = 0x6006,
        EXIT_QUALIFICATION: ReadOnlyNatural = 0x6400,
        GUEST_LINEAR_ADDRESS: ReadOnlyNatural = 0x640a,
        GUEST_CR0: FieldNatural = 0x6800,
        GUEST_CR3: FieldNatural = 0x6802,
        GUEST_CR4: FieldNatural = 0x6804,
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

    /// ES.
    pub const GUEST_ES: SegmentFields = segment(0);
    /// CS.
    pub const GUEST_CS: SegmentFields = segment(1);
    /// SS.
    pub const GUEST_SS: SegmentFields = segment(2);
    /// DS.
    pub const GUEST_DS: SegmentFields = segment(3);
    /// FS.
    pub const GUEST_FS: SegmentFields = segment(4);
    /// GS.
    pub const GUEST_GS: SegmentFields = segment(5);
    /// LDTR.
    pub const GUEST_LDTR: SegmentFields = segment(6);
    /// TR.
    pub const GUEST_TR: SegmentFields = segment(7);
    /// GDTR.
    pub const GUEST_GDTR: TableFields = table(8);
    /// IDTR.
    pub const GUEST_IDTR: TableFields = table(9);
}

#[cfg(test)]
const fn code<W: Width, A>(_: Field<W, A>) -> u32 {
    W::CODE
}

#[cfg(test)]
const fn writable(ty: &str) -> bool {
    ty.as_bytes()[0] == b'F'
}
