//! The generator: every field of a state with values that may be wrong.

use abi::vcpu::{Event, Segment, TableRegister, VcpuState};

/// A changed state: which field, and what it is now.
pub struct Change<'a> {
    /// The field.
    pub field: &'static str,
    /// Its value, or what of it has changed.
    pub value: u64,
    /// The whole.
    pub state: &'a VcpuState,
}

/// Values that are at the edge of something.
const EDGES: [u64; 12] = [
    0,
    0xfff,
    0x1_0000,
    0x7fff_ffff,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff,
    0x8000_0000_0000,
    0xffff_7fff_ffff_ffff,
    0xffff_8000_0000_0000,
    0x8000_0000_0000_0000,
    u64::MAX,
];

const LIMITS: [u32; 8] = [0, 0xffe, 0xfff, 0xffff, 0xf_ffff, 0x10_0000, 0xffff_fffe, 0xffff_ffff];

type Word = (&'static str, fn(&mut VcpuState) -> &mut u64);

/// Words of which each bit is changed by itself.
const BITS: [Word; 10] = [
    ("cr0", |s| &mut s.cr0),
    ("cr3", |s| &mut s.cr3),
    ("cr4", |s| &mut s.cr4),
    ("efer", |s| &mut s.efer),
    ("pat", |s| &mut s.pat),
    ("dr7", |s| &mut s.dr7),
    ("rflags", |s| &mut s.rflags),
    ("rip", |s| &mut s.rip),
    ("pdpte 1", |s| &mut s.pdpte[1]),
    ("pdpte 3", |s| &mut s.pdpte[3]),
];

/// Words that get all of [`EDGES`].
const ADDRESSES: [Word; 5] = [
    ("sysenter_esp", |s| &mut s.sysenter_esp),
    ("sysenter_eip", |s| &mut s.sysenter_eip),
    ("gdtr.base", |s| &mut s.gdtr.base),
    ("idtr.base", |s| &mut s.idtr.base),
    ("rip", |s| &mut s.rip),
];

type Field<T> = (&'static str, fn(&mut VcpuState) -> &mut T);

const SEGMENTS: [Field<Segment>; 8] = [
    ("cs", |s| &mut s.cs),
    ("ss", |s| &mut s.ss),
    ("ds", |s| &mut s.ds),
    ("es", |s| &mut s.es),
    ("fs", |s| &mut s.fs),
    ("gs", |s| &mut s.gs),
    ("tr", |s| &mut s.tr),
    ("ldtr", |s| &mut s.ldtr),
];

const TABLES: [Field<TableRegister>; 2] =
    [("gdtr.limit", |s| &mut s.gdtr), ("idtr.limit", |s| &mut s.idtr)];

/// Goes through all changes of `base`, one at a time.
pub fn all<E>(
    base: &VcpuState,
    check: &mut impl FnMut(&Change<'_>) -> Result<(), E>,
) -> Result<(), E> {
    words(base, check)?;
    segments(base, check)?;
    blocking(base, check)?;
    events(base, check)
}

fn words<E>(
    base: &VcpuState,
    check: &mut impl FnMut(&Change<'_>) -> Result<(), E>,
) -> Result<(), E> {
    for (field, word) in BITS {
        for bit in 0..64 {
            let mut state = *base;
            *word(&mut state) ^= 1 << bit;
            check(&Change { field, value: bit, state: &state })?;
        }
    }
    for (field, word) in ADDRESSES {
        for value in EDGES {
            let mut state = *base;
            *word(&mut state) = value;
            check(&Change { field, value, state: &state })?;
        }
    }
    for (field, table) in TABLES {
        for limit in LIMITS {
            let mut state = *base;
            table(&mut state).limit = limit.into();
            check(&Change { field, value: limit.into(), state: &state })?;
        }
    }
    // Combinations of what decides the mode: PE, PG; PAE; LME, LMA; VM.
    for mode in 0..64_u64 {
        let mut state = *base;
        let bit = |from: u32, to: u32| (mode >> from & 1) << to;
        state.cr0 = state.cr0 & !(1 << 31 | 1) | bit(0, 0) | bit(1, 31);
        state.cr4 = state.cr4 & !(1 << 5) | bit(2, 5);
        state.efer = state.efer & !(1 << 8 | 1 << 10) | bit(3, 8) | bit(4, 10);
        state.rflags = state.rflags & !(1 << 17) | bit(5, 17);
        check(&Change { field: "mode", value: mode, state: &state })?;
    }
    Ok(())
}

fn segments<E>(
    base: &VcpuState,
    check: &mut impl FnMut(&Change<'_>) -> Result<(), E>,
) -> Result<(), E> {
    for (field, segment) in SEGMENTS {
        for bit in 0..13 {
            let mut state = *base;
            segment(&mut state).attr ^= 1 << bit;
            check(&Change { field, value: bit, state: &state })?;
        }
        // All types, at all privilege levels.
        for low in 0..0x80 {
            let mut state = *base;
            let attr = &mut segment(&mut state).attr;
            *attr = *attr & !0x7f | low;
            check(&Change { field, value: u64::from(low) << 16, state: &state })?;
        }
        for value in EDGES {
            let mut state = *base;
            segment(&mut state).base = value;
            check(&Change { field, value, state: &state })?;
        }
        for limit in LIMITS {
            for granularity in [0, 1 << 11] {
                let mut state = *base;
                let segment = segment(&mut state);
                segment.limit = limit;
                segment.attr ^= granularity;
                check(&Change { field, value: limit.into(), state: &state })?;
            }
        }
        for bit in [0, 1, 2, 3, 15] {
            let mut state = *base;
            segment(&mut state).selector ^= 1 << bit;
            check(&Change { field, value: 0x1_0000 << bit, state: &state })?;
        }
    }
    Ok(())
}

fn blocking<E>(
    base: &VcpuState,
    check: &mut impl FnMut(&Change<'_>) -> Result<(), E>,
) -> Result<(), E> {
    for blocked in 0..16 {
        // IF and TF, in all combinations, and nothing, an interrupt or an NMI to inject.
        for flags in 0..4 {
            for event in [Event::NONE, Event::interrupt(0x40), Event::nmi()] {
                let mut state = *base;
                state.blocking = blocked;
                state.rflags = state.rflags & !0x300 | flags << 8;
                state.event = event;
                check(&Change { field: "blocking", value: blocked.into(), state: &state })?;
            }
        }
    }
    Ok(())
}

fn events<E>(
    base: &VcpuState,
    check: &mut impl FnMut(&Change<'_>) -> Result<(), E>,
) -> Result<(), E> {
    const VECTORS: [u32; 16] = [0, 1, 2, 3, 6, 8, 10, 13, 14, 17, 18, 20, 31, 32, 128, 255];
    let mut with = |info: u32, error, length| {
        let mut state = *base;
        state.event = Event { info: info | 1 << 31, error };
        state.inst_len = length;
        check(&Change { field: "event", value: info.into(), state: &state })
    };
    for kind in 0..8 {
        for vector in VECTORS {
            for has_error in [0, 1 << 11] {
                with(kind << 8 | vector | has_error, 0, 1)?;
            }
        }
    }
    // Reserved bits.
    for bit in 12..31 {
        with(0x30d | 1 << 11 | 1 << bit, 0, 0)?;
        with(0x40 | 1 << bit, 0, 0)?;
    }
    // Error codes and lengths.
    for bit in 0..32 {
        with(0x30d | 1 << 11, 1 << bit, 0)?;
    }
    for length in [0, 1, 2, 14, 15, 16, 17, 255, 0x8000_0001] {
        for kind in [4, 5, 6] {
            with(kind << 8 | 3, 0, length)?;
        }
    }
    Ok(())
}
