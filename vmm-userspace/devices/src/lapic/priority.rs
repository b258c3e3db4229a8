//! Priorities: which interrupt is next, and which CPU is the least busy (SDM 3A 11.8.3, 11.6.2.4).

use super::LocalApic;

/// Priority class of a vector or of a priority register: its bits 7:4.
const fn class(value: u8) -> u8 {
    value >> 4
}

impl LocalApic {
    /// Processor priority: the task priority or the class in service, whichever is higher
    /// (SDM 3A 11.8.3.1). For equal classes the sub-class is that of the task priority, as in
    /// processor-priority virtualization (SDM 3C 30.1.3).
    #[must_use]
    pub fn processor_priority(&self) -> u8 {
        let in_service = self.isr.highest().unwrap_or(0);
        if class(self.tpr) >= class(in_service) { self.tpr } else { in_service & 0xf0 }
    }

    /// Arbitration priority, by which the least busy CPU is found (SDM 3A 11.6.2.4): as the
    /// processor priority, but requested interrupts count as well.
    #[must_use]
    pub fn arbitration_priority(&self) -> u8 {
        let in_service = class(self.isr.highest().unwrap_or(0));
        let requested = class(self.irr.highest().unwrap_or(0));
        let task = class(self.tpr);
        if task >= requested && task > in_service {
            self.tpr
        } else {
            task.max(requested).max(in_service) << 4
        }
    }

    /// The vector that the CPU would get now: the highest one requested, if its class is above the
    /// processor priority (SDM 3A 11.8.3.1).
    #[must_use]
    pub fn pending(&self) -> Option<u8> {
        self.irr.highest().filter(|&vector| class(vector) > class(self.processor_priority()))
    }

    /// The CPU's acknowledge: gives the vector and puts it in service. If there is none to give any
    /// more, gives the spurious vector, which is not put in service (SDM 3A 11.9).
    pub fn accept(&mut self) -> u8 {
        let Some(vector) = self.pending() else { return self.svr as u8 };
        self.irr.remove(vector);
        self.isr.insert(vector);
        vector
    }

    /// What a read of CR8 gives: the task-priority class (SDM 3A 11.8.6).
    #[must_use]
    pub const fn cr8(&self) -> u8 {
        class(self.tpr)
    }

    /// A write of CR8; bits above the class cause #GP before they come here, and are ignored.
    pub fn set_cr8(&mut self, value: u8) {
        self.tpr = value << 4;
    }
}

/// Chooses the destination of a lowest-priority message among candidates: the place of the one that
/// runs at the lowest arbitration priority. Among equals it is the first from place `first` on, so
/// that an owner that changes `first` spreads the load. APICs that are disabled by software do not
/// take part.
#[must_use]
pub fn arbitrate<'a>(
    candidates: impl IntoIterator<Item = (usize, &'a LocalApic)>,
    first: usize,
) -> Option<usize> {
    candidates
        .into_iter()
        .filter(|(_, apic)| apic.is_enabled())
        .min_by_key(|(place, apic)| (apic.arbitration_priority(), place.wrapping_sub(first)))
        .map(|(place, _)| place)
}
