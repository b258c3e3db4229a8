//! How long others wait for the end of a line.
//!
//! What a guest prints comes byte by byte. If two print at the same time, each would find the other in the middle of a line. So
//! whoever is there lets the other finish, but not for long: a line may be a prompt, which ends when its user likes.

/// Says whether others still wait for the source that is in the middle of a line.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// The longest wait, in ticks.
    limit: u64,
    /// Since when somebody waits; `None` if nobody does.
    since: Option<u64>,
}

impl Patience {
    /// Nobody waits. `limit`: the longest wait, in ticks.
    #[must_use]
    pub const fn new(limit: u64) -> Self {
        Self { limit, since: None }
    }

    /// Somebody has something to say at `now` while another is in the middle of a line and says nothing. Returns whether to wait on.
    pub fn lasts(&mut self, now: u64) -> bool {
        now.saturating_sub(*self.since.get_or_insert(now)) < self.limit
    }

    /// The line has ended, or was broken off: the next wait is a new one.
    pub const fn renew(&mut self) {
        self.since = None;
    }

    /// When it ends.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.since.map(|since| since.saturating_add(self.limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_has_an_end_however_often_one_asks() {
        let mut patience = Patience::new(10);
        assert_eq!(patience.deadline(), None);
        assert!(patience.lasts(100));
        assert!(patience.lasts(109));
        assert_eq!(patience.deadline(), Some(110));
        assert!(!patience.lasts(110));
        assert!(!patience.lasts(111));
        patience.renew();
        assert_eq!(patience.deadline(), None);
        assert!(patience.lasts(112));
    }
}
