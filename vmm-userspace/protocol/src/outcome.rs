//! How a task says that it has ended.

/// Why a task ended.
///
/// The root task gives every task one portal for each outcome, in this order: calling the portal
/// at "[`crate::startup::Caps::exit`] + outcome" ends the task. Such a call carries no words, so
/// any thread of the task can make it, and it never returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// Its work is done; a guest turned its machine off.
    Done = 0,
    /// The guest asked for a reset of its machine.
    Reset = 1,
    /// It could not go on. What is wrong is in its log.
    Failed = 2,
}

/// Number of outcomes.
pub const OUTCOMES: u32 = 3;

impl Outcome {
    /// All outcomes, in the order of their portals.
    pub const ALL: [Self; OUTCOMES as usize] = [Self::Done, Self::Reset, Self::Failed];

    /// The outcome with that number, if there is one.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| *outcome as u64 == number)
    }
}
