//! The fields of a VMCB (APM 2 appendix B), typed: the width is in the type, and each field knows
//! the clean bit that vouches for it.

use bitflags::bitflags;
use core::marker::PhantomData;

bitflags! {
    /// VMCB clean bits (APM 2 15.15.3): a bit that is set lets the processor use what it has cached
    /// of the group since the last VMRUN of this VMCB.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Clean: u32 {
        /// Intercept vectors, TSC offset, pause filter.
        const INTERCEPTS = 1 << 0;
        /// Addresses of the I/O and MSR permission maps.
        const PERMISSION_MAPS = 1 << 1;
        /// ASID.
        const ASID = 1 << 2;
        /// The virtual interrupt.
        const VIRTUAL_INTERRUPT = 1 << 3;
        /// Nested paging: NP_ENABLE, N_CR3, G_PAT.
        const NESTED_PAGING = 1 << 4;
        /// CR0, CR3, CR4, EFER.
        const CONTROL_REGISTERS = 1 << 5;
        /// DR6, DR7.
        const DEBUG_REGISTERS = 1 << 6;
        /// GDTR, IDTR.
        const TABLES = 1 << 7;
        /// CS, DS, SS, ES, CPL.
        const SEGMENTS = 1 << 8;
        /// CR2.
        const CR2 = 1 << 9;
        /// Last-branch records and DBGCTL.
        const LAST_BRANCH = 1 << 10;
        /// The addresses that AVIC uses.
        const AVIC = 1 << 11;
        /// Control-flow enforcement: S_CET, SSP, ISST_ADDR.
        const SHADOW_STACK = 1 << 12;
    }
}

/// A field that holds a `W`: an unsigned integer, any value of which is valid. They are all made here.
#[derive(Clone, Copy, Debug)]
pub struct Field<W> {
    offset: u16,
    clean: Clean,
    width: PhantomData<W>,
}

impl<W> Field<W> {
    const fn new(offset: u16, clean: Clean) -> Self {
        Self { offset, clean, width: PhantomData }
    }

    /// Bytes from the start of the VMCB, a multiple of the width. The field lies in the page of the
    /// VMCB.
    #[inline(always)]
    pub const fn offset(self) -> usize {
        self.offset as usize
    }

    /// What has to be cleared in [`field::CLEAN`] when the field is changed; nothing if the
    /// processor never caches it.
    #[inline(always)]
    pub const fn clean(self) -> Clean {
        self.clean
    }
}

/// The fields of a segment register.
#[derive(Clone, Copy, Debug)]
pub struct SegmentFields {
    /// Selector.
    pub selector: Field<u16>,
    /// Attributes in 12 bits; see [`super::state::attributes_to_vmcb`].
    pub attributes: Field<u16>,
    /// Limit in bytes.
    pub limit: Field<u32>,
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

const fn segment(offset: u16, clean: Clean) -> SegmentFields {
    SegmentFields {
        selector: Field::new(offset, clean),
        attributes: Field::new(offset + 2, clean),
        limit: Field::new(offset + 4, clean),
        base: Field::new(offset + 8, clean),
    }
}

const fn table(offset: u16) -> TableFields {
    TableFields {
        limit: Field::new(offset + 4, Clean::TABLES),
        base: Field::new(offset + 8, Clean::TABLES),
    }
}

macro_rules! fields {
    ($($name:ident: $width:ty = $offset:literal $(, $clean:ident)?;)*) => {
        $(
            #[allow(missing_docs)]
            pub const $name: Field<$width> =
                Field::new($offset, Clean::empty()$(.union(Clean::$clean))?);
        )*
        /// Every single field here: its name, place, size in bytes, and clean bits.
        #[cfg(test)]
        pub(crate) const ALL: &[(&str, usize, usize, Clean)] =
            &[$((stringify!($name), $name.offset(), size_of::<$width>(), $name.clean())),*];
    };
}

/// The fields, named as in the manual, with `GUEST_` for the state save area.
pub mod field {
    use super::{Clean, Field, SegmentFields, TableFields, segment, table};

