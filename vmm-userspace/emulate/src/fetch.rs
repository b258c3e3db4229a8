//! Fetching the instruction at RIP.

use abi::vcpu::VcpuState;
use iced_x86::{Decoder, DecoderError, DecoderOptions, Instruction, Register};

use crate::{
    bus::Bus,
    fault::{Bytes, End, Fault},
    mode::{self, Mode},
    paging::{self, Access},
    segment,
};

/// Longest instruction (SDM 2A 2.3.11).
const MAX: u64 = 15;

/// The bytes at RIP.
#[derive(Clone, Copy)]
pub struct Code {
    /// Zeros behind `len`.
    pub bytes: [u8; 16],
    /// How many are valid, at most 15.
    pub len: u8,
    /// Where they start.
    linear: u64,
}

impl Code {
    /// Fetches up to the end of the page, with all checks.
    pub fn fetch(state: &VcpuState, bus: &mut impl Bus, mode: Mode) -> Result<Self, Fault> {
        let linear = Self::linear(state, mode)?;
        let gpa = paging::translate(state, bus, linear, Access::Fetch, mode::cpl(state))?;
        Ok(Self::read(bus, linear, gpa))
    }

    /// The same for an instruction that the processor has fetched: something else about it left the guest.
    #[inline]
    pub fn fetch_again(state: &VcpuState, bus: &mut impl Bus, mode: Mode) -> Result<Self, Fault> {
        let linear = Self::linear(state, mode)?;
        let gpa = match paging::translate_fetched(state, bus, linear) {
            Some(gpa) => gpa,
            None => paging::translate(state, bus, linear, Access::Fetch, mode::cpl(state))?,
        };
        Ok(Self::read(bus, linear, gpa))
    }

    #[inline(always)]
    fn linear(state: &VcpuState, mode: Mode) -> Result<u64, Fault> {
        match mode {
            Mode::Long => Ok(state.rip),
            _ => segment::linear(state, mode, Register::CS, state.rip, 1, Access::Fetch),
        }
    }

    #[inline(always)]
    fn read(bus: &mut impl Bus, linear: u64, gpa: u64) -> Self {
        let mut code = Self { bytes: [0; 16], len: 0, linear };
        if gpa & 0xfff <= 0xff0 {
            let low = u128::from(bus.read(gpa, 8));
            let high = u128::from(bus.read(gpa + 8, 8)) & 0x00ff_ffff_ffff_ffff;
            code.bytes = (high << 64 | low).to_le_bytes();
            code.len = MAX as u8;
        } else {
            code.append(bus, gpa, (0x1000 - (gpa & 0xfff)).min(MAX));
        }
        code
    }

    /// What was fetched.
    fn fetched(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&self.bytes)
    }

    fn append(&mut self, bus: &mut impl Bus, gpa: u64, count: u64) {
        for i in 0..count {
            if let Some(byte) = self.bytes.get_mut(usize::from(self.len)) {
                *byte = bus.read(gpa + i, 1) as u8;
                self.len += 1;
            }
        }
    }

    /// Decodes, fetching from the next page only if the instruction goes on there. `None` if it is not a
    /// known instruction.
    pub fn decode(
        &mut self,
        state: &VcpuState,
        bus: &mut impl Bus,
        mode: Mode,
    ) -> Result<Option<Instruction>, Fault> {
        loop {
            let mut decoder =
                Decoder::with_ip(mode.code_bits(), self.fetched(), state.rip, DecoderOptions::NONE);
            let instruction = decoder.decode();
            match decoder.last_error() {
                DecoderError::None => {
                    self.check_limit(state, mode, instruction.len())?;
                    return Ok(Some(instruction));
                }
                DecoderError::NoMoreBytes if u64::from(self.len) < MAX => {
                    let linear = self.linear.wrapping_add(u64::from(self.len));
                    let linear = if mode == Mode::Long { linear } else { linear & 0xffff_ffff };
                    let cpl = mode::cpl(state);
                    let gpa = paging::translate(state, bus, linear, Access::Fetch, cpl)?;
                    self.append(bus, gpa, MAX - u64::from(self.len));
                }
                _ => return Ok(None),
            }
        }
    }

    /// The last byte must lie inside the code segment.
    fn check_limit(&self, state: &VcpuState, mode: Mode, len: usize) -> Result<(), Fault> {
        if mode == Mode::Long {
            return Ok(());
        }
        segment::linear(state, mode, Register::CS, state.rip, len as u64, Access::Fetch).map(|_| ())
    }

    /// For a report about an instruction of `len` bytes.
    pub fn report(&self, len: usize) -> Bytes {
        let mut bytes = [0; 15];
        for (to, from) in bytes.iter_mut().zip(self.bytes).take(len) {
            *to = from;
        }
        Bytes { bytes, len: len.min(15) as u8 }
    }
}

/// Finds the length of the instruction at RIP, for exits where the processor does not tell. `usual` is the encoding that it has nearly
/// always, which needs no decoder.
///
/// [`End::Done`]: `state.inst_len` is the length in bytes.
pub fn length(state: &mut VcpuState, bus: &mut impl Bus, usual: &[u8]) -> End {
    let mode = Mode::of(state);
    let mut code = match Code::fetch_again(state, bus, mode) {
        Ok(code) => code,
        Err(fault) => return End::Fault(fault),
    };
    if !usual.is_empty() && code.fetched().starts_with(usual) {
        state.inst_len = usual.len() as u64;
        return End::Done;
    }
    match code.decode(state, bus, mode) {
        Ok(Some(instruction)) => {
            state.inst_len = instruction.len() as u64;
            End::Done
        }
        Ok(None) => End::Unsupported(code.report(usize::from(code.len))),
        Err(fault) => End::Fault(fault),
    }
}
