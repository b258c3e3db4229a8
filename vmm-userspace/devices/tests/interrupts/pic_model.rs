//! The first 8259A against a model that takes the data sheet's definitions literally: a list of
//! levels from highest to lowest priority, and a search over it.

use devices::pic::{ELCR_MASTER, MASTER_COMMAND, MASTER_DATA, Pic};
use proptest::prelude::*;

use crate::pic::initialized;

#[derive(Default)]
struct Model {
    order: Vec<u8>,
    line: [bool; 8],
    edge: [bool; 8],
    level_mode: [bool; 8],
    masked: [bool; 8],
    in_service: [bool; 8],
    special_mask: bool,
    auto_eoi: bool,
    rotate_auto: bool,
}

impl Model {
    fn new(auto_eoi: bool) -> Self {
        Self { order: (0..8).collect(), auto_eoi, ..Self::default() }
    }

    fn make_lowest(&mut self, level: u8) {
        while self.order[7] != level {
            self.order.rotate_left(1);
        }
    }

    fn rank(&self, level: usize) -> usize {
        self.order.iter().position(|&l| usize::from(l) == level).unwrap()
    }

    fn counts(&self, level: usize) -> bool {
        self.in_service[level] && !(self.special_mask && self.masked[level])
    }

    fn requested(&self, level: usize) -> bool {
        if self.level_mode[level] { self.line[level] } else { self.edge[level] }
    }

    fn winner(&self) -> Option<usize> {
        (0..8)
            .filter(|&level| self.requested(level) && !self.masked[level])
            .filter(|&level| {
                !(0..8).any(|other| self.counts(other) && self.rank(other) <= self.rank(level))
            })
            .min_by_key(|&level| self.rank(level))
    }

    fn set_line(&mut self, level: usize, high: bool) {
        if !high {
            self.edge[level] = false;
        } else if !self.line[level] && !self.level_mode[level] {
            self.edge[level] = true;
        }
        self.line[level] = high;
    }

    fn acknowledge(&mut self) -> Option<usize> {
        let level = self.winner()?;
        self.edge[level] = false;
        if !self.auto_eoi {
            self.in_service[level] = true;
        } else if self.rotate_auto {
            self.make_lowest(level as u8);
        }
        Some(level)
    }

    fn ocw2(&mut self, command: u8, level: u8) {
        let highest = (0..8).filter(|&l| self.counts(l)).min_by_key(|&l| self.rank(l));
        match (command, highest) {
            (0b001, Some(highest)) => self.in_service[highest] = false,
            (0b101, Some(highest)) => {
                self.in_service[highest] = false;
                self.make_lowest(highest as u8);
            }
            (0b011, _) => self.in_service[usize::from(level)] = false,
            (0b111, _) => {
                self.in_service[usize::from(level)] = false;
                self.make_lowest(level);
            }
            (0b110, _) => self.make_lowest(level),
            (0b100, _) => self.rotate_auto = true,
            (0b000, _) => self.rotate_auto = false,
            _ => {}
        }
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Line(u8, bool),
    Mask(u8),
    LevelMode(u8),
    Ocw2(u8, u8),
    SpecialMask(bool),
    Acknowledge,
    Poll,
}

fn operation() -> impl Strategy<Value = Operation> {
    let line = prop::sample::select(vec![0u8, 1, 3, 4, 5, 6, 7]);
    prop_oneof![
        4 => (line, any::<bool>()).prop_map(|(line, high)| Operation::Line(line, high)),
        1 => any::<u8>().prop_map(Operation::Mask),
        1 => any::<u8>().prop_map(Operation::LevelMode),
        3 => (0u8..8, 0u8..8).prop_map(|(command, level)| Operation::Ocw2(command, level)),
        1 => any::<bool>().prop_map(Operation::SpecialMask),
        3 => Just(Operation::Acknowledge),
        1 => Just(Operation::Poll),
    ]
}

fn bits(of: impl Fn(usize) -> bool) -> u8 {
    (0..8).fold(0, |bits, level| bits | u8::from(of(level)) << level)
}

fn apply(pic: &mut Pic, model: &mut Model, operation: &Operation) -> Result<(), TestCaseError> {
    match *operation {
        Operation::Line(line, high) => {
            pic.set_irq(line, high);
            model.set_line(line.into(), high);
        }
        Operation::Mask(mask) => {
            pic.write(MASTER_DATA, mask);
            model.masked = std::array::from_fn(|level| mask >> level & 1 != 0);
        }
        Operation::LevelMode(mask) => {
            let mask = mask & 0xf8;
            pic.write(ELCR_MASTER, mask);
            model.level_mode = std::array::from_fn(|level| mask >> level & 1 != 0);
            for level in 0..8 {
                model.edge[level] &= !model.level_mode[level];
            }
        }
        Operation::Ocw2(command, level) => {
            pic.write(MASTER_COMMAND, command << 5 | level);
            model.ocw2(command, level);
        }
        Operation::SpecialMask(on) => {
            pic.write(MASTER_COMMAND, 0x48 | u8::from(on) << 5);
            model.special_mask = on;
        }
        Operation::Acknowledge => {
            let expected = model.acknowledge().unwrap_or(7) as u8;
            prop_assert_eq!(pic.ack(), 0x30 | expected);
        }
        Operation::Poll => {
            pic.write(MASTER_COMMAND, 0x0c);
            let expected = model.acknowledge().map_or(0, |level| 0x80 | level as u8);
            prop_assert_eq!(pic.read(MASTER_COMMAND), expected);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn priorities(auto_eoi: bool, operations in prop::collection::vec(operation(), 1..80)) {
        let mut pic = initialized(if auto_eoi { 3 } else { 1 });
        let mut model = Model::new(auto_eoi);
        for operation in &operations {
            apply(&mut pic, &mut model, operation)?;
            prop_assert_eq!(pic.intr(), model.winner().is_some());
            pic.write(MASTER_COMMAND, 0x0b);
            prop_assert_eq!(pic.read(MASTER_COMMAND), bits(|level| model.in_service[level]));
            pic.write(MASTER_COMMAND, 0x0a);
            prop_assert_eq!(pic.read(MASTER_COMMAND), bits(|level| model.requested(level)));
        }
    }

    #[test]
    fn anything_goes(
        operations in prop::collection::vec((0u8..4, any::<u8>(), any::<bool>(), 0usize..6), 1..200),
    ) {
        const PORTS: [u16; 6] = [0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1];
        let mut pic = Pic::new();
        for (kind, value, high, port) in operations {
            match kind {
                0 => pic.set_irq(value & 15, high),
                1 => pic.write(PORTS[port], value),
                2 => { pic.read(PORTS[port]); }
                _ => { pic.ack(); }
            }
        }
        let bytes = postcard::to_allocvec(&pic).unwrap();
        prop_assert_eq!(&postcard::from_bytes::<Pic>(&bytes).unwrap(), &pic);
    }
}
