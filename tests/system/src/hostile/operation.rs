//! Hostile operations, made at random: a few instructions in a slot of guest memory, one of which is the operation proper.

use super::mode::{HANDLER_CODE, Mode, READ_ONLY, STUBS, TABLES};
use super::random::Random;

/// Where the first slot is.
pub const CODE: u64 = 0x1000;
/// Bytes of a slot.
pub const SLOT: u64 = 32;
/// Slots, and so operations, in a burst.
pub const SLOTS: usize = 96;
/// Operands in memory.
pub const OPERANDS: u64 = 0x9000;
/// First guest-physical address where nothing is: an access is one to a device.
pub const DEVICES: u64 = 0x10_0000;
/// How much of that is mapped.
const DEVICES_SIZE: u32 = 0x70_0000;

/// What an operation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// IN, OUT.
    Port,
    /// INS, OUTS.
    PortString,
    /// Reads, writes, read-modify-writes of device memory and of read-only memory.
    Device,
    /// RDMSR, WRMSR.
    Msr,
    /// MOV to and from control registers, CLTS, LMSW, SMSW.
    Control,
    /// MOV to and from debug registers.
    Debug,
    /// Loads and stores of GDTR, IDTR, LDTR, TR; VERR, VERW.
    Table,
    /// INVLPG, INVPCID, INVD, WBINVD.
    Cache,
    /// CPUID, RDTSC, RDTSCP, RDPMC, XSETBV, XGETBV, PAUSE, HLT, MONITOR, MWAIT, RDPRU.
    Processor,
    /// What only VT-x has, and GETSEC.
    Vmx,
    /// What only AMD-V has.
    Svm,
    /// INT n, INT3, INTO, INT1, UD2.
    Interrupt,
    /// SYSENTER, SYSCALL and their returns, IRET, RSM.
    SystemCall,
    /// Far jumps and calls.
    Far,
    /// Loads of segment registers, flags, SWAPGS.
    Segment,
    /// Random bytes.
    Bytes,
    /// A write to code that comes next.
    SelfModifying,
    /// A write to page tables, and a flush or none.
    PageTable,
    /// A loop without an end.
    Endless,
}

/// Number of classes.
pub const CLASSES: usize = Class::Endless as usize + 1;

/// How often each class comes, of [`TOTAL`].
const WEIGHTS: [(Class, u32); CLASSES] = [
    (Class::Port, 60),
    (Class::PortString, 50),
    (Class::Device, 100),
    (Class::Msr, 80),
    (Class::Control, 90),
    (Class::Debug, 40),
    (Class::Table, 60),
    (Class::Cache, 40),
    (Class::Processor, 100),
    (Class::Vmx, 60),
    (Class::Svm, 50),
    (Class::Interrupt, 50),
    (Class::SystemCall, 30),
    (Class::Far, 30),
    (Class::Segment, 40),
    (Class::Bytes, 70),
    (Class::SelfModifying, 25),
    (Class::PageTable, 24),
    (Class::Endless, 1),
];
const TOTAL: u32 = 1000;

/// An operation that was put into a slot.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// The whole slot.
    pub bytes: [u8; SLOT as usize],
    /// What it is about.
    pub class: Class,
    /// Where in the slot the instruction proper starts.
    pub at: u8,
    /// Its bytes; 0 if a prefix may change what they are.
    pub len: u8,
}

impl Operation {
    /// Before the first burst.
    pub const NONE: Self = Self { bytes: [0; SLOT as usize], class: Class::Bytes, at: 0, len: 0 };
}

/// Writes instructions into a slot.
struct Writer<'a> {
    bytes: [u8; SLOT as usize],
    len: usize,
    /// Where the instruction proper starts.
    at: usize,
    /// Whether it is one instruction of the bytes that follow.
    sure: bool,
    mode: Mode,
    slot: usize,
    tcg: bool,
    random: &'a mut Random,
}

