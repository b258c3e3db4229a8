//! Encoding and decoding, from outside.

use config::{
    CONSOLE_INTERRUPT, CONSOLE_PORTS, DecodeError, Invalid, MAX_CPU, MAX_CPUS, MAX_INTERRUPT,
    MAX_PRIORITY, OnEnd, PAGE_SIZE, Partition, Place, Ports, Restart, System, VERSION, decode,
    encode,
};
use proptest::prelude::*;

fn partition() -> Partition {
    Partition {
        name: "linux".into(),
        vmm: "vmm".into(),
        memory: 256 << 20,
        cpus: 1,
        cpu: Place::Cpu(0),
        priority: 64,
        budget_us: 10_000,
        period_us: 10_000,
        kernel: Some("vmlinuz".into()),
        initrd: Some("busybox".into()),
        cmdline: "console=ttyS0".into(),
        args: String::new(),
        restart: Restart::OnFailure,
        console: true,
        ports: vec![Ports { first: 0x40, last: 0x43 }, Ports { first: 0x61, last: 0x61 }],
        interrupts: vec![2, 8],
    }
}

fn system(partitions: Vec<Partition>) -> System {
    System { name: "test".into(), on_end: OnEnd::Reboot, partitions }
}

prop_compose! {
    fn any_partition()(
        vmm in "[a-z]{1,8}",
        pages in 1u64..1 << 20,
        cpus in 1..=MAX_CPUS,
        cpu in prop_oneof![Just(Place::All), (0..=MAX_CPU).prop_map(Place::Cpu)],
        priority in 1..=MAX_PRIORITY,
        budget_us in 1u64..1_000_000,
        slack in 0u64..1_000_000,
        guest in proptest::option::of(("[a-z]{0,9}", proptest::option::of("[a-z]{0,9}"))),
        (cmdline, args) in (".{0,40}", ".{0,40}"),
        restart in prop_oneof![
            Just(Restart::Never), Just(Restart::Always), Just(Restart::OnFailure)
        ],
        console: bool,
    ) -> Partition {
        let (kernel, initrd) = guest.map_or((None, None), |(k, i)| (Some(k), i));
        Partition {
            name: String::new(), vmm, memory: pages * PAGE_SIZE, cpus, cpu, priority, budget_us,
            period_us: budget_us + slack, kernel, initrd, cmdline, args, restart, console,
            ports: vec![], interrupts: vec![],
        }
    }
}

