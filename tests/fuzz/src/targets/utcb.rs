//! The message page: a tag, words and items that one task writes and the kernel carries to another.

use std::collections::BTreeMap;

use abi::cap::{NULL, ObjectType, Perms, Selector};
use abi::utcb::{Item, MAX_ITEMS, MAX_WORDS, MsgTag, Window};
use hypervisor_logic::ipc;
use hypervisor_logic::objects::Cap;

use super::Target;
use crate::input::{Bytes, Input};

/// Tag, window, whether selectors of the receiver are taken, items, words.
pub const TARGET: Target = Target { name: "utcb", longest: 400, dictionary: &[], seeds, run };

fn seeds() -> Vec<Vec<u8>> {
    let head = |words, items, base, count| {
        Bytes::default().u64(MsgTag::new(words, items).0).u32(base).u32(count).u16(0)
    };
    vec![
        head(2, 0, 0, 0).pad(18).u64(5).0,
        head(0, 3, 100, 2).u32(16).u32(0xff).u32(17).u32(1).u32(0).u32(7).0,
        head(300, 16, u32::MAX - 1, 16).u32(16).u32(0xff).0,
    ]
}

/// What the sender has: half of its selectors are empty.
fn held(selector: Selector) -> Cap {
    match selector {
        0..0x100 if selector.is_multiple_of(2) && selector != NULL => {
            Cap::new(0x1000 + u64::from(selector), ObjectType::Sm, Perms(selector as u8 | 1))
        }
        _ => Cap::EMPTY,
    }
}

fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let tag = MsgTag(input.u64());
    let window = Window { base: input.u32(), count: input.u32() };
    let taken = input.u16();
    let sent: [Item; MAX_ITEMS] = std::array::from_fn(|_| {
        let mut item = Item::default();
        (item.selector, item.perms) = (input.u32(), input.u32());
        item
    });
    let words: [u64; MAX_WORDS] = std::array::from_fn(|_| input.u64());

    let mut copied = [u64::MAX; MAX_WORDS];
    ipc::copy_words(&mut copied, &words, tag);
    let count = tag.words();
    assert_eq!(copied[..count], words[..count]);
    assert!(copied[count..].iter().all(|word| *word == u64::MAX));

    let untouched = Item::new(0xdead, Perms(0xaa));
    let mut got = [untouched; MAX_ITEMS];
    let mut table: BTreeMap<Selector, Cap> = BTreeMap::new();
    ipc::translate_items(&mut got, window, &sent, tag, held, |selector, cap| {
        let index = selector.checked_sub(window.base).filter(|index| *index < window.count);
        let index = index.expect("only the window is filled");
        assert!(selector != NULL && !cap.is_empty());
        let free = taken >> (index % 16) & 1 == 0 && !table.contains_key(&selector);
        if free {
            table.insert(selector, cap);
        }
        free
    });
    assert!(got[tag.items()..].iter().all(|item| *item == untouched));
    for (index, item) in got.iter().enumerate().take(tag.items()) {
        if item.selector == NULL {
            assert_eq!(*item, Item::default());
            continue;
        }
        let from = held(sent[index].selector);
        let cap = table.remove(&item.selector).expect("it says where it is");
        assert_eq!(cap.object, from.object);
        assert_eq!(u32::from(cap.perms().0), item.perms);
        let allowed = from.perms().intersection(Perms(sent[index].perms as u8));
        assert_eq!(cap.perms(), allowed, "a right appeared");
    }
    assert!(table.is_empty(), "a capability arrived and nobody was told");
}
