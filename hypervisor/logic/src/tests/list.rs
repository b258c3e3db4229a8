use crate::list::{Full, List};
use proptest::prelude::*;
use std::vec::Vec;

proptest! {
    #[test]
    fn follows_a_vector(values in prop::collection::vec(any::<u8>(), 0..12)) {
        let (mut list, mut model) = (List::<u8, 6>::new(0), Vec::new());
        for value in values {
            let fits = model.len() < 6;
            prop_assert_eq!(list.push(value), if fits { Ok(()) } else { Err(Full) });
            if fits {
                model.push(value);
            }
            prop_assert_eq!(&*list, &*model);
        }
    }
}
