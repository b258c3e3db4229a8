use crate::list::{Full, List};
use proptest::prelude::*;
use std::vec::Vec;

proptest! {
    #[test]
    fn follows_a_vector(ops in prop::collection::vec((0..8_usize, any::<u8>()), 0..12)) {
        let (mut list, mut model) = (List::<u8, 6>::new(0), Vec::new());
        for (at, value) in ops {
            let fits = at <= model.len() && model.len() < 6;
            prop_assert_eq!(list.insert(at, value), if fits { Ok(()) } else { Err(Full) });
            if fits {
                model.insert(at, value);
            }
            prop_assert_eq!(&*list, &*model);
        }
    }
}
