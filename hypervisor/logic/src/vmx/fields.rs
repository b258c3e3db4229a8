//! The fields of a VMCS (SDM 3D appendix B), typed: a field's encoding cannot be taken for its
//! value, and what is read-only cannot be written.

use core::marker::PhantomData;

/// Access marker of the fields that VM exits write.
#[derive(Clone, Copy, Debug)]
pub enum ReadOnly {}

/// Access marker of all others.
#[derive(Clone, Copy, Debug)]
pub enum ReadWrite {}

/// What a field holds: an unsigned integer of its width. A field as wide as a register has 64 bits.
pub trait Width: Copy + Into<u64> {
    /// From what VMREAD gives.
    fn from_raw(raw: u64) -> Self;
}

macro_rules! width {
    ($($width:ty)*) => {$(
        impl Width for $width {
            #[inline(always)]
            fn from_raw(raw: u64) -> Self {
                raw as Self
            }
        }
    )*};
}

width! { u16 u32 u64 }

/// A field that holds a `W`.
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

/// The fields of a segment register.
#[derive(Clone, Copy, Debug)]
pub struct SegmentFields {
    /// Selector.
    pub selector: Field<u16>,
    /// Limit in bytes.
    pub limit: Field<u32>,
    /// Access rights (SDM 3C 25.4.1).
    pub rights: Field<u32>,
    /// Base address.
    pub base: Field<u64>,
}

/// The fields of GDTR or IDTR.
#[derive(Clone, Copy, Debug)]
pub struct TableFields {
    /// Limit in bytes.
    pub limit: Field<u32>,
    /// Base address.
    pub base: Field<u64>,
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
    ($($name:ident: $width:ty $(, $access:ident)? = $encoding:literal;)*) => {
        $(
            #[allow(missing_docs)]
            pub const $name: Field<$width $(, $access)?> = Field::new($encoding);
        )*
        /// Every single field here with its encoding, its size in bytes, and whether it can be written.
        #[cfg(test)]
        pub(crate) const ALL: &[(&str, u64, usize, bool)] = &[$((
            stringify!($name),
            $name.encoding(),
            size_of::<$width>(),
            stringify!($($access)?).is_empty(),
        )),*];
    };
}

/// The fields, named as in the manual, with `GUEST_` and `HOST_` for the two state areas.
pub mod field {
    use super::{Field, ReadOnly, SegmentFields, TableFields, segment, table};

