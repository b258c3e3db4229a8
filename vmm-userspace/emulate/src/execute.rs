//! Instructions with a memory operand, decoded by `iced-x86`.

use abi::vcpu::{Groups, VcpuState};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use crate::{
    access::Place,
    alu::{self, Shift},
    bus::Bus,
    fault::{End, Fault, Report},
    fetch::Code,
    mode::Mode,
    paging::Access,
    registers::{self, Part, mask, sign_extend},
    segment, string,
};

/// The virtual CPU while it executes one instruction.
pub(crate) struct Cpu<'a, B> {
    pub state: &'a mut VcpuState,
    pub bus: &'a mut B,
    pub mode: Mode,
    /// Groups changed so far.
    pub groups: Groups,
}

/// An operand that can be read and written.
#[derive(Clone, Copy)]
pub(crate) enum Operand {
    Register(Part),
    Memory(Place, u8),
    Immediate(u64, u8),
}

/// What stopped an instruction before its end.
pub(crate) enum Stop {
    Fault(Fault),
    Unsupported,
    Again,
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Decodes and executes the instruction that `code` starts with.
pub fn run(state: &mut VcpuState, bus: &mut impl Bus, mode: Mode, mut code: Code) -> Report {
    let instruction = match code.decode(state, bus, mode) {
        Ok(Some(instruction)) => instruction,
        Ok(None) => {
            let end = End::Unsupported(code.report(usize::from(code.len)));
            return Report { groups: Groups::NONE, end };
        }
        Err(fault) => return Report::fault(fault),
    };
    let mut cpu = Cpu { state, bus, mode, groups: Groups::NONE };
    let result = if instruction.is_string_instruction() {
        string::execute(&mut cpu, &instruction)
    } else {
        cpu.execute(&instruction)
    };
    let groups = cpu.groups;
    let end = match result {
        Ok(()) => {
            state.inst_len = instruction.len() as u64;
            End::Done
        }
        Err(Stop::Again) => End::Again,
        Err(Stop::Fault(fault)) => End::Fault(fault),
        Err(Stop::Unsupported) => End::Unsupported(code.report(instruction.len())),
    };
    Report { groups, end }
}

impl<B: Bus> Cpu<'_, B> {
    fn execute(&mut self, i: &Instruction) -> Result<(), Stop> {
        use Mnemonic as M;
        match i.mnemonic() {
            M::Mov | M::Movnti | M::Movzx => self.mov(i, |value, _, _| value),
            M::Movsx | M::Movsxd => self.mov(i, |value, from, _| sign_extend(value, from)),
            M::Movbe => self.mov(i, |value, _, to| value.swap_bytes() >> (64 - 8 * u32::from(to))),
            M::Add => self.binary(i, |a, b, size, f| alu::add(a, b, false, size, f)),
            M::Adc => self.binary(i, |a, b, size, f| alu::add(a, b, *f & alu::CF != 0, size, f)),
            M::Sub => self.binary(i, |a, b, size, f| alu::sub(a, b, false, size, f)),
            M::Sbb => self.binary(i, |a, b, size, f| alu::sub(a, b, *f & alu::CF != 0, size, f)),
            M::And => self.binary(i, |a, b, size, f| alu::logic(a & b, size, f)),
            M::Or => self.binary(i, |a, b, size, f| alu::logic(a | b, size, f)),
            M::Xor => self.binary(i, |a, b, size, f| alu::logic(a ^ b, size, f)),
            M::Cmp => self.compare(i, |a, b, size, f| alu::sub(a, b, false, size, f)),
            M::Test => self.compare(i, |a, b, size, f| alu::logic(a & b, size, f)),
            M::Inc => self.unary(i, alu::inc),
            M::Dec => self.unary(i, alu::dec),
            M::Neg => self.unary(i, |a, size, f| alu::sub(0, a, false, size, f)),
            M::Not => self.unary(i, |a, _, _| !a),
            M::Shl | M::Sal => self.shift(i, Shift::Left),
            M::Shr => self.shift(i, Shift::Right),
            M::Sar => self.shift(i, Shift::Arithmetic),
            M::Rol => self.shift(i, Shift::RotateLeft),
            M::Ror => self.shift(i, Shift::RotateRight),
            M::Rcl => self.shift(i, Shift::CarryLeft),
            M::Rcr => self.shift(i, Shift::CarryRight),
            M::Xchg => self.exchange(i, |_, b, _, _| b),
            M::Xadd => self.exchange(i, |a, b, size, f| alu::add(a, b, false, size, f)),
            M::Cmpxchg => self.compare_exchange(i),
            M::Cmpxchg8b => self.compare_exchange_pair(i, 4),
            M::Cmpxchg16b => self.compare_exchange_pair(i, 8),
            M::Bt => self.bit(i, |value, _| value),
            M::Bts => self.bit(i, |value, bit| value | bit),
            M::Btr => self.bit(i, |value, bit| value & !bit),
            M::Btc => self.bit(i, |value, bit| value ^ bit),
            M::Push => self.push(i),
            M::Pop => self.pop(i),
            // Hints about caching change nothing that can be seen.
            M::Clflush
            | M::Clflushopt
            | M::Clwb
            | M::Prefetchnta
            | M::Prefetcht0
            | M::Prefetcht1
            | M::Prefetcht2
            | M::Prefetchw
            | M::Nop => Ok(()),
            _ => self.conditional(i),
        }
    }

