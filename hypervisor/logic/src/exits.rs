//! From the exits of a processor to those of the neutral interface.

use abi::vcpu::Exit;

/// Exits whose numbers are `first` to `last`, and what they are to a VMM.
pub type Row = (usize, usize, Exit);

/// A table of the numbers of [`Exit`]s: what no row names is [`Exit::Other`].
#[allow(clippy::indexing_slicing, reason = "computed by the compiler, which would refuse it")]
pub const fn table<const N: usize>(rows: &[Row]) -> [u8; N] {
    let mut table = [Exit::Other as u8; N];
    let mut rest = rows;
    while let [(first, last, exit), tail @ ..] = rest {
        let mut number = *first;
        while number <= *last {
            table[number] = *exit as u8;
            number += 1;
        }
        rest = tail;
    }
    table
}
