use crate::quota::Quota;
use abi::hypercall::Status;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Take(usize, u64),
    Give(usize, u64),
    Transfer(usize, usize, u64),
}

fn op() -> impl Strategy<Value = Op> {
    let account = 0..4_usize;
    let pages = prop_oneof![8 => 0..40_u64, 1 => any::<u64>()].boxed();
    prop_oneof![
        (account.clone(), pages.clone()).prop_map(|(a, n)| Op::Take(a, n)),
        (account.clone(), pages.clone()).prop_map(|(a, n)| Op::Give(a, n)),
        (account.clone(), account, pages).prop_map(|(a, b, n)| Op::Transfer(a, b, n)),
    ]
}

proptest! {
    #[test]
    fn nothing_is_made_or_lost(ops in prop::collection::vec(op(), 0..60)) {
        let mut accounts = [Quota::new(100), Quota::new(0), Quota::new(7), Quota::new(30)];
        let mut taken = [0_u64; 4];
        for op in ops {
            match op {
                Op::Take(a, n) => {
                    let enough = n <= accounts[a].free();
                    prop_assert_eq!(accounts[a].take(n), if enough { Ok(()) } else { Err(Status::Quota) });
                    taken[a] += if enough { n } else { 0 };
                }
                Op::Give(a, n) => {
                    let n = n.min(taken[a]);
                    accounts[a].give(n);
                    taken[a] -= n;
                }
                Op::Transfer(a, b, n) => {
                    let Ok([from, to]) = accounts.get_disjoint_mut([a, b]) else { continue };
                    let enough = n <= from.free();
                    let result = Quota::transfer(from, to, n);
                    prop_assert_eq!(result, if enough { Ok(()) } else { Err(Status::Quota) });
                }
            }
            prop_assert_eq!(accounts.iter().map(Quota::limit).sum::<u64>(), 137);
            for (account, taken) in accounts.iter().zip(taken) {
                prop_assert_eq!(account.free() + taken, account.limit());
            }
        }
    }
}

#[test]
fn a_limit_never_overflows() {
    let (mut from, mut to) = (Quota::new(10), Quota::new(u64::MAX - 5));
    assert_eq!(Quota::transfer(&mut from, &mut to, 6), Err(Status::Quota));
    assert_eq!((from.free(), from.limit(), to.limit()), (10, 10, u64::MAX - 5));
    assert_eq!(Quota::transfer(&mut from, &mut to, 5), Ok(()));
}
