//! String instructions: MOVS, STOS, LODS, CMPS, SCAS, INS, OUTS with their repeat prefixes.

use abi::vcpu::Groups;
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use crate::{
    access::Place,
    alu,
    bus::Bus,
    execute::{Cpu, Operand, Stop},
    paging::Access,
    registers::{Part, mask},
    segment,
};

/// Iterations of a repeated instruction before the guest gets a chance to take an interrupt.
pub const CHUNK: u32 = 64;

const RAX: u8 = 0;
const RCX: u8 = 1;
const RDX: u8 = 2;
const RSI: u8 = 6;
const RDI: u8 = 7;

/// One string instruction: element size, address size, source segment.
struct Form {
    size: u8,
    address: u8,
    segment: Register,
}

pub(crate) fn execute<B: Bus>(cpu: &mut Cpu<'_, B>, i: &Instruction) -> Result<(), Stop> {
    let form = Form::of(i)?;
    if !(i.has_rep_prefix() || i.has_repne_prefix()) {
        return step(cpu, i, &form);
    }
    let count = Part { index: RCX, size: form.address, high: false };
    let compares = matches!(
        i.mnemonic(),
        Mnemonic::Cmpsb
            | Mnemonic::Cmpsw
            | Mnemonic::Cmpsd
            | Mnemonic::Cmpsq
            | Mnemonic::Scasb
            | Mnemonic::Scasw
            | Mnemonic::Scasd
            | Mnemonic::Scasq
    );
    for _ in 0..CHUNK {
        let left = cpu.load(Operand::Register(count));
        if left == 0 {
            return Ok(());
        }
        step(cpu, i, &form)?;
        cpu.store(Operand::Register(count), left - 1);
        let equal = cpu.state.rflags & alu::ZF != 0;
        if compares && equal == i.has_repne_prefix() {
            return Ok(());
        }
    }
    if cpu.load(Operand::Register(count)) == 0 { Ok(()) } else { Err(Stop::Again) }
}

impl Form {
    fn of(i: &Instruction) -> Result<Self, Stop> {
        let mut address = None;
        for n in 0..i.op_count() {
            address = address.or(match i.op_kind(n) {
                OpKind::MemorySegSI | OpKind::MemoryESDI => Some(2),
                OpKind::MemorySegESI | OpKind::MemoryESEDI => Some(4),
                OpKind::MemorySegRSI | OpKind::MemoryESRDI => Some(8),
                _ => None,
            });
        }
        let address = address.ok_or(Stop::Unsupported)?;
        let size = match i.memory_size().size() {
            size @ (1 | 2 | 4 | 8) => size as u8,
            _ => return Err(Stop::Unsupported),
        };
        Ok(Self { size, address, segment: i.memory_segment() })
    }
}

/// One iteration. Registers change only after its last access, so that a fault leaves it to be repeated.
fn step<B: Bus>(cpu: &mut Cpu<'_, B>, i: &Instruction, form: &Form) -> Result<(), Stop> {
    use Mnemonic as M;
    let accumulator = Operand::Register(Part { index: RAX, size: form.size, high: false });
    match i.mnemonic() {
        M::Movsb | M::Movsw | M::Movsd | M::Movsq => {
            let from = source(cpu, form)?;
            let to = destination(cpu, form, Access::Write)?;
            let value = cpu.load(from);
            cpu.store(to, value);
            advance(cpu, form, RSI);
            advance(cpu, form, RDI);
        }
        M::Stosb | M::Stosw | M::Stosd | M::Stosq => {
            let to = destination(cpu, form, Access::Write)?;
            let value = cpu.load(accumulator);
            cpu.store(to, value);
            advance(cpu, form, RDI);
        }
        M::Lodsb | M::Lodsw | M::Lodsd | M::Lodsq => {
            let from = source(cpu, form)?;
            let value = cpu.load(from);
            cpu.store(accumulator, value);
            advance(cpu, form, RSI);
        }
        M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq => {
            let left = source(cpu, form)?;
            let right = destination(cpu, form, Access::Read)?;
            compare(cpu, form, left, right);
            advance(cpu, form, RSI);
            advance(cpu, form, RDI);
        }
        M::Scasb | M::Scasw | M::Scasd | M::Scasq => {
            let right = destination(cpu, form, Access::Read)?;
            compare(cpu, form, accumulator, right);
            advance(cpu, form, RDI);
        }
        M::Insb | M::Insw | M::Insd => {
            let to = destination(cpu, form, Access::Write)?;
            let value = cpu.bus.port_read(cpu.state.gpr.rdx as u16, form.size);
            cpu.store(to, u64::from(value));
            advance(cpu, form, RDI);
        }
        M::Outsb | M::Outsw | M::Outsd => {
            let from = source(cpu, form)?;
            let value = cpu.load(from);
            let port = cpu.load(Operand::Register(Part { index: RDX, size: 2, high: false }));
            cpu.bus.port_write(port as u16, form.size, value as u32);
            advance(cpu, form, RSI);
        }
        _ => return Err(Stop::Unsupported),
    }
    Ok(())
}

fn source<B: Bus>(cpu: &mut Cpu<'_, B>, form: &Form) -> Result<Operand, Stop> {
    at(cpu, form, RSI, form.segment, Access::Read)
}

fn destination<B: Bus>(cpu: &mut Cpu<'_, B>, form: &Form, access: Access) -> Result<Operand, Stop> {
    at(cpu, form, RDI, Register::ES, access)
}

fn at<B: Bus>(
    cpu: &mut Cpu<'_, B>,
    form: &Form,
    index: u8,
    segment: Register,
    access: Access,
) -> Result<Operand, Stop> {
    let pointer = Part { index, size: form.address, high: false };
    let offset = cpu.load(Operand::Register(pointer));
    let size = u64::from(form.size);
    let linear = segment::linear(cpu.state, cpu.mode, segment, offset, size, access)?;
    let place = Place::translate(cpu.state, cpu.bus, linear, form.size, access)?;
    Ok(Operand::Memory(place, form.size))
}

fn compare<B: Bus>(cpu: &mut Cpu<'_, B>, form: &Form, left: Operand, right: Operand) {
    let (a, b) = (cpu.load(left), cpu.load(right));
    cpu.groups |= Groups::RFLAGS;
    let _ = alu::sub(a, b, false, form.size, &mut cpu.state.rflags);
}

/// Moves an index register by one element in the direction of DF.
fn advance<B: Bus>(cpu: &mut Cpu<'_, B>, form: &Form, index: u8) {
    let pointer = Operand::Register(Part { index, size: form.address, high: false });
    let old = cpu.load(pointer);
    let size = u64::from(form.size);
    let down = cpu.state.rflags & alu::DF != 0;
    let new = if down { old.wrapping_sub(size) } else { old.wrapping_add(size) };
    cpu.store(pointer, new & mask(form.address));
}
