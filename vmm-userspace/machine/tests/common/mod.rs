//! A machine with one virtual CPU, as a kernel runs it that delivers and takes exactly what it is asked to.
#![allow(dead_code)]

use std::cell::Cell;

use abi::{
    hip::features,
    vcpu::{ControlAccess, Event, Exit, Groups, MemoryAccess, Segment, VcpuState, Window},
};
use devices::time::Time;
use machine::{
    memory::{GuestMemory, MemoryMap, NotRam},
    pc::{Clock, Outcome, Pc, Settings, Tells, portal_groups},
    reset,
};

/// A processor that tells all there is to tell.
pub fn full() -> Tells {
    Tells::by(features::INSTRUCTION_LENGTH | features::LINEAR_ADDRESS)
}

/// One that tells lengths, but no addresses of memory accesses.
pub fn lengths() -> Tells {
    Tells::by(features::INSTRUCTION_LENGTH)
}

/// One that tells nothing.
pub fn little() -> Tells {
    Tells::by(0)
}

const RAM: usize = 0x20_0000;

pub struct Ram(pub Vec<u8>);

impl GuestMemory for Ram {
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), NotRam> {
        let at = usize::try_from(gpa).map_err(|_| NotRam(gpa))?;
        let end = at.checked_add(bytes.len()).ok_or(NotRam(gpa))?;
        bytes.copy_from_slice(self.0.get(at..end).ok_or(NotRam(gpa))?);
        Ok(())
    }
    fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), NotRam> {
        let at = usize::try_from(gpa).map_err(|_| NotRam(gpa))?;
        let end = at.checked_add(bytes.len()).ok_or(NotRam(gpa))?;
        self.0.get_mut(at..end).ok_or(NotRam(gpa))?.copy_from_slice(bytes);
        Ok(())
    }
}

/// Two host ticks a nanosecond.
pub struct Ticks(pub Cell<u64>);

impl Clock for Ticks {
    fn tsc(&self) -> u64 {
        self.0.get() * 2
    }
    fn time(&self) -> Time {
        Time(self.0.get())
    }
    fn tsc_at(&self, time: Time) -> u64 {
        time.0.saturating_mul(2)
    }
}

pub struct Vm {
    pub pc: Pc,
    pub tells: Tells,
    /// As the processor has it, and what the exit tells.
    pub state: VcpuState,
    pub ram: Ram,
    pub clock: Ticks,
    /// As the kernel holds them.
    pub window: Window,
    pub deadline: u64,
}

fn host(leaf: u32, _: u32) -> [u32; 4] {
    match leaf {
        0 => [0x16, 1, 2, 3],
        0x8000_0000 => [0x8000_0008, 0, 0, 0],
        0x8000_0008 => [0x3028, 0, 0, 0],
        _ => [u32::MAX; 4],
    }
}

impl Vm {
    pub fn new() -> Self {
        Self::on(full())
    }

    /// One on a processor that tells so much.
    pub fn on(tells: Tells) -> Self {
        let settings = Settings {
            memory: MemoryMap::new(RAM as u64),
            unix_seconds: 1_700_000_000,
            xsave: false,
            tsc_offset: 0,
        };
        let mut state = reset::power_on(0x5_0654);
        state.rip = 0x1000;
        state.cs.base = 0;
        let pc = Pc::new(&settings, host);
        let mut vm = Self {
            pc,
            tells,
            state,
            ram: Ram(vec![0; RAM]),
            clock: Ticks(Cell::new(1000)),
            window: Window(0),
            deadline: u64::MAX,
        };
        assert_eq!(vm.exit(Exit::Startup), Outcome::Continue(Groups::ALL));
        vm
    }

    /// An exit with what its portal delivers, repeated with more as often as asked.
    pub fn exit(&mut self, exit: Exit) -> Outcome {
        let mut have = portal_groups(exit, self.tells);
        for _ in 0..3 {
            let outcome = self.exit_with(exit, have);
            let Outcome::Need(groups) = outcome else { return outcome };
            assert!(!have.contains(groups), "{exit:?} asks for what it has");
            have |= groups;
        }
        panic!("{exit:?} asks for ever more");
    }

