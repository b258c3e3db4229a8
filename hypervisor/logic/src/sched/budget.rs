//! How long a scheduling context may run.

/// The account of a scheduling context: at most `budget` ticks in every period, counted from its
/// release on.
///
/// Each period starts with a full budget; what was not used is lost. A context that ran longer than
/// its budget, because the timer came late, starts the next period with that much less.
///
/// Without a period the budget is a slice that is filled again as soon as it is used up, and the
/// context goes behind its equals.
///
/// All times are time-stamp-counter ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    budget: u64,
    period: u64,
    /// Ticks left in the current period.
    left: u64,
    /// Ticks used beyond the budget and not yet made good.
    debt: u64,
    /// Start of the next period.
    replenish_at: u64,
}

/// What a [`Budget`] allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetState {
    /// It can run, at most up to that absolute time; then [`Budget::charge`] and ask again.
    Run(u64),
    /// It cannot run before that absolute time.
    Depleted(u64),
    /// Its slice was used up and is full again: it goes to the end of the queue of its priority.
    RotateEqual,
}

impl Budget {
    /// A full account, released at `now`. The budget is at least one tick, and at most the period
    /// if there is one.
    pub const fn new(budget: u64, period: u64, now: u64) -> Self {
        let budget = if budget == 0 { 1 } else { budget };
        let budget = if period != 0 && budget > period { period } else { budget };
        Self { budget, period, left: budget, debt: 0, replenish_at: now.saturating_add(period) }
    }

    /// Takes `used` ticks that ended at `now` off the account. The part of them that lies in a
    /// period that began meanwhile counts there.
    #[inline]
    pub fn charge(&mut self, used: u64, now: u64) {
        if self.period != 0 && now >= self.replenish_at {
            self.charge_across(used, now);
        } else {
            self.spend(used);
        }
    }

    #[cold]
    fn charge_across(&mut self, used: u64, now: u64) {
        let start = now.saturating_sub(used);
        let before = self.replenish_at.saturating_sub(start).min(used);
        let into_period = now.saturating_sub(self.replenish_at).checked_rem(self.period);
        let after = into_period.unwrap_or(0).min(used.saturating_sub(before));
        self.spend(before);
        // What the old period had left is lost; whole periods between are set off in `replenish`.
        self.left = 0;
        self.spend(used.saturating_sub(before).saturating_sub(after));
        self.replenish(now);
        self.spend(after);
    }

    #[inline]
    fn spend(&mut self, used: u64) {
        self.debt = self.debt.saturating_add(used.saturating_sub(self.left));
        self.left = self.left.saturating_sub(used);
    }

    /// Enters the period that `now` is in, with the budget of every period that has begun since.
    #[cold]
    fn replenish(&mut self, now: u64) {
        let behind = now.saturating_sub(self.replenish_at);
        let periods = behind.checked_div(self.period).unwrap_or(0).saturating_add(1);
        self.replenish_at = self.replenish_at.saturating_add(periods.saturating_mul(self.period));
        let earlier = periods.wrapping_sub(1).saturating_mul(self.budget);
        self.debt = self.debt.saturating_sub(earlier);
        let paid = self.debt.min(self.budget);
        self.debt = self.debt.wrapping_sub(paid);
        self.left = self.budget.wrapping_sub(paid);
    }

    /// What the context may do now. Everything it has run must have been charged.
    #[inline]
    pub fn state(&mut self, now: u64) -> BudgetState {
        if self.period == 0 {
            if self.left == 0 {
                (self.left, self.debt) = (self.budget, 0);
                return BudgetState::RotateEqual;
            }
            return BudgetState::Run(now.saturating_add(self.left));
        }
        if now >= self.replenish_at {
            self.replenish(now);
        }
        if self.left == 0 {
            // Periods whose whole budget goes to the debt are not worth waking up for.
            let periods = self.debt.checked_div(self.budget).unwrap_or(0);
            let until = self.replenish_at.saturating_add(periods.saturating_mul(self.period));
            return BudgetState::Depleted(until);
        }
        let until = now.saturating_add(self.left);
        BudgetState::Run(if until < self.replenish_at {
            until
        } else {
            // It lasts into the next period, so that period's budget counts from its start.
            self.replenish_at.saturating_add(self.budget)
        })
    }
}
