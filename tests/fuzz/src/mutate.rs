//! Making a new input out of old ones.

use crate::compares;
use crate::random::Random;

/// Numbers at which lengths and offsets go wrong.
const EDGES: [u64; 16] = [
    0,
    1,
    2,
    8,
    16,
    36,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x7fff_ffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0xffff_ffff_ffff_f000,
    u64::MAX,
];

/// What a mutation draws from.
#[derive(Debug)]
pub struct Mutator<'a> {
    /// Chooses.
    pub random: Random,
    /// Words of the format.
    pub dictionary: &'a [&'a [u8]],
    /// The longest input that is made, in bytes.
    pub longest: usize,
}

impl Mutator<'_> {
    /// Changes `input` in one to sixteen small ways. `other` is an input to take pieces from.
    pub fn mutate(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..1 << self.random.below(5) {
            self.step(input, other);
        }
        input.truncate(self.longest);
    }

    fn step(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        match self.random.below(14) {
            0 => self.flip(input),
            1 => {
                let byte = self.random.next() as u8;
                self.overwrite(input, &[byte]);
            }
            2 | 3 => self.number(input),
            4 | 5 => self.add(input),
            6 => self.delete(input),
            7 => self.repeat(input),
            8 => {
                let count = 1 + self.random.below(16);
                let fill = if self.random.one_in(2) { 0 } else { self.random.next() as u8 };
                self.insert(input, &vec![fill; count]);
            }
            9 => self.splice(input, other),
            10 => {
                let word = self.random.below(self.dictionary.len());
                let Some(word) = self.dictionary.get(word) else { return };
                if self.random.one_in(2) {
                    self.insert(input, word);
                } else {
                    self.overwrite(input, word);
                }
            }
            _ => self.satisfy(input),
        }
    }

    fn flip(&mut self, input: &mut [u8]) {
        let at = self.random.below(input.len());
        if let Some(byte) = input.get_mut(at) {
            *byte ^= 1 << self.random.below(8);
        }
    }

    /// Puts an odd number of 1, 2, 4 or 8 bytes somewhere.
    fn number(&mut self, input: &mut Vec<u8>) {
        let width = 1 << self.random.below(4);
        let which = self.random.below(EDGES.len());
        let number = EDGES[which].to_le_bytes();
        let number = number.get(..width).unwrap_or(&number);
        self.overwrite(input, number);
    }

    /// Adds a small number to a field of 1, 2, 4 or 8 bytes.
    fn add(&mut self, input: &mut [u8]) {
        let width = 1 << self.random.below(4);
        let at = self.random.below(input.len().saturating_sub(width - 1));
        let Some(field) = input.get_mut(at..at + width) else { return };
        let mut number = [0; 8];
        number[..width].copy_from_slice(field);
        let difference = 1 + self.random.below(35) as u64;
        let number = u64::from_le_bytes(number);
        let sum = if self.random.one_in(2) {
            number.wrapping_add(difference)
        } else {
            number.wrapping_sub(difference)
        };
        field.copy_from_slice(&sum.to_le_bytes()[..width]);
    }

    fn delete(&mut self, input: &mut Vec<u8>) {
        let piece = self.piece(input.len());
        input.drain(piece);
    }

    fn repeat(&mut self, input: &mut Vec<u8>) {
        let piece = self.piece(input.len());
        let piece = input.get(piece).unwrap_or_default().to_vec();
        if self.random.one_in(2) {
            self.insert(input, &piece);
        } else {
            self.overwrite(input, &piece);
        }
    }

    fn splice(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        if self.random.one_in(3) {
            // The start of one and the end of the other.
            let (cut, from) = (self.random.below(input.len()), self.random.below(other.len()));
            input.truncate(cut);
            input.extend(other.get(from..).unwrap_or_default());
            return;
        }
        let piece = self.piece(other.len());
        let piece = other.get(piece).unwrap_or_default();
        if self.random.one_in(2) {
            self.insert(input, piece);
        } else {
            self.overwrite(input, piece);
        }
    }

    /// Gives a comparison that was seen what it asks for, if its operand is found in the input.
    fn satisfy(&mut self, input: &mut [u8]) {
        let start = self.random.below(256);
        let Some(compare) = (0..256).find_map(|step| compares::get(start + step)) else { return };
        let (have, want) = if self.random.one_in(2) {
            (compare.have, compare.want)
        } else {
            (compare.want, compare.have)
        };
        // One more and one less are the other sides of "below" and "above".
        let want = match self.random.below(6) {
            0 => want.wrapping_add(1),
            1 => want.wrapping_sub(1),
            _ => want,
        };
        let (have, want) = (have.to_le_bytes(), want.to_le_bytes());
        let mut width = usize::from(compare.bytes.min(8));
        // A field may have been widened before it was compared.
        while width > 1 && self.random.one_in(2) && have[width / 2..width].iter().all(|b| *b == 0) {
            width /= 2;
        }
        let places: Vec<usize> = (0..input.len().saturating_sub(width.saturating_sub(1)))
            .filter(|at| input[*at..].starts_with(&have[..width]))
            .collect();
        let which = self.random.below(places.len());
        if let Some(at) = places.get(which) {
            input[*at..*at + width].copy_from_slice(&want[..width]);
        }
    }

    fn overwrite(&mut self, input: &mut Vec<u8>, bytes: &[u8]) {
        let at = self.random.below(input.len() + 1);
        let end = (at + bytes.len()).min(self.longest);
        if input.len() < end {
            input.resize(end, 0);
        }
        for (to, from) in input.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    }

    fn insert(&mut self, input: &mut Vec<u8>, bytes: &[u8]) {
        if input.len() + bytes.len() <= self.longest {
            let at = self.random.below(input.len() + 1);
            input.splice(at..at, bytes.iter().copied());
        }
    }

    /// A piece of something that long, more often short than long.
    fn piece(&mut self, length: usize) -> std::ops::Range<usize> {
        let most = if self.random.one_in(4) { length } else { length.min(32) };
        let size = self.random.below(most + 1);
        let start = self.random.below(length - size + 1);
        start..start + size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutator(longest: usize) -> Mutator<'static> {
        Mutator { random: Random::new(3), dictionary: &[b"MAGIC", b""], longest }
    }

    #[test]
    fn an_input_never_gets_too_long() {
        let mut mutator = mutator(100);
        let mut input = Vec::new();
        let mut longest = 0;
        for _ in 0..20_000 {
            mutator.mutate(&mut input, b"something else to take pieces from");
            assert!(input.len() <= 100);
            longest = longest.max(input.len());
        }
        assert_eq!(longest, 100, "and it does get that long");
    }

    #[test]
    fn words_of_the_dictionary_come_up() {
        let mut mutator = mutator(64);
        let found = (0..2_000).any(|_| {
            let mut input = vec![0; 20];
            mutator.mutate(&mut input, &[]);
            input.windows(5).any(|window| window == b"MAGIC")
        });
        assert!(found);
    }
}