    /// A memory exit in the middle of the delivery of an event.
    pub fn redelivered(&mut self) -> Outcome {
        self.deliver(Exit::Memory, portal_groups(Exit::Memory, self.tells))
    }

    /// An exit whose portal delivers these groups.
    pub fn exit_with(&mut self, exit: Exit, have: Groups) -> Outcome {
        self.state.event = Event::NONE;
        self.deliver(exit, have)
    }

    fn deliver(&mut self, exit: Exit, have: Groups) -> Outcome {
        let told = self.told(exit);
        // The owner fills the whole state before the first entry.
        let mut image = if exit == Exit::Startup { told } else { poison() };
        copy(&told, &mut image, have);
        let (ram, clock) = (&mut self.ram, &self.clock);
        let outcome = if self.tells.lengths {
            self.pc.exit::<true>(exit, have, &mut image, ram, clock)
        } else {
            self.pc.exit::<false>(exit, have, &mut image, ram, clock)
        };
        match outcome {
            Outcome::Continue(groups) => self.reply(exit, &told, &image, groups),
            // What comes later works on what the exit delivered.
            Outcome::Halt => self.state.inst_len = image.inst_len,
            _ => {}
        }
        outcome
    }

    /// The state at an exit, without what this processor does not tell.
    fn told(&self, exit: Exit) -> VcpuState {
        let mut told = self.state;
        if exit == Exit::Memory || !self.tells.lengths && exit != Exit::Port {
            told.inst_len = 0;
        }
        if exit == Exit::Memory && !self.tells.addresses {
            told.qual[0] &= !MemoryAccess::LINEAR_VALID;
            told.qual[2] = 0;
        }
        if exit == Exit::Control && !self.tells.lengths {
            // The register, and whether it is read.
            let read = (told.qual[0] >> 4 & 3 == 1) as u64;
            told.qual[0] = told.qual[0] & 0xf | read << 4;
        }
        told
    }

    fn reply(&mut self, exit: Exit, told: &VcpuState, image: &VcpuState, groups: Groups) {
        copy(image, &mut self.state, Groups(groups.0 & !Groups::RIP.0));
        if groups.contains(Groups::WINDOW) {
            self.window = self.state.window;
        }
        if groups.contains(Groups::DEADLINE) {
            self.deadline = self.state.deadline;
        }
        if groups.contains(Groups::DONE) {
            self.complete(exit, told.inst_len, image.inst_len);
        }
    }

    /// The instruction is done: the processor's word counts before the machine's.
    fn complete(&mut self, exit: Exit, told: u64, brought: u64) {
        let brings = exit == Exit::Memory || !self.tells.lengths && exit != Exit::Port;
        let length = if brings { brought } else { told };
        assert!(!brings || (1..16).contains(&length), "{exit:?}: {length:#x} bytes");
        self.state.inst_len = length;
        self.state.rip += length;
    }

    pub fn out(&mut self, port: u16, value: u8) -> Outcome {
        self.state.gpr.rax = u64::from(value);
        self.state.qual[0] = u64::from(port) << 16;
        self.exit(Exit::Port)
    }

    pub fn input(&mut self, port: u16) -> u8 {
        self.state.qual[0] = u64::from(port) << 16 | 8;
        assert!(matches!(self.exit(Exit::Port), Outcome::Continue(_)));
        self.state.gpr.rax as u8
    }

    pub fn wrmsr(&mut self, register: u32, value: u64) -> Outcome {
        let gpr = &mut self.state.gpr;
        (gpr.rcx, gpr.rax, gpr.rdx) = (register.into(), value & 0xffff_ffff, value >> 32);
        self.at(&[0x0f, 0x30]);
        self.exit(Exit::MsrWrite)
    }

    /// Puts an instruction in place, which is about to exit.
    pub fn at(&mut self, code: &[u8]) {
        self.ram.write(0x1000, code).unwrap();
        (self.state.rip, self.state.inst_len) = (0x1000, code.len() as u64);
    }