proptest! {
    #[test]
    fn what_is_encoded_comes_back(mut partitions in proptest::collection::vec(any_partition(), 0..5)) {
        for (index, partition) in partitions.iter_mut().enumerate() {
            partition.name = format!("p{index}");
        }
        let system = system(partitions);
        let bytes = encode(&system).unwrap();
        prop_assert_eq!(decode(&bytes), Ok(system));
    }

    #[test]
    fn a_cut_encoding_is_an_error(cut in 0usize..80) {
        let bytes = encode(&system(vec![partition()])).unwrap();
        prop_assume!(cut < bytes.len());
        prop_assert!(decode(&bytes[..cut]).is_err());
    }

    #[test]
    fn garbage_never_panics_and_never_breaks_a_rule(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = vec![VERSION];
        bytes.extend(body);
        if let Ok(system) = decode(&bytes) {
            prop_assert_eq!(system.check(), Ok(()));
        }
    }

    #[test]
    fn a_flipped_bit_never_breaks_a_rule(at in 0usize..80, bit in 0u8..8) {
        let mut bytes = encode(&system(vec![partition()])).unwrap();
        prop_assume!(at < bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(system) = decode(&bytes) {
            prop_assert_eq!(system.check(), Ok(()));
        }
    }
}

#[test]
fn bad_bytes_are_told_apart() {
    assert_eq!(decode(&[]), Err(DecodeError::Empty));
    assert_eq!(decode(&[VERSION + 1]), Err(DecodeError::Version(VERSION + 1)));
    assert_eq!(decode(&[VERSION]), Err(DecodeError::Malformed));
    let mut bytes = encode(&system(vec![])).unwrap();
    bytes.extend([0, 0]);
    assert_eq!(decode(&bytes), Err(DecodeError::Trailing(2)));
}

#[test]
fn a_huge_length_is_an_error_not_an_allocation() {
    // Name of length 2^63 - 1.
    let bytes = [VERSION, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    assert_eq!(decode(&bytes), Err(DecodeError::Malformed));
    // No name, power-off, and a list of that length.
    let bytes = [VERSION, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    assert_eq!(decode(&bytes), Err(DecodeError::Malformed));
}

#[test]
fn each_rule_is_checked_both_ways() {
    type Spoil = fn(&mut Partition);
    let cases: [(Spoil, Invalid); 18] = [
        (|p| p.name.clear(), Invalid::Name(0)),
        (|p| p.vmm.clear(), Invalid::Vmm(0)),
        (|p| p.memory += 1, Invalid::Memory(0)),
        (|p| p.cpus = 0, Invalid::Cpus(0)),
        (|p| p.cpus = MAX_CPUS + 1, Invalid::Cpus(0)),
        (|p| p.cpu = Place::Cpu(MAX_CPU + 1), Invalid::Cpu(0)),
        (|p| p.priority = 0, Invalid::Priority(0)),
        (|p| p.priority = MAX_PRIORITY + 1, Invalid::Priority(0)),
        (|p| p.budget_us = 0, Invalid::Budget(0)),
        (|p| p.budget_us = p.period_us + 1, Invalid::Budget(0)),
        (|p| p.memory = 0, Invalid::Guest(0)),
        (|p| p.kernel = None, Invalid::Guest(0)),
        (|p| p.ports.push(Ports { first: 2, last: 1 }), Invalid::Ports(0)),
        (|p| p.ports.push(Ports { first: 0x30, last: 0x40 }), Invalid::Ports(0)),
        (|p| p.ports.push(Ports { first: 0, last: CONSOLE_PORTS.first }), Invalid::Ports(0)),
        (|p| p.interrupts.push(MAX_INTERRUPT + 1), Invalid::Interrupts(0)),
        (|p| p.interrupts.push(8), Invalid::Interrupts(0)),
        (|p| p.interrupts.push(CONSOLE_INTERRUPT), Invalid::Interrupts(0)),
    ];
    assert!(encode(&system(vec![partition()])).is_ok());
    for (spoil, expected) in cases {
        let mut spoiled = partition();
        spoil(&mut spoiled);
        assert_eq!(encode(&system(vec![spoiled])), Err(expected));
    }
    assert_eq!(encode(&system(vec![partition(), partition()])), Err(Invalid::Name(1)));
    let other = Partition { name: "other".into(), ..partition() };
    assert_eq!(encode(&system(vec![partition(), other.clone()])), Err(Invalid::Ports(1)));
    let other = Partition { ports: vec![], ..other };
    assert_eq!(encode(&system(vec![partition(), other.clone()])), Err(Invalid::Interrupts(1)));
    let other = Partition { interrupts: vec![3], ..other };
    assert!(encode(&system(vec![partition(), other])).is_ok());
}

#[test]
fn decoding_checks_the_rules_too() {
    let mut bytes = encode(&system(vec![partition()])).unwrap();
    // The name is "linux" with its length before it; make it empty and the task's name longer.
    let at = bytes.windows(6).position(|w| w == b"\x05linux").unwrap();
    bytes.splice(at..at + 6, [0]);
    assert_eq!(decode(&bytes), Err(DecodeError::Invalid(Invalid::Name(0))));
}

#[test]
fn a_place_names_only_cpus_that_are_there() {
    let cases = [
        (Place::Cpu(0), 1, 0b1),
        (Place::Cpu(1), 1, 0),
        (Place::Cpu(1), 2, 0b10),
        (Place::Cpu(63), 64, 1 << 63),
        (Place::Cpu(64), 100, 0),
        (Place::All, 1, 0b1),
        (Place::All, 8, 0xff),
        (Place::All, 64, u64::MAX),
        (Place::All, 1000, u64::MAX),
    ];
    for (place, cpus, usable) in cases {
        assert_eq!(place.usable(cpus), usable, "{place:?} of {cpus}");
    }
}
