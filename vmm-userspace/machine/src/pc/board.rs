//! The devices.

use devices::{
    acpi_pm::AcpiPm,
    debug_port::DebugPort,
    i8042::I8042,
    ioapic::IoApic,
    lapic::{self, LocalApic},
    pci::{ConfigPorts, ConfigSpace},
    pic::Pic,
    pit::Pit,
    port61::Port61,
    port92::Port92,
    reset_control::ResetControl,
    rtc::Rtc,
    time::{Time, earliest},
    uart::Uart,
};

use super::{Clock, Settings};
use crate::memory::HIGH;

/// Inputs 16 to 23 of the I/O APIC are PCI interrupts: active low, pulled up.
const IDLE_LINES: u32 = 0xff_0000;

/// What the guest asked for that ends the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Reset,
    PowerOff,
}

/// All devices, and the local APIC as the place where their interrupts end.
#[derive(Clone, Debug)]
pub(super) struct Board {
    pub lapic: LocalApic,
    pub uart: Uart,
    pub debug: DebugPort,
    pub pic: Pic,
    pub ioapic: IoApic,
    pub pit: Pit,
    pub port61: Port61,
    pub rtc: Rtc,
    pub pm: AcpiPm,
    pub pci: ConfigPorts,
    pub functions: [ConfigSpace; 1],
    pub i8042: I8042,
    pub port92: Port92,
    pub reset: ResetControl,
    /// Levels of the ISA interrupt lines, as the controllers have them.
    pub lines: u16,
    /// Level of the 8259s' output, as the local APIC has it.
    pub intr: bool,
    /// A non-maskable interrupt waits.
    pub nmi: bool,
    pub request: Option<Request>,
    /// Something happened that may interrupt the processor, move the deadline or end the machine.
    pub attention: bool,
    /// A device may have another next event than before.
    timers_changed: bool,
    /// When the first device other than the local APIC has its next event, in host ticks.
    next_event: u64,
}

impl Board {
    pub fn new(lapic: LocalApic, settings: &Settings) -> Self {
        let high = settings.memory.high_end() - HIGH;
        let mut board = Self {
            lapic,
            uart: Uart::new(),
            debug: DebugPort::new(),
            pic: Pic::new(),
            ioapic: IoApic::new(IDLE_LINES),
            pit: Pit::new(),
            port61: Port61::new(),
            rtc: Rtc::new(settings.unix_seconds).with_memory_size(settings.memory.low_end(), high),
            pm: AcpiPm::new(),
            pci: ConfigPorts::new(),
            functions: [ConfigSpace::host_bridge_440fx()],
            i8042: I8042::new(),
            port92: Port92::new(),
            reset: ResetControl::new(),
            lines: 0,
            intr: false,
            nmi: false,
            request: None,
            attention: true,
            timers_changed: true,
            next_event: u64::MAX,
        };
        board.initialize();
        board
    }

    /// What firmware leaves: channel 0 in mode 3 with the longest period, and the local APIC in virtual-wire mode
    /// (MultiProcessor Specification 1.4, 3.6.2.2): the 8259s reach the processor through LINT0, NMIs through LINT1.
    fn initialize(&mut self) {
        const CHANNEL_0_MODE_3: u8 = 0x36;
        self.pit.write(3, CHANNEL_0_MODE_3, Time::ZERO);
        self.pit.write(0, 0, Time::ZERO);
        self.pit.write(0, 0, Time::ZERO);
        // The edge of that came before anybody could be interrupted.
        self.sync_pit();
        const SVR: (u16, u32) = (0xf0, 0x1ff);
        const LVT_LINT0: (u16, u32) = (0x350, 0x700);
        const LVT_LINT1: (u16, u32) = (0x360, 0x400);
        let start = lapic::Clock { now: Time::ZERO, tsc: 0 };
        for (register, value) in [SVR, LVT_LINT0, LVT_LINT1] {
            let effects = self.lapic.write(register, value, start);
            self.apply(effects);
        }
    }

    /// A device may have another next event than before.
    pub fn touch_timers(&mut self) {
        self.timers_changed = true;
        self.attention = true;
    }

    /// Brings all timers up to the clock and their lines to the controllers.
    pub fn advance(&mut self, clock: &impl Clock, guest: lapic::Clock) {
        let now = guest.now;
        self.pit.advance(now);
        self.rtc.advance(now);
        self.uart.advance(now);
        self.pm.advance(now);
        self.lapic.advance(guest);
        self.sync_pit();
        self.sync_rtc();
        self.sync_uart();
        self.sync_sci();
        self.next_event = self.device_event(clock);
        self.timers_changed = false;
        self.attention = true;
    }

    /// When something happens next, in host ticks.
    pub fn next_event(&mut self, clock: &impl Clock, tsc_offset: u64) -> u64 {
        self.attention = false;
        if self.timers_changed {
            self.timers_changed = false;
            self.next_event = self.device_event(clock);
        }
        let local = self.lapic.next_event();
        let time = local.time.map_or(u64::MAX, |time| clock.tsc_at(time));
        // A deadline of the guest can be further away than the host's counter reaches.
        let tsc = local.tsc.map_or(u64::MAX, |tsc| {
            let now = clock.tsc();
            now.saturating_add(tsc.saturating_sub(now.wrapping_add(tsc_offset)))
        });
        self.next_event.min(time).min(tsc)
    }

    fn device_event(&self, clock: &impl Clock) -> u64 {
        let timers = earliest(self.pit_event(), self.rtc.next_event());
        let others = earliest(self.uart.next_event(), self.pm.next_event());
        earliest(timers, others).map_or(u64::MAX, |time| clock.tsc_at(time))
    }
}
