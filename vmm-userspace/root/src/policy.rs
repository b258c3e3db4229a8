//! Whether a partition that ended is started again.

use config::Restart;
use protocol::outcome::Outcome;

/// How a partition ended: in its own words, or by a fault of its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It said so itself.
    Outcome(Outcome),
    /// One of its threads raised an exception, its monitor hangs, or the kernel had to end its
    /// virtual CPU.
    Fault,
}

/// Whether it is started again. A guest that asked for a reset gets one in any case: that is no
/// end, but what the guest wants its machine to do.
#[must_use]
pub const fn again(restart: Restart, ending: Ending) -> bool {
    match (ending, restart) {
        (Ending::Outcome(Outcome::Reset), _) | (_, Restart::Always) => true,
        (_, Restart::Never) | (Ending::Outcome(Outcome::Done), Restart::OnFailure) => false,
        (Ending::Outcome(Outcome::Failed) | Ending::Fault, Restart::OnFailure) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_follow_the_manifest() {
        use Restart::*;
        let done = Ending::Outcome(Outcome::Done);
        let failed = Ending::Outcome(Outcome::Failed);
        for (ending, never, always, on_failure) in [
            (done, false, true, false),
            (failed, false, true, true),
            (Ending::Fault, false, true, true),
            (Ending::Outcome(Outcome::Reset), true, true, true),
        ] {
            assert_eq!(again(Never, ending), never);
            assert_eq!(again(Always, ending), always);
            assert_eq!(again(OnFailure, ending), on_failure);
        }
    }
}
