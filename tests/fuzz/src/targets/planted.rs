//! Programs with one bug each, of the kinds that a campaign has to find.

use super::Target;
use crate::input::Input;

/// All of them.
pub const TARGETS: &[Target] = &[
    planted("planted-panic", behind_checks),
    planted("planted-overflow", overflow),
    planted("planted-stack", endless_recursion),
    planted("planted-memory", believed_length),
    planted("planted-loop", endless_loop),
];

const fn planted(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, longest: 64, dictionary: &[], seeds, run }
}

/// Nothing of what the programs look for.
fn seeds() -> Vec<Vec<u8>> {
    vec![vec![0; 24]]
}

/// What each bug hides behind: a magic number of 32 bits, a length that fits, and a kind.
fn checked(bytes: &[u8]) -> Option<Input<'_>> {
    let mut input = Input::new(bytes);
    if input.u32() != 0x4652_5a31 {
        return None;
    }
    let length = usize::from(input.u16());
    if length < 12 || length > bytes.len() {
        return None;
    }
    (input.byte() == 0xe7).then_some(input)
}

fn behind_checks(bytes: &[u8]) {
    if let Some(mut input) = checked(bytes)
        && input.u16() == 0xbeef
    {
        panic!("found");
    }
}

fn overflow(bytes: &[u8]) {
    if let Some(mut input) = checked(bytes) {
        let (offset, length) = (input.u32(), 0x1000);
        std::hint::black_box(offset + length);
    }
}

fn endless_recursion(bytes: &[u8]) {
    fn depth(left: u64) -> u64 {
        let here = std::hint::black_box([left; 64]);
        if left == 0 { 0 } else { depth(here[7] - 1) + here[1] }
    }
    if let Some(mut input) = checked(bytes) {
        std::hint::black_box(depth(input.u32().into()));
    }
}

fn believed_length(bytes: &[u8]) {
    if let Some(mut input) = checked(bytes) {
        let length = input.u32() as usize;
        std::hint::black_box(Vec::<u8>::with_capacity(length));
    }
}

fn endless_loop(bytes: &[u8]) {
    if let Some(mut input) = checked(bytes) {
        let step = input.byte();
        let mut at = 0_u64;
        // A record of length zero is never passed.
        while at < 64 {
            at += u64::from(std::hint::black_box(step));
        }
    }
}
