use crate::ipc::{copy_words, translate_items};
use crate::objects::Cap;
use abi::cap::{ObjectType, Perms};
use abi::utcb::{Item, MAX_ITEMS, MAX_WORDS, MsgTag, Window};
use proptest::prelude::*;
use std::collections::BTreeMap;

proptest! {
    #[test]
    fn exactly_the_words_of_the_message_move(tag: u64, seed: u64) {
        let src: [u64; MAX_WORDS] = core::array::from_fn(|i| seed.wrapping_mul(i as u64 | 1));
        for tag in [MsgTag(tag), MsgTag(tag & 7), MsgTag::new(4, 0), MsgTag::new(5, 0)] {
            let mut dst = [!0; MAX_WORDS];
            copy_words(&mut dst, &src, tag);
            prop_assert_eq!(&dst[..tag.words()], &src[..tag.words()]);
            prop_assert!(dst[tag.words()..].iter().all(|word| *word == !0));
        }
    }

    #[test]
    fn items_land_in_the_window(
        sent in prop::collection::vec((0..8_u32, any::<u32>()), 0..=MAX_ITEMS),
        base in prop_oneof![4 => 0..30_u32, 1 => u32::MAX - 4..=u32::MAX],
        count in prop_oneof![0..20_u32, Just(u32::MAX)],
        held in prop::collection::btree_map(0..8_u32, any::<u8>(), 0..8),
        occupied in prop::collection::btree_set(0..40_u32, 0..10),
        extra in 0..3_usize,
    ) {
        let mut src = [Item::default(); MAX_ITEMS];
        for (item, (selector, perms)) in src.iter_mut().zip(&sent) {
            (item.selector, item.perms) = (*selector, *perms);
        }
        let items = (sent.len() + extra).min(MAX_ITEMS);
        let untouched = Item::new(99, Perms::ALL);
        let mut dst = [untouched; MAX_ITEMS];
        let mut space = BTreeMap::new();
        translate_items(
            &mut dst,
            Window { base, count },
            &src,
            MsgTag::new(0, items),
            |sel| {
                let object = u64::from(sel) + 1;
                held.get(&sel)
                    .map_or(Cap::EMPTY, |perms| Cap::new(object, ObjectType::Sm, Perms(*perms)))
            },
            |sel, cap| {
                assert_ne!(sel, 0);
                let free = !occupied.contains(&sel);
                if free {
                    assert_eq!(space.insert(sel, cap), None);
                }
                free
            },
        );
        let mut landed = 0;
        for i in 0..items {
            let (item, to) = (src[i], u64::from(base) + i as u64);
            let fits = (i as u64) < u64::from(count) && (1..1 << 32).contains(&to);
            let expected = held
                .get(&item.selector)
                .filter(|_| fits && !occupied.contains(&(to as u32)))
                .map(|perms| Item::new(to as u32, Perms(perms & item.perms as u8)));
            prop_assert_eq!(dst[i], expected.unwrap_or_default());
            if let Some(item) = expected {
                landed += 1;
                prop_assert_eq!(space[&item.selector].perms().0, item.perms as u8);
                prop_assert_eq!(space[&item.selector].object, u64::from(src[i].selector) + 1);
            }
        }
        prop_assert_eq!(space.len(), landed);
        prop_assert!(dst[items..].iter().all(|item| *item == untouched));
    }
}
