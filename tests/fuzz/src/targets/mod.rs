//! What is fuzzed: one file for each format.

mod acpi;
mod bundle;
mod console;
mod elf;
mod emulate;
mod linux;
mod loader;
mod multiboot2;
mod paging;
mod planted;
mod program;
mod pvh;
mod ring;
mod startup;
mod system;
mod utcb;

/// A program that reads an input, and what is known about its format.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name on the command line, and of its folder in `corpus/`.
    pub name: &'static str,
    /// The longest input that makes sense, in bytes.
    pub longest: usize,
    /// Words of the format that a comparison does not give away.
    pub dictionary: &'static [&'static [u8]],
    /// Sound inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Reads an input. A panic is a bug, and so is taking long.
    pub run: fn(&[u8]),
}

/// Everything that reads bytes from outside.
pub const TARGETS: &[Target] = &[
    acpi::KERNEL,
    acpi::POWER,
    bundle::TARGET,
    console::TARGET,
    elf::TARGET,
    emulate::TARGET,
    linux::TARGET,
    multiboot2::TARGET,
    paging::TARGET,
    program::TARGET,
    pvh::TARGET,
    ring::TARGET,
    startup::TARGET,
    system::TARGET,
    utcb::TARGET,
];

/// Programs with known bugs, which show that bugs are found.
pub const PLANTED: &[Target] = planted::TARGETS;

/// The target of that name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().chain(PLANTED).find(|target| target.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_seeds_are_inputs() {
        for (index, target) in TARGETS.iter().chain(PLANTED).enumerate() {
            let earlier = TARGETS.iter().chain(PLANTED).take(index);
            assert!(earlier.into_iter().all(|other| other.name != target.name), "{}", target.name);
            let seeds = (target.seeds)();
            assert!(!seeds.is_empty(), "{} has no seed", target.name);
            for seed in seeds {
                assert!(seed.len() <= target.longest, "{} has a seed too long", target.name);
            }
        }
    }

    #[test]
    fn seeds_and_nothing_at_all_are_survived() {
        for target in TARGETS {
            (target.run)(&[]);
            (target.seeds)().iter().for_each(|seed| (target.run)(seed));
        }
    }
}
