//! A source of interrupt messages: QEMU's ICH9 AHCI controller, which its `q35` machine always has. All of it can be reached through
//! ports, and it sends its message each time that an interrupt which it has to tell of is enabled.

use alloc::string::String;

use runtime::port::{inl, outl};

use crate::check;

/// Configuration address and data (PCI 3.0 3.2.2.3.2).
const CONFIG: (u16, u16) = (0xcf8, 0xcfc);
/// Bus 0, device 31, function 2.
const FUNCTION: u32 = 1 << 31 | 31 << 11 | 2 << 8;
/// ICH9 in AHCI mode.
const IDENTITY: u32 = 0x2922_8086;
/// Command register: ports, memory, bus mastering.
const COMMAND: (u8, u32) = (0x04, 7);
/// Where the registers' index and data are: base address 4.
const BASE: u8 = 0x20;
/// The first capability.
const CAPABILITIES: u8 = 0x34;
/// Of message-signalled interrupts (PCI 3.0 6.8.1), and what it has in bits of its first word: it is on; addresses have 64 bits.
const MSI: (u32, u32, u32) = (0x05, 1 << 16, 1 << 23);

/// Global host control: AHCI is on, interrupts are on (AHCI 1.3.1 3.1.2).
const GHC: (u32, u32) = (0x04, 1 << 31 | 1 << 1);
/// Of the first port (AHCI 1.3.1 3.3): where it writes what it received, what interrupts, its command, and control of its link.
const PORT_RECEIVED: [u32; 2] = [0x108, 0x10c];
const PORT_INTERRUPTS: u32 = 0x114;
const PORT_COMMAND: u32 = 0x118;
const PORT_LINK: u32 = 0x12c;
/// Command: it may write there.
const RECEIVE: u32 = 1 << 4;
/// Where nothing is.
const NOWHERE: u32 = 0xfed7_0000;

/// The controller, ready to send.
pub struct Ahci {
    base: u16,
    msi: u8,
}

fn select(register: u8) {
    outl(CONFIG.0, FUNCTION | u32::from(register));
}

fn config(register: u8) -> u32 {
    select(register);
    inl(CONFIG.1)
}

fn set_config(register: u8, value: u32) {
    select(register);
    outl(CONFIG.1, value);
}

/// The capability with that identifier.
fn capability(id: u32) -> Option<u8> {
    let mut at = config(CAPABILITIES) as u8;
    // As many as fit.
    for _ in 0..48 {
        let head = config(at & 0xfc);
        match head as u8 {
            _ if at == 0 => return None,
            found if u32::from(found) == id => return Some(at),
            _ => at = (head >> 8) as u8,
        }
    }
    None
}

impl Ahci {
    /// Finds it, and gives its first port an interrupt to tell of: the end of a reset of its link.
    pub fn new() -> Result<Self, String> {
        let identity = config(0);
        check!(identity == IDENTITY, "no ICH9 AHCI controller, but {identity:#x}");
        set_config(COMMAND.0, COMMAND.1);
        let msi = capability(MSI.0).ok_or("it sends no messages")?;
        let this = Self { base: config(BASE) as u16 & 0xfffc, msi };
        this.set(GHC.0, GHC.1);
        PORT_RECEIVED.into_iter().zip([NOWHERE, 0]).for_each(|(at, value)| this.set(at, value));
        this.set(PORT_COMMAND, this.get(PORT_COMMAND) | RECEIVE);
        this.set(PORT_LINK, 1);
        this.set(PORT_LINK, 0);
        Ok(this)
    }

    /// What its next messages say, to the local APIC with that identifier: a vector, or what else there is (SDM 3A 11.11).
    pub fn aim(&self, apic: u32, data: u32) {
        set_config(self.msi + 4, 0xfee0_0000 | apic << 12);
        let wide = config(self.msi) & MSI.2 != 0;
        if wide {
            set_config(self.msi + 8, 0);
        }
        set_config(self.msi + if wide { 12 } else { 8 }, data);
        set_config(self.msi, config(self.msi) | MSI.1);
    }

    /// Sends one.
    pub fn send(&self) {
        self.set(PORT_INTERRUPTS, u32::MAX);
    }

    fn get(&self, register: u32) -> u32 {
        outl(self.base + 0x10, register);
        inl(self.base + 0x14)
    }

    fn set(&self, register: u32, value: u32) {
        outl(self.base + 0x10, register);
        outl(self.base + 0x14, value);
    }
}
