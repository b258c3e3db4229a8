//! Model-specific registers: the policy, reserved bits, and what the guest's own registers need.

use abi::vcpu::{Groups, VcpuState};
use devices::{
    lapic::{Clock, Config, Features, LocalApic},
    time::Time,
};
use machine::{
    cpuid::Manual,
    msr::{Context, Limits, Msrs, Refusal, index},
    reset,
};
use proptest::prelude::*;

struct Cpu {
    msrs: Msrs,
    state: VcpuState,
    lapic: LocalApic,
    tsc: u64,
}

impl Cpu {
    fn new() -> Self {
        Self::by(Manual::Sdm)
    }
    fn by(manual: Manual) -> Self {
        let lapic = LocalApic::new(Config {
            id: 0,
            bootstrap: true,
            physical_address_bits: 40,
            timer_hz: 1_000_000_000.try_into().unwrap(),
            features: Features { x2apic: true, tsc_deadline: true, cmci: false },
        });
        let msrs =
            Msrs::new(Limits { efer: 0xd01, physical_bits: 40, manual }, 0u64.wrapping_sub(1000));
        Self { msrs, state: reset::power_on(0), lapic, tsc: 5000 }
    }
    fn access<R>(&mut self, have: Groups, f: impl FnOnce(&mut Msrs, &mut Context<'_>) -> R) -> R {
        let clock = Clock { now: Time::ZERO, tsc: self.tsc };
        let mut context = Context { state: &mut self.state, have, lapic: &mut self.lapic, clock };
        f(&mut self.msrs, &mut context)
    }
    fn read(&mut self, register: u32) -> Result<u64, Refusal> {
        self.access(Groups::ALL, |msrs, context| msrs.read(context, register))
    }
    fn write(&mut self, register: u32, value: u64) -> Result<Groups, Refusal> {
        let written = self.access(Groups::ALL, |m, context| m.write(context, register, value));
        written.map(|written| written.groups)
    }
}

const GP: Refusal = Refusal::Gp;

#[test]
fn unknown_registers_fault() {
    let mut cpu = Cpu::new();
    // Speculation control, performance counters, machine-check banks, thermal, XSS, hypervisor range, virtualization.
    for register in [
        0x48,
        0x49,
        0xc1,
        0x10a,
        0x186,
        0x19c,
        0x400,
        0x38f,
        0x480,
        0xda0,
        0x4000_0000,
        0xc001_0015,
    ] {
        assert_eq!(cpu.read(register), Err(GP), "{register:x}");
        assert_eq!(cpu.write(register, 0).unwrap_err(), GP, "{register:x}");
    }
}

#[test]
fn constants_are_constant() {
    let mut cpu = Cpu::new();
    for (register, value) in [(0xfe, 0x508), (0x3a, 1), (0x17, 0), (0xce, 0), (0x34, 0), (0x179, 0)]
    {
        assert_eq!(cpu.read(register), Ok(value), "{register:x}");
        assert_eq!(cpu.write(register, 5).unwrap_err(), GP, "{register:x}");
    }
    assert_eq!((cpu.write(0x8b, 0), cpu.read(0x8b)), (Ok(Groups::NONE), Ok(1 << 32)));
    assert_eq!((cpu.write(0x79, 0x1234), cpu.read(0x79)), (Ok(Groups::NONE), Err(GP)));
}

#[test]
fn the_other_manuals_registers_are_constant() {
    let mut cpu = Cpu::by(Manual::Apm);
    for (register, value) in [
        (0xc001_0010, 0),
        (0xc001_0015, 1 << 24),
        (0xc001_001f, 0),
        (0xc001_0055, 0),
        (0xc001_0114, 0x18),
        (0xc001_1022, 0),
        (0xc001_1029, 2),
        (0xc001_102a, 0),
        (0x8b, 0x0100_0065),
    ] {
        assert_eq!(cpu.write(register, u64::MAX), Ok(Groups::NONE), "{register:x}");
        assert_eq!(cpu.read(register), Ok(value), "{register:x}");
        let manual = Cpu::new().read(register);
        assert_eq!(manual, if register == 0x8b { Ok(1 << 32) } else { Err(GP) }, "{register:x}");
    }
    // Writes only; reads only; performance counters, memory tops, P-states, save area, OSVW, speculation control, IBS.
    assert_eq!((cpu.read(0xc001_0020), cpu.write(0xc001_0020, 1)), (Err(GP), Ok(Groups::NONE)));
    assert_eq!((cpu.read(0xc001_029b), cpu.write(0xc001_029b, 1)), (Ok(0), Err(GP)));
    for register in [
        0xc001_0000,
        0xc001_001a,
        0xc001_0062,
        0xc001_0112,
        0xc001_0117,
        0xc001_011f,
        0xc001_0140,
        0xc001_0200,
        0xc001_1020,
        0xc001_1030,
        0xc000_0104,
    ] {
        assert_eq!(
            (cpu.read(register), cpu.write(register, 0)),
            (Err(GP), Err(GP)),
            "{register:x}"
        );
    }
}

#[test]
fn the_time_stamp_counter_can_be_set_and_adjusted() {
    let mut cpu = Cpu::new();
    assert_eq!((cpu.read(index::TSC), cpu.read(index::TSC_ADJUST)), (Ok(5000), Ok(0)));
    assert_eq!(cpu.write(index::TSC, 8000), Ok(Groups::TSC));
    assert_eq!((cpu.state.tsc_offset, cpu.read(index::TSC_ADJUST)), (2000, Ok(3000)));
    assert_eq!(cpu.write(index::TSC_ADJUST, 0), Ok(Groups::TSC));
    assert_eq!(cpu.state.tsc_offset, 0u64.wrapping_sub(1000));
    assert_eq!(cpu.msrs.tsc_offset(), cpu.state.tsc_offset);
}

#[test]
fn efer_keeps_its_rules() {
    let mut cpu = Cpu::new();
    assert_eq!(cpu.write(index::EFER, 1 << 12).unwrap_err(), GP);
    assert_eq!(cpu.write(index::EFER, 0x901), Ok(Groups::EFER_PAT));
    // LMA cannot be written.
    assert_eq!((cpu.write(index::EFER, 0xd00), cpu.state.efer), (Ok(Groups::EFER_PAT), 0x900));
    cpu.state.cr0 |= 1 << 31;
    cpu.state.efer = 0xd00;
    assert_eq!(cpu.write(index::EFER, 0x800).unwrap_err(), GP);
    assert_eq!((cpu.write(index::EFER, 0x901), cpu.state.efer), (Ok(Groups::EFER_PAT), 0xd01));
    let needs = cpu.access(Groups::ACDB, |m, context| m.write(context, index::EFER, 0x901));
    assert_eq!(needs.unwrap_err(), Refusal::Need(Groups::EFER_PAT | Groups::CR));
}

#[test]
fn the_guests_own_registers_are_checked() {
    let mut cpu = Cpu::new();
    let far = 0x8000_0000_0000;
    for register in [0x175, 0x176, 0xc000_0082, 0xc000_0083, 0xc000_0100, 0xc000_0101, 0xc000_0102]
    {
        assert_eq!(cpu.write(register, far).unwrap_err(), GP, "{register:x}");
        assert!(cpu.write(register, !0 << 47).is_ok());
        assert_eq!(cpu.read(register), Ok(!0 << 47));
    }
    assert_eq!(cpu.write(index::TSC_AUX, 1 << 32).unwrap_err(), GP);
    assert_eq!(cpu.write(index::PAT, 0x0007_0406_0002_0406).unwrap_err(), GP);
    assert_eq!(cpu.write(index::PAT, 0x0001_0506_0007_0406), Ok(Groups::EFER_PAT));
    let needs = cpu.access(Groups::ACDB, |m, context| m.read(context, index::STAR));
    assert_eq!(needs, Err(Refusal::Need(Groups::SYSCALL)));
}

#[test]
fn the_local_apic_answers_for_its_range() {
    let mut cpu = Cpu::new();
    assert_eq!(cpu.read(0x1b), Ok(0xfee0_0900));
    assert_eq!(cpu.read(0x802), Err(GP), "xAPIC mode");
    assert_eq!(cpu.write(0x1b, 0xfee0_0d00), Ok(Groups::NONE));
    assert_eq!(cpu.read(0x802), Ok(0));
    assert_eq!(cpu.write(0x80b, 1).unwrap_err(), GP);
}

proptest! {
    /// MTRRs keep valid values and refuse all others.
    #[test]
    fn memory_types_are_checked(value: u64, shift in 0..64u32, kind: u8, register in prop::sample::select(vec![0x2ffu32, 0x200, 0x20f, 0x250, 0x259, 0x26f])) {
        let mut cpu = Cpu::new();
        let value = value >> shift & !0xff | u64::from(kind);
        let type_ok = |t: u8| [0, 1, 4, 5, 6].contains(&t);
        let ok = match register {
            0x2ff => type_ok(kind) && value & !0xcff == 0,
            0x200 => type_ok(kind) && value & 0xf00 == 0 && value >> 40 == 0,
            0x20f => value & 0x7ff == 0 && value >> 40 == 0,
            _ => value.to_le_bytes().into_iter().all(type_ok),
        };
        let before = cpu.read(register);
        prop_assert_eq!(cpu.write(register, value).is_ok(), ok);
        prop_assert_eq!(cpu.read(register), if ok { Ok(value) } else { before });
    }
}