    /// A 32-bit store of EAX to `gpa` by `mov [ebx], eax` (16-bit code).
    pub fn store(&mut self, gpa: u64, value: u32) -> Outcome {
        self.at(&[0x66, 0x67, 0x89, 0x03]);
        self.state.gpr.rbx = gpa;
        self.state.ds.limit = u32::MAX;
        self.state.gpr.rax = u64::from(value);
        self.state.qual = [0x182, gpa, gpa];
        self.exit(Exit::Memory)
    }

    /// An access to a control register by `code`, of which a processor that tells all would tell this.
    pub fn control(&mut self, access: u64, code: &[u8]) -> Outcome {
        self.at(code);
        self.state.qual[0] = access | ControlAccess::DECODED;
        self.exit(Exit::Control)
    }

    pub fn advance(&self, ns: u64) {
        self.clock.0.set(self.clock.0.get() + ns);
    }

    pub fn asked(&self) -> bool {
        self.window.0 & Window::INTERRUPT.0 != 0
    }

    /// Programs the 8259s as Linux and DOS do, with vectors from 0x30 on, `mask` for the first.
    pub fn start_pic(&mut self, mask: u8) {
        for (port, value) in [(0x20, 0x11), (0x21, 0x30), (0x21, 4), (0x21, 1), (0x21, mask)] {
            let _ = self.out(port, value);
        }
    }
}

/// A state that would be noticed wherever it is used.
fn poison() -> VcpuState {
    const P: u64 = 0x5e5e_5e5e_5e5e_5e5e;
    let segment = Segment { selector: 0x5e5e, attr: 0x5e5e, limit: 0, base: P };
    let mut state = VcpuState {
        rip: P,
        inst_len: P,
        rflags: P,
        qual: [P; 3],
        event: Event { info: u32::MAX, error: u32::MAX },
        blocking: u32::MAX,
        deadline: P,
        cr0: P,
        cr2: P,
        cr3: P,
        cr4: P,
        pdpte: [P; 4],
        efer: P,
        pat: P,
        cs: segment,
        ss: segment,
        ds: segment,
        es: segment,
        fs: segment,
        gs: segment,
        tr: segment,
        ldtr: segment,
        xcr0: P,
        ..VcpuState::default()
    };
    for index in 0..16 {
        *state.gpr.reg_mut(index) = P;
    }
    state
}

/// Moves groups from one state to another, and nothing else.
fn copy(from: &VcpuState, to: &mut VcpuState, groups: Groups) {
    macro_rules! group {
        ($($group:ident: $($($field:ident).+),+;)+) => {
            $(if groups.contains(Groups::$group) {
                $(to.$($field).+ = from.$($field).+;)+
            })+
        };
    }
    group! {
        ACDB: gpr.rax, gpr.rcx, gpr.rdx, gpr.rbx;
        BSD: gpr.rbp, gpr.rsi, gpr.rdi;
        RSP: gpr.rsp;
        R8_R15: gpr.r8, gpr.r9, gpr.r10, gpr.r11, gpr.r12, gpr.r13, gpr.r14, gpr.r15;
        RIP: rip, inst_len;
        RFLAGS: rflags;
        QUAL: qual;
        EVENT: event;
        WINDOW: window;
        BLOCKING: blocking;
        CONTROL: exceptions, intercepts, cr0_mask, cr4_mask;
        TSC: tsc_offset;
        DEADLINE: deadline;
        CR: cr0, cr2, cr3, cr4, pdpte;
        CR2: cr2;
        DR: dr, dr6, dr7;
        EFER_PAT: efer, pat;
        CS_SS: cs, ss;
        DS_ES: ds, es;
        FS_GS: fs, gs;
        TABLES: tr, ldtr, gdtr, idtr;
        SYSENTER: sysenter_cs, sysenter_esp, sysenter_eip;
        SYSCALL: star, lstar, cstar, fmask, kernel_gs_base, tsc_aux;
        XSAVE: xcr0, xss;
    }
}