    /// SETcc and CMOVcc; everything else is unsupported.
    fn conditional(&mut self, i: &Instruction) -> Result<(), Stop> {
        let condition = i.condition_code() as u8;
        if condition == 0 || i.flow_control() != iced_x86::FlowControl::Next {
            return Err(Stop::Unsupported);
        }
        // The decoder numbers conditions from 1 in the order of their encoding.
        let holds = alu::condition(condition - 1, self.state.rflags);
        if i.op_count() == 1 {
            let to = self.operand(i, 0, Access::Write)?;
            self.store(to, u64::from(holds));
            return Ok(());
        }
        // CMOVcc reads its source and writes the lower half's zero extension even if the condition fails.
        let to = self.operand(i, 0, Access::Write)?;
        let from = self.operand(i, 1, Access::Read)?;
        let value = self.load(from);
        let value = if holds { value } else { self.load(to) };
        self.store(to, value);
        Ok(())
    }

    fn mov(&mut self, i: &Instruction, convert: fn(u64, u8, u8) -> u64) -> Result<(), Stop> {
        let from = self.operand(i, 1, Access::Read)?;
        let to = self.operand(i, 0, Access::Write)?;
        let value = self.load(from);
        self.store(to, convert(value, from.size(), to.size()));
        Ok(())
    }

    fn binary(
        &mut self,
        i: &Instruction,
        operation: fn(u64, u64, u8, &mut u64) -> u64,
    ) -> Result<(), Stop> {
        let to = self.operand(i, 0, Access::Write)?;
        let from = self.operand(i, 1, Access::Read)?;
        let (a, b) = (self.load(to), self.load(from));
        let result = operation(a, b, to.size(), self.flags());
        self.store(to, result);
        Ok(())
    }

    fn compare(
        &mut self,
        i: &Instruction,
        operation: fn(u64, u64, u8, &mut u64) -> u64,
    ) -> Result<(), Stop> {
        let left = self.operand(i, 0, Access::Read)?;
        let right = self.operand(i, 1, Access::Read)?;
        let (a, b) = (self.load(left), self.load(right));
        let _ = operation(a, b, left.size(), self.flags());
        Ok(())
    }

    fn unary(
        &mut self,
        i: &Instruction,
        operation: fn(u64, u8, &mut u64) -> u64,
    ) -> Result<(), Stop> {
        let to = self.operand(i, 0, Access::Write)?;
        let a = self.load(to);
        let result = operation(a, to.size(), self.flags());
        self.store(to, result);
        Ok(())
    }

    fn shift(&mut self, i: &Instruction, kind: Shift) -> Result<(), Stop> {
        let to = self.operand(i, 0, Access::Write)?;
        let count = self.operand(i, 1, Access::Read)?;
        let (a, count) = (self.load(to), self.load(count) as u8);
        let result = alu::shift(kind, a, count, to.size(), self.flags());
        self.store(to, result);
        Ok(())
    }

    /// XCHG and XADD: the second operand takes the old value of the first.
    fn exchange(
        &mut self,
        i: &Instruction,
        operation: fn(u64, u64, u8, &mut u64) -> u64,
    ) -> Result<(), Stop> {
        let first = self.operand(i, 0, Access::Write)?;
        let second = self.operand(i, 1, Access::Write)?;
        let (a, b) = (self.load(first), self.load(second));
        let result = operation(a, b, first.size(), self.flags());
        self.store(second, a);
        self.store(first, result);
        Ok(())
    }

