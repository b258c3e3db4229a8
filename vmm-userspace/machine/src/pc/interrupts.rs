//! Handing interrupts to the guest.
//!
//! Whether the guest can take an interrupt is not known cheaply, so the processor is asked to say when: an interrupt window. The
//! vector is acknowledged only when the window opens, so that the highest one at that time is taken.
//!
//! | pending | window asked for | then |
//! |---|---|---|
//! | no | no | nothing |
//! | yes | no | ask, or inject at once where the guest is known to be able to take it |
//! | yes | yes | wait |
//! | no | yes | wait: the window opens once for nothing, and is withdrawn then |

use abi::vcpu::{Event, Groups, VcpuState, Window};

use super::Pc;

/// Which windows the virtual CPU has been asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Injection {
    window: Window,
}

impl Injection {
    /// Whether this window has been asked for.
    pub const fn asked(self, window: Window) -> bool {
        self.window.0 & window.0 != 0
    }
}

impl Pc {
    /// Asks for the windows that are missing. Returns the groups to write back.
    #[inline]
    pub(super) fn request_windows(&mut self, state: &mut VcpuState) -> Groups {
        let interrupt = !self.injection.asked(Window::INTERRUPT) && self.board.interrupt_pending();
        if !interrupt && !self.board.nmi {
            return Groups::NONE;
        }
        let mut window = self.injection.window;
        if interrupt {
            window.0 |= Window::INTERRUPT.0;
        }
        if self.board.nmi {
            window.0 |= Window::NMI.0;
        }
        self.set_window(state, window)
    }

    /// The guest can take an interrupt now: injects one, if there is one. The window stays exactly if there are more.
    pub(super) fn inject_interrupt(&mut self, state: &mut VcpuState) -> Groups {
        let mut groups = Groups::NONE;
        if self.board.interrupt_pending() {
            let vector = self.board.acknowledge();
            state.event = Event::interrupt(vector);
            groups = Groups::EVENT;
        }
        let mut window = self.injection.window;
        window.0 &= !Window::INTERRUPT.0;
        if self.board.interrupt_pending() {
            window.0 |= Window::INTERRUPT.0;
        }
        groups | self.set_window(state, window)
    }

    /// The guest can take an NMI now.
    pub(super) fn inject_nmi(&mut self, state: &mut VcpuState) -> Groups {
        let mut window = self.injection.window;
        window.0 &= !Window::NMI.0;
        let mut groups = self.set_window(state, window);
        if core::mem::take(&mut self.board.nmi) {
            state.event = Event::nmi();
            groups |= Groups::EVENT;
        }
        groups
    }

    fn set_window(&mut self, state: &mut VcpuState, window: Window) -> Groups {
        if window == self.injection.window {
            return Groups::NONE;
        }
        self.injection.window = window;
        state.window = window;
        Groups::WINDOW
    }
}
