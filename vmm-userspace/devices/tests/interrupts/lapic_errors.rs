//! The error status register (SDM 3A 11.5.3).

use devices::lapic::{DeliveryMode, Gp, LocalApic, TriggerMode};

use crate::lapic::*;

const SEND_ILLEGAL: u32 = 1 << 5;
const RECEIVE_ILLEGAL: u32 = 1 << 6;
const ILLEGAL_ADDRESS: u32 = 1 << 7;

fn errors(apic: &mut LocalApic) -> u32 {
    put(apic, ESR, 0);
    get(apic, ESR)
}

fn bad_message() -> devices::lapic::Message {
    message(DeliveryMode::Fixed, 0xf, TriggerMode::Edge)
}

#[test]
fn a_write_shows_what_came_since_the_last_one() {
    let mut apic = xapic(0);
    assert_eq!(apic.deliver(&bad_message()), NOTHING);
    assert_eq!(get(&mut apic, ESR), 0, "not before a write");
    put(&mut apic, ESR, 0xffff_ffff);
    assert_eq!(get(&mut apic, ESR), RECEIVE_ILLEGAL);
    get(&mut apic, 0x0);
    assert_eq!(get(&mut apic, ESR), RECEIVE_ILLEGAL);
    put(&mut apic, ESR, 0);
    assert_eq!(get(&mut apic, ESR), ILLEGAL_ADDRESS);
    put(&mut apic, ESR, 0);
    assert_eq!(get(&mut apic, ESR), 0);
}

#[test]
fn reserved_addresses() {
    let reserved = (0..0x1000).step_by(16).filter(|offset| {
        !matches!(
            offset,
            0x20 | 0x30 | 0x80..=0x280 | 0x2f0..=0x390 | 0x3e0
        )
    });
    for offset in reserved {
        let mut apic = xapic(0);
        assert_eq!(get(&mut apic, offset), 0);
        assert_eq!(errors(&mut apic), ILLEGAL_ADDRESS, "read {offset:#x}");
        put(&mut apic, offset, 0);
        assert_eq!(errors(&mut apic), ILLEGAL_ADDRESS, "write {offset:#x}");
    }
    let mut apic = xapic(0);
    for offset in [0x20, 0x30, 0x90, 0xa0, 0xb0, 0xc0, 0x390] {
        get(&mut apic, offset);
        put(&mut apic, offset, 0);
    }
    assert_eq!(errors(&mut apic), 0, "APR and RRD are obsolete, not reserved");
}

#[test]
fn illegal_vectors_are_noted_by_sender_and_receiver() {
    for low in [0x4000, 0x400f, 0x4100, 0x4_4003] {
        let mut apic = xapic(0);
        let ipi = apic.write(ICR, low, at(0)).ipi.unwrap();
        assert_eq!(errors(&mut apic), SEND_ILLEGAL);
        assert_eq!(apic.deliver(&ipi.message), NOTHING);
        assert_eq!(errors(&mut apic), RECEIVE_ILLEGAL);
        assert_eq!(vectors(&mut apic, IRR), []);
    }
    // Only where the vector is one.
    for low in [0x4200, 0x4400, 0x4500, 0x4600] {
        let mut apic = xapic(0);
        assert!(apic.write(ICR, low, at(0)).ipi.is_some());
        assert_eq!(errors(&mut apic), 0);
    }
    let mut apic = x2apic(0);
    assert!(apic.write_msr(msr(SELF_IPI), 0xf, at(0)).is_ok());
    assert_eq!(apic.write_msr(msr(ESR), 0, at(0)), Ok(NOTHING));
    assert_eq!(apic.read_msr(msr(ESR), at(0)), Ok(SEND_ILLEGAL.into()));
}

#[test]
fn an_illegal_vector_in_the_table_is_noted_when_it_is_used() {
    let mut apic = xapic(0);
    put(&mut apic, LVT_TIMER, 0x0f);
    assert_eq!(errors(&mut apic), 0);
    put(&mut apic, INITIAL_COUNT, 5);
    apic.advance(at(100));
    assert_eq!(errors(&mut apic), RECEIVE_ILLEGAL);
}

#[test]
fn the_error_interrupt_comes_once_until_rearmed() {
    let mut apic = xapic(0);
    assert_eq!(apic.deliver(&bad_message()), NOTHING);
    put(&mut apic, LVT_ERROR, 0xe0);
    assert_eq!(vectors(&mut apic, IRR), [], "the error came while masked");
    assert_eq!(apic.deliver(&bad_message()), NOTHING);
    assert_eq!(apic.accept(), 0xe0);
    put(&mut apic, EOI, 0);
    get(&mut apic, 0x400);
    assert_eq!(apic.pending(), None);
    assert_eq!(errors(&mut apic), RECEIVE_ILLEGAL | ILLEGAL_ADDRESS);
    get(&mut apic, 0x400);
    assert_eq!(apic.accept(), 0xe0);
}

#[test]
fn an_error_interrupt_with_an_illegal_vector_is_one_more_error() {
    let mut apic = xapic(0);
    put(&mut apic, LVT_ERROR, 0x03);
    get(&mut apic, 0x400);
    assert_eq!(errors(&mut apic), ILLEGAL_ADDRESS | RECEIVE_ILLEGAL);
    assert_eq!(vectors(&mut apic, IRR), []);
}

#[test]
fn in_x2apic_mode_faults_are_not_logged() {
    let mut apic = x2apic(0);
    assert_eq!(apic.read_msr(0x800, at(0)), Err(Gp));
    assert_eq!(apic.write_msr(msr(ESR), 1, at(0)), Err(Gp));
    assert_eq!(apic.write_msr(msr(ESR), 0, at(0)), Ok(NOTHING));
    assert_eq!(apic.read_msr(msr(ESR), at(0)), Ok(0));
}
