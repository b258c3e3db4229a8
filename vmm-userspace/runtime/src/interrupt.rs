//! Interrupts: semaphores that a device ups.

use abi::cap::{Selector, root};
use abi::hypercall::{IntMode, Status};

use crate::hypercall;
use crate::sm::Sm;

/// The semaphore behind an interrupt line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt(Sm);

impl Interrupt {
    /// The interrupt at `selector`.
    #[must_use]
    pub const fn at(selector: Selector) -> Self {
        Self(Sm::at(selector))
    }

    /// Global system interrupt `gsi`, in the root task.
    #[must_use]
    pub const fn global(gsi: u32) -> Self {
        Self::at(root::INTERRUPTS + gsi)
    }

    /// The semaphore.
    #[must_use]
    pub const fn semaphore(self) -> Sm {
        self.0
    }

    /// Routes the line to `cpu` and its semaphore.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::AssignInt`].
    pub fn assign(self, mode: IntMode, cpu: u16) -> Result<(), Status> {
        hypercall::assign_int(self.0.selector(), mode, cpu)
    }
}
