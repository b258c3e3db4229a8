//! How often the serial port may interrupt.
//!
//! A sender that does not keep to the line's speed, such as an emulator with a text to paste, can make it interrupt again as soon as
//! it has been served, and whoever runs at a lower priority would get nowhere. So what comes in a stream is
//! polled: after something was received, the next interrupt is let in only when nothing has come for a while.

/// Says whether the port shall interrupt when it has received something.
#[derive(Clone, Copy, Debug)]
pub struct Moderation {
    /// From the end of one look at the port to the next, in ticks.
    pause: u64,
    /// When to look next; `None` while the port interrupts.
    next: Option<u64>,
}

impl Moderation {
    /// The port interrupts. `pause`: ticks between two looks, shorter than the line takes to fill the FIFO.
    #[must_use]
    pub const fn new(pause: u64) -> Self {
        Self { pause, next: None }
    }

    /// The FIFO was emptied, and at `now`, in ticks, whatever was `received` has been dealt with.
    pub const fn looked(&mut self, received: bool, now: u64) {
        match self.next {
            _ if received => self.next = Some(now.saturating_add(self.pause)),
            Some(next) if now >= next => self.next = None,
            _ => {}
        }
    }

    /// When to look at the port even if it does not interrupt.
    #[must_use]
    pub const fn deadline(&self) -> Option<u64> {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_interrupts_and_a_stream_is_polled() {
        let mut port = Moderation::new(10);
        assert_eq!(port.deadline(), None);
        port.looked(true, 100);
        assert_eq!(port.deadline(), Some(110));
        port.looked(true, 112);
        assert_eq!(port.deadline(), Some(122));
        // Woken for something else.
        port.looked(false, 115);
        assert_eq!(port.deadline(), Some(122));
        port.looked(false, 122);
        assert_eq!(port.deadline(), None);
    }

    /// However fast bytes come, and however long it takes to deal with them: others have the time in between.
    #[test]
    fn a_stream_leaves_time_to_others() {
        let mut port = Moderation::new(10);
        let (mut now, mut worked) = (0, 0);
        for work in [1, 50, 3, 200, 7] {
            now += work;
            worked += work;
            port.looked(true, now);
            now = now.max(port.deadline().unwrap_or(now));
        }
        assert_eq!(now - worked, 50);
    }
}