/// Makes the operation for slot number `slot`; `tcg`: for QEMU's processor.
pub fn operation(mode: Mode, slot: usize, tcg: bool, random: &mut Random) -> Operation {
    let class = pick(random);
    let bytes = [0x90; SLOT as usize];
    let mut writer = Writer { bytes, len: 0, at: 0, sure: true, mode, slot, tcg, random };
    writer.write(class);
    let Writer { mut bytes, len, at, sure, .. } = writer;
    // JMP to the next slot.
    if let Some([opcode, distance]) = bytes.get_mut(len..len + 2) {
        *opcode = 0xeb;
        *distance = (SLOT as usize - len - 2) as u8;
    }
    Operation { bytes, class, at: at as u8, len: if sure { (len - at) as u8 } else { 0 } }
}

/// A byte that no emulator has trouble with; `tcg`: for QEMU's processor.
///
/// In Bochs it is not CLI, POPF or IRET, but STI: Bochs holds the host's interrupts back from a guest that is entered with interrupts
/// off, also after an exit that the kernel handles itself, so nothing could call such a guest out of a loop. That the monitor enters
/// it with interrupts on is therefore not enough: nothing may switch them off but what leads to a HLT (see [`super::mode`]).
///
/// In QEMU it is not LOCK: QEMU (7.2) ends itself at [`BIT_TESTS`] with LOCK and a register, where processors raise #UD.
pub const fn harmless(byte: u8, tcg: bool) -> u8 {
    match byte {
        0xfa | 0x9d | 0xcf if !tcg => 0xfb,
        0xf0 if tcg => 0x90,
        _ => byte,
    }
}

/// BTS, BTR, BTC, and the group that has all three.
const BIT_TESTS: [u8; 4] = [0xab, 0xb3, 0xbb, 0xba];

fn pick(random: &mut Random) -> Class {
    let mut left = random.below(TOTAL);
    for (class, weight) in WEIGHTS {
        match left.checked_sub(weight) {
            Some(rest) => left = rest,
            None => return class,
        }
    }
    Class::Bytes
}

/// Number of SIDT in its group.
const SIDT: u8 = 1;
/// Number of LIDT in its group.
const LIDT: u8 = 3;
/// Number of SLDT in its group.
const SLDT: u8 = 0;
/// Number of LTR in its group.
const LTR: u8 = 3;

