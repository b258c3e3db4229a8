//! Leaf 0xd: the XSAVE area (SDM 1 13.2).

use alloc::vec::Vec;

use super::{Registers, policy};

/// Legacy region and header.
const BASE: u32 = 576;

/// The subleaves for the state components that the policy allows.
pub fn subleaves(host: &mut impl FnMut(u32, u32) -> Registers) -> Vec<Registers> {
    let [supported, ..] = host(0xd, 0);
    let components = supported & policy::XCR0;
    let last = 32 - components.leading_zeros();
    let mut leaves =
        alloc::vec![[components, 0, 0, 0], [host(0xd, 1)[0] & policy::LD_1_EAX, 0, 0, 0]];
    for component in 2..last {
        let allowed = components & 1 << component != 0;
        leaves.push(if allowed { host(0xd, component) } else { [0; 4] });
    }
    let max = standard_size(&leaves, components);
    if let Some([_, _, ecx, _]) = leaves.first_mut() {
        *ecx = max;
    }
    leaves
}

/// Sets the sizes that depend on XCR0: EBX of subleaves 0 and 1.
pub fn set_sizes(leaves: &mut [Registers], xcr0: u64) {
    let enabled = xcr0 as u32;
    let (standard, compacted) = (standard_size(leaves, enabled), compacted_size(leaves, enabled));
    if let [first, second, ..] = leaves {
        first[1] = standard;
        // XSAVEC tells whether there is a compacted form.
        second[1] = if second[0] & 2 != 0 { compacted } else { 0 };
    }
}

/// End of the last enabled component in the standard form.
fn standard_size(leaves: &[Registers], enabled: u32) -> u32 {
    components(leaves, enabled)
        .map(|[size, offset, ..]| offset.saturating_add(*size))
        .max()
        .map_or(BASE, |end| end.max(BASE))
}

/// Size of the compacted form: components follow each other, aligned to 64 bytes where ECX bit 1 says so.
fn compacted_size(leaves: &[Registers], enabled: u32) -> u32 {
    components(leaves, enabled).fold(BASE, |end, [size, _, flags, _]| {
        let start = if flags & 2 != 0 { end.next_multiple_of(64) } else { end };
        start.saturating_add(*size)
    })
}

fn components(leaves: &[Registers], enabled: u32) -> impl Iterator<Item = &Registers> {
    leaves
        .iter()
        .enumerate()
        .skip(2)
        .filter(move |(component, _)| enabled & 1 << component != 0)
        .map(|(_, registers)| registers)
}
