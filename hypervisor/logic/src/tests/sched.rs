use crate::sched::{Budget, BudgetState, PriorityBitmap};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

proptest! {
    #[test]
    fn bitmap_finds_the_highest(ops in prop::collection::vec((any::<bool>(), 0..128_u8), 0..100)) {
        let (mut bitmap, mut model) = (PriorityBitmap::new(), BTreeSet::new());
        for (set, priority) in ops {
            if set {
                bitmap.set(priority);
                model.insert(priority);
            } else {
                bitmap.clear(priority);
                model.remove(&priority);
            }
            prop_assert_eq!(bitmap.highest(), model.last().copied());
        }
    }

    /// The context runs until its limit or until something else takes the processor away.
    #[test]
    fn no_period_has_more_than_its_budget(
        budget in 1..2000_u64,
        period in 1..1500_u64,
        release in 0..5000_u64,
        steps in prop::collection::vec((0..400_u64, 0..900_u64), 1..80),
    ) {
        let mut account = Budget::new(budget, period, release);
        let budget = budget.min(period);
        let mut used: BTreeMap<u64, u64> = BTreeMap::new();
        let mut now = release;
        for (idle, wish) in steps {
            now += idle;
            match account.state(now) {
                BudgetState::Run(until_ticks) => {
                    prop_assert!(until_ticks > now);
                    let end = until_ticks.min(now + wish);
                    let mut tick = now;
                    while tick < end {
                        let window = (tick - release) / period;
                        let next = (release + (window + 1) * period).min(end);
                        *used.entry(window).or_default() += next - tick;
                        tick = next;
                    }
                    account.charge(end - now, end);
                    now = end;
                }
                BudgetState::Depleted(until) => {
                    let window = (now - release) / period;
                    prop_assert_eq!(used.get(&window), Some(&budget), "starved");
                    prop_assert_eq!(until, release + (window + 1) * period);
                }
                BudgetState::RotateEqual => prop_assert!(false, "there is a period"),
            }
            for (window, used) in &used {
                prop_assert!(*used <= budget, "{used} in period {window}");
            }
        }
    }

    /// A timer that comes late is made good: over many periods the share holds.
    #[test]
    fn overruns_are_paid_back(late in 0..300_u64, budget in 10..100_u64) {
        let period = 100;
        let mut account = Budget::new(budget, period, 0);
        let (mut now, mut used) = (0, 0);
        while now < 100 * period {
            match account.state(now) {
                BudgetState::Run(until_ticks) => {
                    let ran = until_ticks - now + late;
                    used += ran;
                    now += ran;
                    account.charge(ran, now);
                }
                BudgetState::Depleted(until) => now = until,
                BudgetState::RotateEqual => unreachable!(),
            }
        }
        let periods = now / period + 1;
        prop_assert!(used <= periods * budget + late + budget, "{used} in {periods}");
    }

    #[test]
    fn nothing_overflows(
        budget: u64,
        period: u64,
        times in prop::collection::vec((any::<u64>(), any::<u64>()), 1..20),
    ) {
        let mut account = Budget::new(budget, period, 0);
        for (used, now) in times {
            account.charge(used, now);
            account.state(now);
        }
    }
}

#[test]
fn without_a_period_the_slice_rotates() {
    let mut slice = Budget::new(100, 0, 1000);
    assert_eq!(slice.state(1000), BudgetState::Run(1100));
    slice.charge(40, 1040);
    assert_eq!(slice.state(2000), BudgetState::Run(2060));
    slice.charge(70, 2070);
    assert_eq!(slice.state(2070), BudgetState::RotateEqual);
    assert_eq!(slice.state(2070), BudgetState::Run(2170));
}

#[test]
fn a_run_over_several_periods_is_paid_back_by_the_following() {
    let mut account = Budget::new(50, 100, 0);
    // 95 to 305: 5 in the first period, 200 in the two that follow and bring 100, 5 in the fourth.
    account.charge(210, 305);
    // The fourth period's budget goes to the debt, so it is not worth waking up for.
    assert_eq!(account.state(305), BudgetState::Depleted(500));
    assert_eq!(account.state(400), BudgetState::Depleted(500));
    assert_eq!(account.state(500), BudgetState::Run(545));
}