/// Registers that a monitor meets, or that decide something.
const MSRS: [u32; 40] = [
    0x0,
    0x10,
    0x17,
    0x1b,
    0x3a,
    0x48,
    0x49,
    0x79,
    0x8b,
    0x9b,
    0xc1,
    0xce,
    0xfe,
    0x10a,
    0x122,
    0x174,
    0x175,
    0x176,
    0x179,
    0x186,
    0x1a0,
    0x1d9,
    0x200,
    0x277,
    0x2ff,
    0x38f,
    0x480,
    0x6e0,
    0x80b,
    0xda0,
    0xc000_0080,
    0xc000_0081,
    0xc000_0082,
    0xc000_0084,
    0xc000_0100,
    0xc000_0101,
    0xc000_0102,
    0xc000_0103,
    0xc001_0114,
    0xc001_0117,
];

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        if let Some(to) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            to.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }

    /// The instruction proper starts here, sometimes with a prefix that has no business there.
    fn proper(&mut self) {
        self.at = self.len;
        if self.random.once_in(16) {
            let prefix =
                self.random.one_of(&[0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x65, 0x48, 0x4f]);
            // Sizes of operands and addresses change the length; REX is an instruction outside of 64-bit mode.
            self.sure = !matches!(prefix, 0x66 | 0x67 | 0x48 | 0x4f);
            self.put(&[prefix]);
        }
    }

    /// The instruction proper, of these bytes.
    fn just(&mut self, bytes: &[u8]) {
        self.proper();
        self.put(bytes);
    }

    /// One of these.
    fn any(&mut self, choices: &[&[u8]]) {
        let bytes = self.random.one_of(choices);
        self.just(bytes);
    }

    fn is_16_bit(&self) -> bool {
        self.mode == Mode::Real
    }

    /// Operand size of 16 or 32 bits.
    fn operand_size(&mut self, two_bytes: bool) {
        if two_bytes != self.is_16_bit() {
            self.put(&[0x66]);
        }
    }

    /// MOV r32, imm32.
    fn load(&mut self, register: u8, value: u32) {
        self.operand_size(false);
        self.put(&[0xb8 + register]);
        self.put(&value.to_le_bytes());
    }

    /// A memory operand at an address, with `register` as the other: ModRM and what follows. Real mode gets 16 bits of the address.
    fn memory(&mut self, register: u8, address: u64) {
        let field = register << 3 & 0x38;
        match self.mode {
            Mode::Real => {
                self.put(&[field | 6]);
                self.put(&(address as u16).to_le_bytes());
            }
            Mode::Long => {
                self.put(&[field | 4, 0x25]);
                self.put(&(address as u32).to_le_bytes());
            }
            _ => {
                self.put(&[field | 5]);
                self.put(&(address as u32).to_le_bytes());
            }
        }
    }

    /// A register operand with another.
    fn registers(&mut self, field: u8, other: u8) {
        self.put(&[0xc0 | field << 3 & 0x38 | other & 7]);
    }

    /// A place among the operands.
    fn operand(&mut self) -> u64 {
        OPERANDS + u64::from(self.random.below(0x100))
    }

    /// Any of `n` small numbers.
    fn small(&mut self, n: u32) -> u8 {
        self.random.below(n) as u8
    }

    fn write(&mut self, class: Class) {
        match class {
            Class::Port => self.port(),
            Class::PortString => self.port_string(),
            Class::Device => self.device(),
            Class::Msr => self.msr(),
            Class::Control => self.control(),
            Class::Debug => self.debug(),
            Class::Table => self.table(),
            Class::Cache => self.cache(),
            Class::Processor => self.processor(),
            Class::Vmx => self.vmx(),
            Class::Svm => {
                let last = self.small(8);
                self.just(&[0x0f, 0x01, 0xd8 + last]);
            }
            Class::Interrupt => self.interrupt(),
            // IRET in real mode takes whatever lies on the stack for flags: see `harmless`.
            Class::SystemCall if self.is_16_bit() && !self.tcg => {
                self.any(&[&[0x0f, 0x34], &[0x0f, 0x35], &[0x0f, 0x05], &[0x0f, 0x07], &[0xcb]]);
            }
            Class::SystemCall => self.any(&[
                &[0x0f, 0x34],
                &[0x0f, 0x35],
                &[0x0f, 0x05],
                &[0x0f, 0x07],
                &[0x48, 0x0f, 0x07],
                &[0xcf],
                &[0x48, 0xcf],
                &[0xcb],
                &[0x0f, 0xaa],
            ]),
            Class::Far => self.far(),
            Class::Segment => self.segment(),
            Class::Bytes => {
                let bytes = self.random.next().to_le_bytes();
                let more = self.random.next().to_le_bytes();
                let (some, many) = (self.small(8) as usize + 1, self.random.once_in(3));
                self.at = self.len;
                self.sure = false;
                let tcg = self.tcg;
                let [bytes, more] = [bytes, more].map(|some| some.map(|byte| harmless(byte, tcg)));
                self.put(bytes.get(..some).unwrap_or(&bytes));
                if many {
                    self.put(&more);
                }
            }
            Class::SelfModifying => self.modify_code(),
            Class::PageTable => self.modify_tables(),
            Class::Endless => {
                self.put(&[0xfb]);
                self.at = self.len;
                self.put(&[0xeb, 0xfe]);
            }
        }
    }

    fn port(&mut self) {
        let (width, input) = (self.small(3), self.small(2));
        let opcode = 0xe4 | u8::from(width > 0) | (1 - input) << 1;
        if self.random.once_in(3) {
            self.proper();
            if width > 0 {
                self.operand_size(width == 1);
            }
            let port = self.small(256);
            self.put(&[opcode, port]);
        } else {
            let port = self.random.next() as u32;
            self.load(2, port);
            self.proper();
            if width > 0 {
                self.operand_size(width == 1);
            }
            self.put(&[opcode | 8]);
        }
    }

    fn port_string(&mut self) {
        let (width, output) = (self.small(3), self.small(2));
        let (address, count) = (self.operand() as u32, self.random.below(20));
        self.load(6 + self.slot as u8 % 2, address);
        if self.random.once_in(2) {
            self.load(1, count);
        }
        self.proper();
        if self.random.once_in(2) {
            self.put(&[0xf3]);
        }
        if width > 0 {
            self.operand_size(width == 1);
        }
        self.put(&[0x6c | u8::from(width > 0) | output << 1]);
    }

    fn device(&mut self) {
        let address = if self.random.once_in(8) {
            self.random.one_of(&READ_ONLY) + u64::from(self.random.below(0xff8))
        } else {
            DEVICES + u64::from(self.random.below(DEVICES_SIZE))
        };
        self.proper();
        if self.is_16_bit() {
            // FS and GS begin where devices do.
            let segment = if address >= DEVICES { 0x64 + self.small(2) } else { 0x3e };
            self.put(&[segment]);
        }
        match self.small(4) {
            0 => self.put(&[0x66]),
            1 if self.mode == Mode::Long => {
                let prefix = 0x48 | self.small(8);
                self.put(&[prefix]);
            }
            _ => {}
        }
        let register = self.small(8);
        let opcode = self.random.one_of::<&[u8]>(&[
            &[0x88],
            &[0x89],
            &[0x8a],
            &[0x8b],
            &[0x00],
            &[0x01],
            &[0x03],
            &[0x09],
            &[0x20],
            &[0x31],
            &[0x39],
            &[0x85],
            &[0x86],
            &[0x87],
            &[0xfe],
            &[0xff],
            &[0xf7],
            &[0x8f],
            &[0xd1],
            &[0xc0],
            &[0x0f, 0xb6],
            &[0x0f, 0xbf],
            &[0x0f, 0xb1],
            &[0x0f, 0xc1],
            &[0x0f, 0xab],
            &[0x0f, 0xc7],
            &[0x0f, 0x11],
            &[0x0f, 0x6f],
            &[0xdd],
            &[0x0f, 0xae],
            &[0x62],
            &[0x63],
        ]);
        self.put(opcode);
        self.memory(register, address);
        if opcode == [0xc0] || (opcode == [0xf7] && register < 2) {
            let bytes = self.random.next().to_le_bytes();
            let count = if opcode == [0xc0] { 1 } else { 4 };
            self.put(bytes.get(..count).unwrap_or(&bytes));
        }
    }

    fn msr(&mut self) {
        let register = match self.small(4) {
            0 => self.random.next() as u32,
            1 => self.random.below(0x2000) | (0xc000_0000 * u32::from(self.small(2))),
            _ => self.random.one_of(&MSRS),
        };
        self.load(1, register);
        self.any(&[&[0x0f, 0x30], &[0x0f, 0x32]]);
    }

    fn control(&mut self) {
        let general = self.random.one_of(&[0, 1, 2, 3, 6, 7]);
        match self.small(8) {
            0 => self.just(&[0x0f, 0x06]),
            1 => {
                // LMSW and SMSW of a register.
                self.just(&[0x0f, 0x01]);
                let field = self.random.one_of(&[4, 6]);
                self.registers(field, general);
            }
            2 => {
                let (field, address) = (self.random.one_of(&[4, 6]), self.operand());
                self.just(&[0x0f, 0x01]);
                self.memory(field, address);
            }
            choice => {
                let register = if choice == 3 {
                    self.small(8)
                } else {
                    self.random.one_of(&[0, 0, 2, 3, 4, 4, 8])
                };
                let value = match register {
                    0 => 0x31 | 1 << self.small(32),
                    3 => self.random.one_of(&[0x1_0000, 0x1_4000, 0x9000]),
                    4 => 0x220 | 1 << self.small(32),
                    _ => self.random.interesting() as u32,
                };
                self.load(general, value);
                self.proper();
                if register == 8 {
                    // The fourth bit of the number is in a prefix, in 64-bit mode; LOCK stands for it on some processors elsewhere.
                    self.put(if self.mode == Mode::Long { &[0x44] } else { &[0xf0] });
                }
                let direction = self.random.one_of(&[0x20, 0x22, 0x22]);
                self.put(&[0x0f, direction]);
                self.registers(register, general);
            }
        }
    }

    fn debug(&mut self) {
        let (register, general) = (self.small(8), self.random.one_of(&[0, 1, 2, 3, 6, 7]));
        let value = match register {
            0..=3 => self.random.one_of(&[CODE + 0x300, OPERANDS, STUBS + 0xd0, DEVICES]) as u32,
            6 => self.random.interesting() as u32,
            _ => self.random.interesting() as u32 & 0xffff_0fff | 0x400,
        };
        self.load(general, value);
        self.proper();
        let direction = self.random.one_of(&[0x21, 0x23]);
        self.put(&[0x0f, direction]);
        self.registers(register, general);
    }

    fn table(&mut self) {
        if self.random.once_in(2) {
            let (mut field, address) = (self.small(4), self.operand());
            if !self.tcg && field == LIDT && self.mode != Mode::Long {
                // In real mode, or on the way to it, events lead anywhere then, with interrupts off: see `harmless`.
                field = SIDT;
            }
            self.just(&[0x0f, 0x01]);
            self.memory(field, address);
        } else {
            let (mut field, selector) = (self.small(6), self.selector());
            if self.tcg && field == LTR {
                // QEMU takes a null selector, and then ends itself at the first event that needs the task's stack.
                field = SLDT;
            }
            self.load(0, selector.into());
            self.just(&[0x0f, 0x00]);
            if self.random.once_in(2) {
                self.registers(field, 0);
            } else {
                let address = self.operand();
                self.memory(field, address);
            }
        }
    }

    fn selector(&mut self) -> u16 {
        match self.small(4) {
            0 => self.random.next() as u16,
            _ => u16::from(self.small(11)) << 3 | self.random.one_of(&[0, 0, 3]),
        }
    }

    fn cache(&mut self) {
        match self.small(4) {
            0 => self.just(&[0x0f, 0x08]),
            1 => self.just(&[0x0f, 0x09]),
            2 => {
                let address = self.random.next();
                self.just(&[0x0f, 0x01]);
                self.memory(7, address);
            }
            _ => {
                let address = self.operand();
                self.just(&[0x66, 0x0f, 0x38, 0x82]);
                self.memory(0, address);
            }
        }
    }

    fn processor(&mut self) {
        self.any(&[
            &[0x0f, 0xa2],
            &[0x0f, 0x31],
            &[0x0f, 0x01, 0xf9],
            &[0x0f, 0x33],
            &[0x0f, 0x01, 0xd1],
            &[0x0f, 0x01, 0xd0],
            &[0xf3, 0x90],
            &[0xf4],
            &[0x0f, 0x01, 0xc8],
            &[0x0f, 0x01, 0xc9],
            &[0x0f, 0x01, 0xfd],
        ]);
    }

    fn vmx(&mut self) {
        if self.random.once_in(2) {
            self.any(&[
                &[0x0f, 0x01, 0xc1],
                &[0x0f, 0x01, 0xc2],
                &[0x0f, 0x01, 0xc3],
                &[0x0f, 0x01, 0xc4],
                &[0x0f, 0x01, 0xd4],
                &[0x0f, 0x37],
            ]);
            return;
        }
        let address = self.operand();
        // VMPTRLD, VMPTRST, VMCLEAR, VMXON, VMREAD, VMWRITE, INVEPT, INVVPID.
        let (opcode, field) = self.random.one_of::<(&[u8], u8)>(&[
            (&[0x0f, 0xc7], 6),
            (&[0x0f, 0xc7], 7),
            (&[0x66, 0x0f, 0xc7], 6),
            (&[0xf3, 0x0f, 0xc7], 6),
            (&[0x0f, 0x78], 0),
            (&[0x0f, 0x79], 0),
            (&[0x66, 0x0f, 0x38, 0x80], 0),
            (&[0x66, 0x0f, 0x38, 0x81], 0),
        ]);
        self.just(opcode);
        self.memory(field, address);
    }

    fn interrupt(&mut self) {
        match self.small(6) {
            0 => self.just(&[0xcc]),
            1 => self.just(&[0xce]),
            2 => self.just(&[0xf1]),
            3 => self.just(&[0x0f, 0x0b]),
            _ => {
                let vector = self.random.next() as u8;
                self.just(&[0xcd, vector]);
            }
        }
    }

    fn far(&mut self) {
        let next = CODE + SLOT * (self.slot as u64 + 1);
        let offset = match self.small(3) {
            0 => self.random.one_of(&[STUBS + 0x30, STUBS + 0xd0, 0xffff_fff0]),
            _ => next,
        };
        let selector = match self.small(3) {
            0 => self.selector(),
            _ if self.is_16_bit() => 0,
            _ => HANDLER_CODE,
        };
        if self.mode == Mode::Long {
            // Only through memory: FF /5 JMP, FF /3 CALL.
            let (field, address) = (self.random.one_of(&[5, 3]), self.operand());
            self.just(&[0xff]);
            self.memory(field, address);
            return;
        }
        let opcode = self.random.one_of(&[0xea, 0x9a]);
        self.just(&[opcode]);
        let bytes = offset.to_le_bytes();
        let size = if self.is_16_bit() { 2 } else { 4 };
        self.put(bytes.get(..size).unwrap_or(&bytes));
        self.put(&selector.to_le_bytes());
    }

    fn segment(&mut self) {
        let selector = self.selector();
        match self.small(7) {
            0 => self.just(&[0x0f, 0x01, 0xf8]),
            1 => self.just(&[0xfb]),
            2 => {
                // PUSH what, POPF.
                let flags = self.random.next() as u16 | 0x200;
                self.load(0, flags.into());
                self.put(&[0x50]);
                self.just(&[0x9d]);
            }
            3 => {
                self.load(0, selector.into());
                self.put(&[0x50]);
                self.any(&[&[0x17], &[0x1f], &[0x07], &[0x0f, 0xa1], &[0x0f, 0xa9]]);
            }
            4 => {
                let (opcode, address) = (self.random.one_of(&[0xb2, 0xb4, 0xb5]), self.operand());
                self.just(&[0x0f, opcode]);
                self.memory(0, address);
            }
            _ => {
                let field = self.random.one_of(&[0, 1, 2, 3, 4, 5]);
                self.load(0, selector.into());
                self.just(&[0x8e]);
                self.registers(field, 0);
            }
        }
    }

    /// MOV byte [a later slot], imm8.
    fn modify_code(&mut self) {
        let slot = self.slot as u64 + u64::from(self.small(3));
        let address = CODE + SLOT * slot + u64::from(self.small(20));
        let value = match harmless(self.random.next() as u8, self.tcg) {
            // LOCK may be in front of it.
            byte if self.tcg && BIT_TESTS.contains(&byte) => 0x90,
            byte => byte,
        };
        self.just(&[0xc6]);
        self.memory(0, address);
        self.put(&[value]);
    }

    /// MOV dword [an entry of the page tables], imm32, and perhaps the end of what is cached of it.
    fn modify_tables(&mut self) {
        // Whatever maps code stays, nearly always.
        let table = u64::from(self.small(5)) << 12;
        let first = if self.random.once_in(20) { 0 } else { 16 };
        let index = first + u64::from(self.random.below(496));
        let value = match self.small(3) {
            0 => self.random.next() as u32,
            1 => 0,
            _ => (index as u32) << 12 | self.random.below(0x200),
        };
        self.proper();
        self.operand_size(false);
        let address = TABLES + table + 8 * index;
        if self.is_16_bit() {
            // There are none.
            self.put(&[0xc7]);
            self.memory(0, OPERANDS);
        } else {
            self.put(&[0xc7]);
            self.memory(0, address);
        }
        self.put(&value.to_le_bytes());
        if self.random.once_in(2) && !self.is_16_bit() {
            self.just(&[0x0f, 0x01]);
            self.memory(7, index << 12);
        }
    }
}