    fields! {
        // Control area.
        INTERCEPT_CONTROL_REGISTERS: u32 = 0x000, INTERCEPTS;
        INTERCEPT_DEBUG_REGISTERS: u32 = 0x004, INTERCEPTS;
        INTERCEPT_EXCEPTIONS: u32 = 0x008, INTERCEPTS;
        INTERCEPT_MISC1: u32 = 0x00c, INTERCEPTS;
        INTERCEPT_MISC2: u32 = 0x010, INTERCEPTS;
        INTERCEPT_MISC3: u32 = 0x014, INTERCEPTS;
        IOPM_BASE: u64 = 0x040, PERMISSION_MAPS;
        MSRPM_BASE: u64 = 0x048, PERMISSION_MAPS;
        TSC_OFFSET: u64 = 0x050, INTERCEPTS;
        ASID: u32 = 0x058, ASID;
        TLB_CONTROL: u8 = 0x05c;
        V_INTR: u64 = 0x060, VIRTUAL_INTERRUPT;
        INTERRUPT_SHADOW: u64 = 0x068;
        EXITCODE: u64 = 0x070;
        EXITINFO1: u64 = 0x078;
        EXITINFO2: u64 = 0x080;
        EXITINTINFO: u64 = 0x088;
        NP_ENABLE: u64 = 0x090, NESTED_PAGING;
        EVENTINJ: u64 = 0x0a8;
        N_CR3: u64 = 0x0b0, NESTED_PAGING;
        CLEAN: u32 = 0x0c0;
        NRIP: u64 = 0x0c8;
        // State save area.
        GUEST_CPL: u8 = 0x4cb, SEGMENTS;
        GUEST_EFER: u64 = 0x4d0, CONTROL_REGISTERS;
        GUEST_CR4: u64 = 0x548, CONTROL_REGISTERS;
        GUEST_CR3: u64 = 0x550, CONTROL_REGISTERS;
        GUEST_CR0: u64 = 0x558, CONTROL_REGISTERS;
        GUEST_DR7: u64 = 0x560, DEBUG_REGISTERS;
        GUEST_DR6: u64 = 0x568, DEBUG_REGISTERS;
        GUEST_RFLAGS: u64 = 0x570;
        GUEST_RIP: u64 = 0x578;
        GUEST_RSP: u64 = 0x5d8;
        GUEST_RAX: u64 = 0x5f8;
        GUEST_STAR: u64 = 0x600;
        GUEST_LSTAR: u64 = 0x608;
        GUEST_CSTAR: u64 = 0x610;
        GUEST_SFMASK: u64 = 0x618;
        GUEST_KERNEL_GS_BASE: u64 = 0x620;
        GUEST_SYSENTER_CS: u64 = 0x628;
        GUEST_SYSENTER_ESP: u64 = 0x630;
        GUEST_SYSENTER_EIP: u64 = 0x638;
        GUEST_CR2: u64 = 0x640, CR2;
        GUEST_PAT: u64 = 0x668, NESTED_PAGING;
        GUEST_DBGCTL: u64 = 0x670, LAST_BRANCH;
    }

    /// ES.
    pub const GUEST_ES: SegmentFields = segment(0x400, Clean::SEGMENTS);
    /// CS.
    pub const GUEST_CS: SegmentFields = segment(0x410, Clean::SEGMENTS);
    /// SS.
    pub const GUEST_SS: SegmentFields = segment(0x420, Clean::SEGMENTS);
    /// DS.
    pub const GUEST_DS: SegmentFields = segment(0x430, Clean::SEGMENTS);
    /// FS; VMLOAD and VMSAVE move it.
    pub const GUEST_FS: SegmentFields = segment(0x440, Clean::empty());
    /// GS; VMLOAD and VMSAVE move it.
    pub const GUEST_GS: SegmentFields = segment(0x450, Clean::empty());
    /// GDTR.
    pub const GUEST_GDTR: TableFields = table(0x460);
    /// LDTR; VMLOAD and VMSAVE move it.
    pub const GUEST_LDTR: SegmentFields = segment(0x470, Clean::empty());
    /// IDTR.
    pub const GUEST_IDTR: TableFields = table(0x480);
    /// TR; VMLOAD and VMSAVE move it.
    pub const GUEST_TR: SegmentFields = segment(0x490, Clean::empty());
}