    fn compare_exchange(&mut self, i: &Instruction) -> Result<(), Stop> {
        let to = self.operand(i, 0, Access::Write)?;
        let from = self.operand(i, 1, Access::Read)?;
        let accumulator = Operand::Register(Part { index: 0, size: to.size(), high: false });
        let (old, new, expected) = (self.load(to), self.load(from), self.load(accumulator));
        let difference = alu::sub(expected, old, false, to.size(), self.flags());
        if difference == 0 {
            self.store(to, new);
        } else {
            // The destination is written in any case (SDM 2A, CMPXCHG).
            self.store(to, old);
            self.store(accumulator, old);
        }
        Ok(())
    }

    /// CMPXCHG8B and CMPXCHG16B, with halves of `half` bytes.
    fn compare_exchange_pair(&mut self, i: &Instruction, half: u8) -> Result<(), Stop> {
        let linear = self.address(i, u64::from(half) * 2, Access::Write)?;
        if half == 8 && linear & 15 != 0 {
            return Err(Fault::General(0).into());
        }
        let place = Place::translate(self.state, self.bus, linear, half * 2, Access::Write)?;
        let part = |index| Part { index, size: half, high: false };
        let (rax, rcx, rdx, rbx) = (part(0), part(1), part(2), part(3));
        let low = place.read(self.bus, 0, half) & mask(half);
        let high = place.read(self.bus, half, half) & mask(half);
        let equal =
            low == registers::read(self.state, rax) && high == registers::read(self.state, rdx);
        let (new_low, new_high) = if equal {
            (registers::read(self.state, rbx), registers::read(self.state, rcx))
        } else {
            (low, high)
        };
        place.write(self.bus, 0, half, new_low);
        place.write(self.bus, half, half, new_high);
        let flags = self.flags();
        *flags = if equal { *flags | alu::ZF } else { *flags & !alu::ZF };
        if !equal {
            self.store(Operand::Register(rax), low);
            self.store(Operand::Register(rdx), high);
        }
        Ok(())
    }

    /// BT, BTS, BTR, BTC. A bit offset in a register reaches beyond the operand (SDM 2A 3.1.1.9).
    fn bit(&mut self, i: &Instruction, operation: fn(u64, u64) -> u64) -> Result<(), Stop> {
        let index = self.operand(i, 1, Access::Read)?;
        let offset = self.load(index);
        let reads = i.mnemonic() == Mnemonic::Bt;
        let access = if reads { Access::Read } else { Access::Write };
        let in_memory = i.op_kind(0) == OpKind::Memory;
        let to = if in_memory && i.op_kind(1) == OpKind::Register {
            let size = index.size();
            let bits = sign_extend(offset, size) as i64;
            let skip = (bits >> (3 + size.trailing_zeros())) * i64::from(size);
            let ea = self.effective_address(i).wrapping_add(skip as u64);
            self.memory_at(i, ea & self.address_mask(i), size, access)?
        } else {
            self.operand(i, 0, access)?
        };
        let value = self.load(to);
        let bit = 1 << (offset & (u64::from(to.size()) * 8 - 1));
        let flags = self.flags();
        *flags = if value & bit != 0 { *flags | alu::CF } else { *flags & !alu::CF };
        if !reads {
            self.store(to, operation(value, bit));
        }
        Ok(())
    }

    fn push(&mut self, i: &Instruction) -> Result<(), Stop> {
        let from = self.operand(i, 0, Access::Read)?;
        let size = (-i.stack_pointer_increment()) as u8;
        let value = match from {
            Operand::Immediate(value, width) => sign_extend(value, width),
            _ => self.load(from),
        };
        let sp = self.stack_pointer();
        let new = registers::read(self.state, sp).wrapping_sub(u64::from(size));
        let (mode, access) = (self.mode, Access::Write);
        let offset = new & mask(sp.size);
        let linear =
            segment::linear(self.state, mode, Register::SS, offset, u64::from(size), access)?;
        let place = Place::translate(self.state, self.bus, linear, size, access)?;
        place.write(self.bus, 0, size, value & mask(size));
        self.store(Operand::Register(sp), new);
        Ok(())
    }

    fn pop(&mut self, i: &Instruction) -> Result<(), Stop> {
        let size = i.stack_pointer_increment() as u8;
        let sp = self.stack_pointer();
        let old = registers::read(self.state, sp);
        let (mode, access) = (self.mode, Access::Read);
        let linear = segment::linear(self.state, mode, Register::SS, old, u64::from(size), access)?;
        let place = Place::translate(self.state, self.bus, linear, size, access)?;
        let value = place.read(self.bus, 0, size);
        // The destination's address is computed with the incremented stack pointer (SDM 2B, POP).
        self.store(Operand::Register(sp), old.wrapping_add(u64::from(size)));
        match self.operand(i, 0, Access::Write) {
            Ok(to) => {
                self.store(to, value);
                Ok(())
            }
            Err(stop) => {
                self.store(Operand::Register(sp), old);
                Err(stop)
            }
        }
    }

