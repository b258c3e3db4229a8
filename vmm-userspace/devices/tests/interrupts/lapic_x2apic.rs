//! Register availability and reserved bits: MMIO against MSR (SDM 3A 11.4.1, 11.12.1).

use devices::lapic::{Gp, IA32_APIC_BASE, IA32_TSC_DEADLINE, LocalApic, owns_msr};

use crate::lapic::*;

/// Table 11-6: number, readable, writable, bits that can be written without a fault.
fn x2apic_registers() -> Vec<(u32, bool, bool, u64)> {
    let mut registers = vec![
        (0x802, true, false, 0),
        (0x803, true, false, 0),
        (0x808, true, true, 0xff),
        (0x80a, true, false, 0),
        (0x80b, false, true, 0),
        (0x80d, true, false, 0),
        (0x80f, true, true, 0x11ff),
        (0x828, true, true, 0),
        (0x82f, true, true, 0x117ff),
        (0x830, true, true, 0xffff_ffff_000c_cfff),
        (0x832, true, true, 0x710ff),
        (0x833, true, true, 0x117ff),
        (0x834, true, true, 0x117ff),
        (0x835, true, true, 0x1f7ff),
        (0x836, true, true, 0x1f7ff),
        (0x837, true, true, 0x110ff),
        (0x838, true, true, 0xffff_ffff),
        (0x839, true, false, 0),
        (0x83e, true, true, 0xb),
        (0x83f, false, true, 0xff),
    ];
    registers.extend((0x810..=0x827).map(|n| (n, true, false, 0)));
    registers
}

#[test]
fn every_msr_of_the_range() {
    for index in 0x7f0..0x910 {
        let row = x2apic_registers().into_iter().find(|row| row.0 == index);
        let (_, readable, writable, bits) = row.unwrap_or((index, false, false, 0));
        let mut apic = x2apic(1);
        assert_eq!(apic.read_msr(index, at(0)).is_ok(), readable, "read {index:#x}");
        assert_eq!(apic.write_msr(index, 0, at(0)).is_ok(), writable, "write {index:#x}");
        for bit in 0..64 {
            let mut apic = x2apic(1);
            let before = apic.clone();
            let result = apic.write_msr(index, 1 << bit, at(0));
            if bits >> bit & 1 == 0 {
                assert_eq!(result, Err(Gp), "{index:#x} bit {bit}");
                assert_eq!(apic, before, "a fault has no effect");
            } else {
                assert!(result.is_ok(), "{index:#x} bit {bit}");
            }
        }
    }
}

#[test]
fn the_msrs_exist_in_x2apic_mode_only() {
    for mode in [EN, 0] {
        let mut apic = xapic(0);
        set_base(&mut apic, mode);
        for index in 0x800..0x900 {
            assert_eq!(apic.read_msr(index, at(0)), Err(Gp));
            assert_eq!(apic.write_msr(index, 0, at(0)), Err(Gp));
        }
    }
}

#[test]
fn optional_registers_are_reserved_without_their_feature() {
    let mut config = config(0);
    config.features.cmci = false;
    config.features.tsc_deadline = false;
    let mut apic = LocalApic::new(config);
    assert_eq!(apic.read_msr(IA32_TSC_DEADLINE, at(0)), Err(Gp));
    assert_eq!(apic.write_msr(IA32_TSC_DEADLINE, 0, at(0)), Err(Gp));
    put(&mut apic, LVT_TIMER, 0x7_0000);
    assert_eq!(get(&mut apic, LVT_TIMER), 0x3_0000);
    set_base(&mut apic, EN | EXTD);
    assert_eq!(apic.read_msr(msr(LVT_CMCI), at(0)), Err(Gp));
    assert_eq!(apic.write_msr(msr(LVT_TIMER), 0x4_0000, at(0)), Err(Gp));
}

#[test]
fn which_msrs_are_the_local_apics() {
    let owned = (0..0x2000).filter(|&index| owns_msr(index));
    let expected = [IA32_APIC_BASE, IA32_TSC_DEADLINE].into_iter().chain(0x800..0x900);
    assert!(owned.eq(expected));
    let mut apic = x2apic(0);
    assert_eq!(apic.read_msr(0x10, at(0)), Err(Gp));
    assert_eq!(apic.write_msr(0x10, 0, at(0)), Err(Gp));
}

#[test]
fn reserved_bits_are_ignored_in_xapic_mode() {
    for (register, writable, fixed) in [
        (ID, 0, 3 << 24),
        (VERSION, 0, 0x0106_0014),
        (TPR, 0xff, 0),
        (LDR, 0xff00_0000, 0),
        (DFR, 0xf000_0000, 0x0fff_ffff),
        (SVR, 0x11ff, 0),
        (ICR_HIGH, 0xff00_0000, 0),
        (LVT_CMCI, 0x107ff, 0),
        (LVT_TIMER, 0x700ff, 0),
        (LVT_THERMAL, 0x107ff, 0),
        (LVT_PERFORMANCE, 0x107ff, 0),
        (LVT_LINT0, 0x1a7ff, 0),
        (LVT_LINT1, 0x1a7ff, 0),
        (LVT_ERROR, 0x100ff, 0),
        (INITIAL_COUNT, u32::MAX, 0),
        (DIVIDE, 0xb, 0),
    ] {
        for value in [u32::MAX, 0, 0x5555_5555, 0xaaaa_aaaa] {
            let mut apic = xapic(3);
            put(&mut apic, register, value);
            assert_eq!(get(&mut apic, register), value & writable | fixed, "{register:#x}");
        }
    }
    let mut apic = xapic(3);
    let _ = apic.write(ICR, 0xffff_ffff, at(0));
    assert_eq!(get(&mut apic, ICR), 0x000c_cfff, "delivery status is idle");
    // None of that is an error.
    put(&mut apic, ESR, 0);
    assert_eq!(get(&mut apic, ESR), 0);
}

#[test]
fn accesses_beside_the_registers() {
    let mut apic = xapic(3);
    put(&mut apic, LVT_ERROR, 0x1_0000 | 0xfe);
    assert_eq!(get(&mut apic, LVT_ERROR + 1), 0x100);
    assert_eq!(get(&mut apic, LVT_ERROR + 2), 1);
    assert_eq!(get(&mut apic, LVT_ERROR + 3), 0);
    for byte in 4..16 {
        assert_eq!(get(&mut apic, LVT_ERROR + byte), 0);
    }
    for byte in 1..16 {
        put(&mut apic, LVT_ERROR + byte, 0x42);
    }
    assert_eq!(get(&mut apic, LVT_ERROR), 0x1_00fe);
    assert_eq!(get(&mut apic, 0x1000), u32::MAX);
    put(&mut apic, 0x1000 + TPR, 0xff);
    assert_eq!(get(&mut apic, TPR), 0);
}

#[test]
fn write_only_registers_read_as_zero_by_memory() {
    let mut apic = xapic(3);
    assert_eq!(get(&mut apic, EOI), 0);
    put(&mut apic, ESR, 0);
    assert_eq!(get(&mut apic, ESR), 0);
}

#[test]
fn ids() {
    for (id, ldr) in
        [(0, 0x0000_0001), (0xf, 0x0000_8000), (0x1f, 0x0001_8000), (0x12_3456, 0x2345_0040)]
    {
        let mut apic = x2apic(id);
        assert_eq!(apic.read_msr(msr(ID), at(0)), Ok(id.into()));
        assert_eq!(apic.read_msr(msr(LDR), at(0)), Ok(ldr));
    }
}