    fields! {
        // 16 bits.
        VPID: u16 = 0x0000;
        HOST_ES_SELECTOR: u16 = 0x0c00;
        HOST_CS_SELECTOR: u16 = 0x0c02;
        HOST_SS_SELECTOR: u16 = 0x0c04;
        HOST_DS_SELECTOR: u16 = 0x0c06;
        HOST_FS_SELECTOR: u16 = 0x0c08;
        HOST_GS_SELECTOR: u16 = 0x0c0a;
        HOST_TR_SELECTOR: u16 = 0x0c0c;
        // 64 bits.
        IO_BITMAP_A: u64 = 0x2000;
        IO_BITMAP_B: u64 = 0x2002;
        MSR_BITMAP: u64 = 0x2004;
        TSC_OFFSET: u64 = 0x2010;
        EPT_POINTER: u64 = 0x201a;
        XSS_EXITING_BITMAP: u64 = 0x202c;
        GUEST_PHYSICAL_ADDRESS: u64, ReadOnly = 0x2400;
        VMCS_LINK_POINTER: u64 = 0x2800;
        GUEST_DEBUGCTL: u64 = 0x2802;
        GUEST_PAT: u64 = 0x2804;
        GUEST_EFER: u64 = 0x2806;
        GUEST_PDPTE0: u64 = 0x280a;
        GUEST_PDPTE1: u64 = 0x280c;
        GUEST_PDPTE2: u64 = 0x280e;
        GUEST_PDPTE3: u64 = 0x2810;
        HOST_PAT: u64 = 0x2c00;
        HOST_EFER: u64 = 0x2c02;
        // 32 bits.
        PIN_CONTROLS: u32 = 0x4000;
        PRIMARY_CONTROLS: u32 = 0x4002;
        EXCEPTION_BITMAP: u32 = 0x4004;
        PAGE_FAULT_ERROR_MASK: u32 = 0x4006;
        PAGE_FAULT_ERROR_MATCH: u32 = 0x4008;
        CR3_TARGET_COUNT: u32 = 0x400a;
        EXIT_CONTROLS: u32 = 0x400c;
        EXIT_MSR_STORE_COUNT: u32 = 0x400e;
        EXIT_MSR_LOAD_COUNT: u32 = 0x4010;
        ENTRY_CONTROLS: u32 = 0x4012;
        ENTRY_MSR_LOAD_COUNT: u32 = 0x4014;
        ENTRY_INTERRUPTION_INFO: u32 = 0x4016;
        ENTRY_EXCEPTION_ERROR: u32 = 0x4018;
        ENTRY_INSTRUCTION_LENGTH: u32 = 0x401a;
        SECONDARY_CONTROLS: u32 = 0x401e;
        VM_INSTRUCTION_ERROR: u32, ReadOnly = 0x4400;
        EXIT_REASON: u32, ReadOnly = 0x4402;
        EXIT_INTERRUPTION_INFO: u32, ReadOnly = 0x4404;
        EXIT_INTERRUPTION_ERROR: u32, ReadOnly = 0x4406;
        IDT_VECTORING_INFO: u32, ReadOnly = 0x4408;
        IDT_VECTORING_ERROR: u32, ReadOnly = 0x440a;
        EXIT_INSTRUCTION_LENGTH: u32, ReadOnly = 0x440c;
        GUEST_INTERRUPTIBILITY: u32 = 0x4824;
        GUEST_ACTIVITY: u32 = 0x4826;
        GUEST_SYSENTER_CS: u32 = 0x482a;
        HOST_SYSENTER_CS: u32 = 0x4c00;
        // Natural width.
        CR0_MASK: u64 = 0x6000;
        CR4_MASK: u64 = 0x6002;
        CR0_READ_SHADOW: u64 = 0x6004;
        CR4_READ_SHADOW: u64 = 0x6006;
        EXIT_QUALIFICATION: u64, ReadOnly = 0x6400;
        GUEST_LINEAR_ADDRESS: u64, ReadOnly = 0x640a;
        GUEST_CR0: u64 = 0x6800;
        GUEST_CR3: u64 = 0x6802;
        GUEST_CR4: u64 = 0x6804;
        GUEST_DR7: u64 = 0x681a;
        GUEST_RSP: u64 = 0x681c;
        GUEST_RIP: u64 = 0x681e;
        GUEST_RFLAGS: u64 = 0x6820;
        GUEST_PENDING_DEBUG: u64 = 0x6822;
        GUEST_SYSENTER_ESP: u64 = 0x6824;
        GUEST_SYSENTER_EIP: u64 = 0x6826;
        HOST_CR0: u64 = 0x6c00;
        HOST_CR3: u64 = 0x6c02;
        HOST_CR4: u64 = 0x6c04;
        HOST_FS_BASE: u64 = 0x6c06;
        HOST_GS_BASE: u64 = 0x6c08;
        HOST_TR_BASE: u64 = 0x6c0a;
        HOST_GDTR_BASE: u64 = 0x6c0c;
        HOST_IDTR_BASE: u64 = 0x6c0e;
        HOST_SYSENTER_ESP: u64 = 0x6c10;
        HOST_SYSENTER_EIP: u64 = 0x6c12;
        HOST_RSP: u64 = 0x6c14;
        HOST_RIP: u64 = 0x6c16;
    }

    /// The page-directory-pointer-table entries.
    pub const GUEST_PDPTES: [Field<u64>; 4] =
        [GUEST_PDPTE0, GUEST_PDPTE1, GUEST_PDPTE2, GUEST_PDPTE3];
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
