//! Which exits an instruction can be the reason of.
//!
//! This is written after the manuals and for nothing else, so that neither the kernel nor the monitor's decoder is its own
//! witness.

use abi::vcpu::Exit;

/// What an instruction may exit with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reasons {
    /// Bit n: exit number n.
    pub exits: u32,
    /// Of an access to a port: bytes, whether it is IN or INS, whether it is of a string, whether it repeats.
    pub port: Option<(u8, bool, bool, bool)>,
    /// The port, if the instruction names it.
    pub immediate: Option<u8>,
    /// Of an access to a control or debug register: its number and [`abi::vcpu::ControlAccess::kind`].
    pub register: Option<(u8, u8)>,
}

impl Reasons {
    const NONE: Self = Self { exits: 0, port: None, immediate: None, register: None };

    const fn of(exit: Exit) -> Self {
        Self { exits: 1 << exit as u32, ..Self::NONE }
    }

    /// Whether it can be the reason of `exit`.
    #[must_use]
    pub const fn include(&self, exit: Exit) -> bool {
        self.exits >> exit as u32 & 1 != 0
    }
}

/// Exits that only an instruction can be the reason of, and only the one at RIP.
pub const DUE_TO_INSTRUCTIONS: u32 = {
    let mut set = 0;
    let mut rest: &[Exit] = &[
        Exit::Hlt,
        Exit::Cpuid,
        Exit::Port,
        Exit::MsrRead,
        Exit::MsrWrite,
        Exit::Control,
        Exit::Debug,
        Exit::DescriptorTable,
        Exit::Hypercall,
        Exit::Virtualization,
        Exit::CacheInvalidate,
        Exit::Xsetbv,
        Exit::Rdtsc,
        Exit::Rdpmc,
        Exit::Invlpg,
        Exit::Pause,
        Exit::Mwait,
    ];
    while let [exit, tail @ ..] = rest {
        set |= 1 << *exit as u32;
        rest = tail;
    }
    set
};

/// Prefixes in front of an opcode.
#[derive(Default)]
struct Prefixes {
    operand: bool,
    lock: bool,
    rep: bool,
    repeats: bool,
    rex: u8,
    /// A REX prefix in front of another prefix: processors ignore it, QEMU does not.
    ignored: bool,
}

/// The reasons in the instruction that starts with `bytes`, as code of 16, 32 or 64 bits.
#[must_use]
pub fn decode(bytes: &[u8], bits: u32) -> Reasons {
    let mut prefixes = Prefixes::default();
    let mut rest = bytes;
    while let [byte, tail @ ..] = rest {
        let rex = core::mem::take(&mut prefixes.rex);
        match byte {
            0x66 => prefixes.operand = true,
            0xf0 => prefixes.lock = true,
            0xf2 | 0xf3 => {
                prefixes.repeats = true;
                prefixes.rep = *byte == 0xf3;
            }
            0x67 | 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 => {}
            0x40..=0x4f if bits == 64 => prefixes.rex = *byte,
            _ => {
                prefixes.rex = rex;
                break;
            }
        }
        prefixes.ignored |= rex != 0;
        rest = tail;
    }
    match rest {
        [0x0f, two @ ..] => two_bytes(two, &prefixes),
        [opcode @ (0xe4..=0xe7 | 0xec..=0xef | 0x6c..=0x6f), operand @ ..] => {
            let size = match (opcode & 1, prefixes.operand != (bits == 16)) {
                (0, _) => 1,
                (_, true) if prefixes.rex & 8 == 0 => 2,
                _ => 4,
            };
            let string = *opcode < 0x70;
            let input = opcode & 2 == 0;
            let repeats = string && prefixes.repeats;
            let immediate = if *opcode & 0xf8 == 0xe0 { operand.first().copied() } else { None };
            let port = (!prefixes.ignored).then_some((size, input, string, repeats));
            Reasons { port, immediate, ..Reasons::of(Exit::Port) }
        }
        [0xf4, ..] => Reasons::of(Exit::Hlt),
        [0x90, ..] if prefixes.rep && prefixes.rex & 1 == 0 => Reasons::of(Exit::Pause),
        _ => Reasons::NONE,
    }
}

fn two_bytes(bytes: &[u8], prefixes: &Prefixes) -> Reasons {
    let field = |modrm: u8| modrm >> 3 & 7;
    match *bytes {
        [0x00, modrm, ..] if field(modrm) < 4 => Reasons::of(Exit::DescriptorTable),
        [0x01, modrm, ..] => group_7(modrm),
        [0x06, ..] => Reasons { register: Some((0, 2)), ..Reasons::of(Exit::Control) },
        [0x08 | 0x09, ..] => Reasons::of(Exit::CacheInvalidate),
        [opcode @ 0x20..=0x23, modrm, ..] => {
            let exit = if opcode & 1 == 0 { Exit::Control } else { Exit::Debug };
            let lock = prefixes.lock && exit == Exit::Control && field(modrm) == 0;
            let extended = prefixes.rex & 4 != 0 || lock;
            let number = field(modrm) | u8::from(extended) << 3;
            let register = (!prefixes.ignored).then_some((number, u8::from(opcode & 2 == 0)));
            Reasons { register, ..Reasons::of(exit) }
        }
        [0x30, ..] => Reasons::of(Exit::MsrWrite),
        [0x31, ..] => Reasons::of(Exit::Rdtsc),
        [0x32, ..] => Reasons::of(Exit::MsrRead),
        [0x33, ..] => Reasons::of(Exit::Rdpmc),
        // GETSEC.
        [0x37, ..] => Reasons::of(Exit::Other),
        // INVEPT and INVVPID; INVPCID.
        [0x38, 0x80 | 0x81, ..] | [0x78 | 0x79, ..] => Reasons::of(Exit::Virtualization),
        [0x38, 0x82, ..] => Reasons::of(Exit::Invlpg),
        [0xa2, ..] => Reasons::of(Exit::Cpuid),
        [0xc7, modrm, ..] if field(modrm) >= 6 && modrm < 0xc0 => Reasons::of(Exit::Virtualization),
        _ => Reasons::NONE,
    }
}

/// 0F 01: a memory operand, or instructions of their own.
fn group_7(modrm: u8) -> Reasons {
    match (modrm >= 0xc0, modrm >> 3 & 7) {
        (_, 4) => Reasons { register: Some((0, 1)), ..Reasons::of(Exit::Control) },
        (_, 6) => Reasons { register: Some((0, 3)), ..Reasons::of(Exit::Control) },
        (false, 7) => Reasons::of(Exit::Invlpg),
        (false, 0..=3) => Reasons::of(Exit::DescriptorTable),
        _ => match modrm {
            // VMCALL, VMMCALL.
            0xc1 | 0xd9 => Reasons::of(Exit::Hypercall),
            // VMLAUNCH, VMRESUME, VMXOFF, VMFUNC; VMRUN, VMLOAD, VMSAVE, STGI, CLGI, SKINIT, INVLPGA; RDPRU, INVLPGB, TLBSYNC.
            0xc2..=0xc4 | 0xd4 | 0xd8..=0xdf | 0xfd..=0xff => Reasons::of(Exit::Virtualization),
            0xc8 | 0xc9 | 0xfa | 0xfb => Reasons::of(Exit::Mwait),
            0xd1 => Reasons::of(Exit::Xsetbv),
            0xf9 => Reasons::of(Exit::Rdtsc),
            _ => Reasons::NONE,
        },
    }
}
