//! Whether a monitor still answers the exits of its virtual CPU.
//!
//! A monitor hangs if the same exit has been worked on for [`PATIENCE`], at [`LOOKS`] looks at
//! least, without waiting for anything, and [`WORK`] of CPU time went into it. The last condition
//! keeps a monitor alive that has done nothing because others got all the time.

use abi::hypercall::EcActivity;

/// Nanoseconds that an exit may take.
pub const PATIENCE: u64 = 10_000_000_000;
/// Nanoseconds of CPU time that an exit may take besides.
pub const WORK: u64 = 1_000_000_000;
/// Looks that have to find the same exit, one for each second: a machine that itself stood still for a part of them finds fewer.
const LOOKS: u32 = 10;

/// What a look at a virtual CPU has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// When, in nanoseconds of a clock that never runs backwards.
    pub at: u64,
    /// What it does.
    pub activity: EcActivity,
    /// How many exits it has had.
    pub exits: u64,
    /// Nanoseconds of CPU time it has had, if that is known.
    pub consumed: Option<u64>,
}

/// What to think of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does what it should, as far as one can tell by now.
    Healthy,
    /// Its monitor does not answer any more.
    Hangs,
    /// The kernel has ended it.
    Dead,
}

/// Judges one virtual CPU by what is found again and again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Judge {
    /// The first finding of the exit that is worked on, and how often it was found.
    since: Option<(Finding, u32)>,
}

impl Judge {
    /// Takes a finding into account; to be called about once a second.
    pub fn judge(&mut self, now: Finding) -> Verdict {
        match now.activity {
            EcActivity::Dead => return Verdict::Dead,
            EcActivity::Served => {}
            EcActivity::Runs | EcActivity::Waits | EcActivity::Idle | EcActivity::Stopped => {
                self.since = None;
                return Verdict::Healthy;
            }
        }
        let (first, looks) = match self.since {
            Some((first, looks)) if first.exits == now.exits => (first, looks.saturating_add(1)),
            _ => (now, 1),
        };
        self.since = Some((first, looks));
        let worked = match (first.consumed, now.consumed) {
            (Some(first), Some(now)) => now.saturating_sub(first) >= WORK,
            _ => true,
        };
        if looks >= LOOKS && now.at.saturating_sub(first.at) >= PATIENCE && worked {
            Verdict::Hangs
        } else {
            Verdict::Healthy
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn served(second: u64, exits: u64, consumed: Option<u64>) -> Finding {
        Finding { at: second * SECOND, activity: EcActivity::Served, exits, consumed }
    }

    /// The second at which the verdict is no longer `Healthy`.
    fn first_verdict(findings: impl Iterator<Item = Finding>) -> Option<(u64, Verdict)> {
        let mut judge = Judge::default();
        findings
            .map(|finding| (finding.at / SECOND, judge.judge(finding)))
            .find(|(_, verdict)| *verdict != Verdict::Healthy)
    }

    #[test]
    fn an_exit_that_is_never_answered_is_found_after_ten_seconds() {
        let always = |second| served(second, 7, Some(second * SECOND / 2));
        assert_eq!(first_verdict((3..60).map(always)), Some((13, Verdict::Hangs)));
        let unknown = |second| served(second, 7, None);
        assert_eq!(first_verdict((3..60).map(unknown)), Some((13, Verdict::Hangs)));
    }

    #[test]
    fn a_monitor_without_time_is_given_more() {
        let starved = |second| served(second, 7, Some(5));
        assert_eq!(first_verdict((0..1000).map(starved)), None);
        // A twentieth of the CPU: one second of work takes twenty.
        let slow = |second| served(second, 7, Some(second * SECOND / 20));
        assert_eq!(first_verdict((0..1000).map(slow)), Some((20, Verdict::Hangs)));
    }

    #[test]
    fn few_looks_prove_nothing() {
        let rare = |look: u64| served(look * 100, 7, None);
        assert_eq!(first_verdict((0..9).map(rare)), None);
        assert_eq!(first_verdict((0..10).map(rare)), Some((900, Verdict::Hangs)));
    }

    #[test]
    fn whoever_waits_or_runs_is_healthy() {
        use EcActivity::{Idle, Runs, Stopped, Waits};
        for activity in [Runs, Waits, Idle, Stopped] {
            let finding = |second| Finding { activity, ..served(second, 7, None) };
            assert_eq!(first_verdict((0..1000).map(finding)), None);
            // One such look in between, and patience begins again.
            let once = |second| if second == 9 { finding(9) } else { served(second, 7, None) };
            assert_eq!(first_verdict((0..1000).map(once)), Some((20, Verdict::Hangs)));
        }
    }

    #[test]
    fn a_dead_one_is_found_at_once() {
        let dead = Finding { activity: EcActivity::Dead, ..served(2, 7, None) };
        assert_eq!(Judge::default().judge(dead), Verdict::Dead);
    }

    proptest! {
        /// However the exits come: as long as one comes every nine seconds, all is well.
        #[test]
        fn progress_is_health(steps in proptest::collection::vec(0_u64..9, 1..50)) {
            let mut judge = Judge::default();
            let mut at = 0;
            for (exits, seconds) in steps.into_iter().enumerate() {
                for _ in 0..=seconds {
                    at += 1;
                    let finding = served(at, exits as u64, None);
                    prop_assert_eq!(judge.judge(finding), Verdict::Healthy);
                }
            }
        }
    }
}
