//! What moves from one UTCB to another.

use crate::objects::Cap;
use abi::cap::{NULL, Perms, Selector};
use abi::utcb::{Item, MAX_ITEMS, MAX_WORDS, MsgTag, Window};

/// Copies the words of a message. Most have one to four: those are copied one by one, as a call of
/// `memcpy` would cost more than the words.
pub fn copy_words(dst: &mut [u64; MAX_WORDS], src: &[u64; MAX_WORDS], tag: MsgTag) {
    let count = tag.words();
    if count > 4 {
        return copy_many(dst, src, count);
    }
    let ([d0, d1, d2, d3, ..], [s0, s1, s2, s3, ..]) = (dst, src);
    if count > 0 {
        *d0 = *s0;
    }
    if count > 1 {
        *d1 = *s1;
    }
    if count > 2 {
        *d2 = *s2;
    }
    if count > 3 {
        *d3 = *s3;
    }
}

#[cold]
fn copy_many(dst: &mut [u64; MAX_WORDS], src: &[u64; MAX_WORDS], count: usize) {
    if let (Some(dst), Some(src)) = (dst.get_mut(..count), src.get(..count)) {
        dst.copy_from_slice(src);
    }
}

/// Passes the capabilities of a message on.
///
/// `lookup` finds a capability of the sender ([`Cap::EMPTY`] for none), `insert` puts one at an
/// empty selector of the receiver and says whether that worked. Item `i` goes to `window.base + i`
/// if `i` is below `window.count`, with the permissions that the sender has and its item names.
/// `dst` tells the receiver where each one landed: selector [`NULL`] if it did not.
pub fn translate_items(
    dst: &mut [Item; MAX_ITEMS],
    window: Window,
    src: &[Item; MAX_ITEMS],
    tag: MsgTag,
    mut lookup: impl FnMut(Selector) -> Cap,
    mut insert: impl FnMut(Selector, Cap) -> bool,
) {
    for ((i, to), item) in (0_u32..).zip(dst).zip(src).take(tag.items()) {
        let selector = window.base.checked_add(i).filter(|_| i < window.count).unwrap_or(NULL);
        let cap = lookup(item.selector).with(Perms(item.perms as u8));
        *to = if selector != NULL && !cap.is_empty() && insert(selector, cap) {
            Item::new(selector, cap.perms())
        } else {
            Item::default()
        };
    }
}