    /// The stack pointer with the width of the stack segment.
    fn stack_pointer(&self) -> Part {
        let size = match self.mode {
            Mode::Long => 8,
            _ if self.state.ss.attr & 1 << 10 != 0 => 4,
            _ => 2,
        };
        Part { index: 4, size, high: false }
    }

    fn flags(&mut self) -> &mut u64 {
        self.groups |= Groups::RFLAGS;
        &mut self.state.rflags
    }

    /// Resolves operand `n`. Memory that will be written is translated as a write even if it is read first, so
    /// that a fault comes before any effect.
    pub fn operand(&mut self, i: &Instruction, n: u32, access: Access) -> Result<Operand, Stop> {
        let size = |bytes: usize| u8::try_from(bytes).unwrap_or(0);
        Ok(match i.op_kind(n) {
            OpKind::Register => {
                let part = registers::part(i.op_register(n)).ok_or(Stop::Unsupported)?;
                Operand::Register(part)
            }
            OpKind::Memory => {
                let ea = self.effective_address(i);
                self.memory_at(i, ea, size(i.memory_size().size()), access)?
            }
            OpKind::Immediate8 => Operand::Immediate(u64::from(i.immediate8()), 1),
            OpKind::Immediate16 => Operand::Immediate(u64::from(i.immediate16()), 2),
            OpKind::Immediate32 => Operand::Immediate(u64::from(i.immediate32()), 4),
            OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64
            | OpKind::Immediate64 => Operand::Immediate(i.immediate(n), 8),
            _ => return Err(Stop::Unsupported),
        })
    }

    fn memory_at(
        &mut self,
        i: &Instruction,
        ea: u64,
        size: u8,
        access: Access,
    ) -> Result<Operand, Stop> {
        if !matches!(size, 1 | 2 | 4 | 8) {
            return Err(Stop::Unsupported);
        }
        let linear = segment::linear(
            self.state,
            self.mode,
            i.memory_segment(),
            ea,
            u64::from(size),
            access,
        )?;
        let place = Place::translate(self.state, self.bus, linear, size, access)?;
        Ok(Operand::Memory(place, size))
    }

    /// Linear address of the memory operand.
    fn address(&mut self, i: &Instruction, size: u64, access: Access) -> Result<u64, Fault> {
        let ea = self.effective_address(i);
        segment::linear(self.state, self.mode, i.memory_segment(), ea, size, access)
    }

    fn effective_address(&self, i: &Instruction) -> u64 {
        // The decoder has added RIP to the displacement of a RIP-relative operand.
        let value = |register| match registers::part(register) {
            Some(part) => registers::read(self.state, part),
            None => 0,
        };
        let index = value(i.memory_index()).wrapping_mul(u64::from(i.memory_index_scale()));
        let sum = i.memory_displacement64().wrapping_add(value(i.memory_base()));
        sum.wrapping_add(index) & self.address_mask(i)
    }

    fn address_mask(&self, i: &Instruction) -> u64 {
        let size = [i.memory_base(), i.memory_index()]
            .into_iter()
            .map(|register| match register {
                Register::RIP => 8,
                Register::EIP => 4,
                _ => registers::part(register).map_or(0, |part| part.size),
            })
            .max()
            .unwrap_or(0);
        match size {
            0 => mask(i.memory_displ_size().max(2) as u8),
            size => mask(size),
        }
    }

    pub fn load(&mut self, operand: Operand) -> u64 {
        match operand {
            Operand::Register(part) => registers::read(self.state, part),
            Operand::Memory(place, size) => place.read(self.bus, 0, size) & mask(size),
            Operand::Immediate(value, _) => value,
        }
    }

    pub fn store(&mut self, operand: Operand, value: u64) {
        match operand {
            Operand::Register(part) => self.groups |= registers::write(self.state, part, value),
            Operand::Memory(place, size) => place.write(self.bus, 0, size, value & mask(size)),
            Operand::Immediate(..) => {}
        }
    }
}

impl Operand {
    const fn size(self) -> u8 {
        match self {
            Self::Register(part) => part.size,
            Self::Memory(_, size) | Self::Immediate(_, size) => size,
        }
    }
}
