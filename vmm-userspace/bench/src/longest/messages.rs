//! Calls and replies.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use abi::cap::{NULL, Perms};
use abi::hypercall::Status;
use abi::utcb::{Item, MAX_ITEMS, MAX_WORDS, MsgTag, Utcb, Window};
use runtime::clock::now;
use runtime::handler::Handler;
use runtime::selector::FREE;

use super::crowd::{BEGIN, END};
use super::{Case, FEW, Longest, sm};

/// A call with all the words and items there can be, and its reply. Each item goes to a new selector, some of which need
/// a new table.
pub(super) fn measure(utcb: &mut Utcb, cases: &mut Vec<Case>) -> Result<(), Status> {
    /// Selectors that share a table.
    const PER_TABLE: u32 = 128;
    let item = Item::new(sm()?.selector(), Perms::ALL);
    // Half of a window is in one table, half in the next.
    let windows = FREE.range(4 * FEW as u32 * PER_TABLE + PER_TABLE)?.next_multiple_of(PER_TABLE);
    let window = |nth: u32| Window {
        base: windows + (2 * nth + 1) * PER_TABLE - MAX_ITEMS as u32 / 2,
        count: MAX_ITEMS as u32,
    };
    let handler = Handler::new(item)?;
    let portal = handler.portal(0, 0, |item: &mut Item, utcb: &mut Utcb, _, tag| {
        END.store(now(), Ordering::Relaxed);
        let next = utcb.words[0] as u32;
        utcb.window = Window { base: next, count: MAX_ITEMS as u32 };
        utcb.items = [*item; MAX_ITEMS];
        BEGIN.store(now(), Ordering::Relaxed);
        MsgTag(tag)
    })?;
    let (mut call, mut reply) = (Longest::default(), Longest::default());
    for nth in 0..FEW as u32 {
        // The handler's window for the call after this one.
        utcb.words[0] = window(2 * nth).base.into();
        utcb.window = window(2 * nth + 1);
        utcb.items = [item; MAX_ITEMS];
        let begin = now();
        portal.call(utcb, MsgTag::new(MAX_WORDS, MAX_ITEMS))?;
        let end = now();
        call.add(begin, END.load(Ordering::Relaxed));
        reply.add(BEGIN.load(Ordering::Relaxed), end);
    }
    if utcb.items.iter().any(|item| item.selector == NULL) {
        return Err(Status::BadCap);
    }
    cases.extend([("call", call.0), ("reply", reply.0)]);
    Ok(())
}
