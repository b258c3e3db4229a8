//! Segment attributes and events, in a VMCB and in the neutral state.
//!
//! Attributes are the same twelve bits in both (APM 2 15.5.1, table B-2), but a VMCB has no
//! "unusable": what cannot be used is not present.

use abi::vcpu::{Event, EventKind, Segment};

const TYPE_ACCESSED: u16 = 1 << 0;
const TYPE_BUSY: u16 = 1 << 1;
const CODE_OR_DATA: u16 = 1 << 4;
const DPL_SHIFT: u32 = 5;
const PRESENT: u16 = 1 << 7;
const GRANULARITY: u16 = 1 << 11;
const BITS: u16 = 0xfff;

/// The attributes in a VMCB for [`Segment::attr`].
#[inline(always)]
pub const fn attributes_to_vmcb(attr: u16) -> u16 {
    if attr & Segment::UNUSABLE != 0 { 0 } else { attr & BITS }
}

/// [`Segment::attr`] for the attributes in a VMCB.
///
/// Processors do not keep bits that they do not look at. Those are brought to what other processors
/// have in their place, so that a state can move to any: a segment in use was accessed, and a limit
/// that only G can express has it.
#[inline(always)]
pub const fn attributes_from_vmcb(attributes: u16, limit: u32) -> u16 {
    let mut attr = attributes & BITS;
    if attr & PRESENT == 0 {
        return attr | Segment::UNUSABLE;
    }
    if attr & CODE_OR_DATA != 0 {
        attr |= TYPE_ACCESSED;
    }
    if limit > 0xf_ffff {
        attr |= GRANULARITY;
    }
    attr
}

/// [`Segment::attr`] of SS, whose DPL is the current privilege level, usable or not; in a VMCB that
/// is a field of its own.
#[inline(always)]
pub const fn stack_from_vmcb(attributes: u16, limit: u32, cpl: u8) -> u16 {
    let attr = attributes_from_vmcb(attributes, limit);
    attr & !(3 << DPL_SHIFT) | (cpl as u16 & 3) << DPL_SHIFT
}

/// [`Segment::attr`] of TR, which is always in use: its task is busy.
#[inline(always)]
pub const fn task_from_vmcb(attributes: u16, limit: u32) -> u16 {
    let attr = attributes_from_vmcb(attributes, limit);
    if attr & Segment::UNUSABLE != 0 { attr } else { attr | TYPE_BUSY }
}

/// The current privilege level for [`Segment::attr`] of SS.
#[inline(always)]
pub const fn privilege_level(attr: u16) -> u8 {
    (attr >> DPL_SHIFT & 3) as u8
}

/// What EVENTINJ and EXITINTINFO hold besides the error code, and what [`Event`] has room for.
const MEANT: u32 = 1 << 31 | 0xfff;

/// Without it, the half with the error code is undefined.
const HAS_ERROR: u32 = 1 << 11;

/// EVENTINJ for an event (APM 2 15.20): what is beyond the kinds of [`EventKind`], INT1 (5) and
/// INT3 or INTO (6) on other processors, is an exception here.
pub const fn event_to_vmcb(event: Event) -> u64 {
    if !event.is_valid() {
        return 0;
    }
    let mut info = event.info & MEANT;
    if matches!(event.kind(), 5 | 6) {
        info = info & !(7 << 8) | (EventKind::Exception as u32) << 8;
    }
    let error = if info & HAS_ERROR != 0 { event.error } else { 0 };
    (error as u64) << 32 | info as u64
}

/// The event in EVENTINJ or EXITINTINFO (APM 2 15.7.2, 15.20).
pub const fn event_from_vmcb(raw: u64) -> Event {
    let info = raw as u32 & MEANT;
    let event = Event { info, error: if info & HAS_ERROR != 0 { (raw >> 32) as u32 } else { 0 } };
    if event.is_valid() { event } else { Event::NONE }
}
