//! Which of the modules is the kernel and which is the bundle.

use abi::bundle::{Bundle, BundleError, HYPERVISOR};

use crate::elf;
use crate::error::Error;
use crate::handoff::Module;
use crate::memory::PhysicalMemory;
use crate::span::{PAGE, Span};

/// Where the two things that are booted lie in physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The hypervisor's ELF file; may lie inside the bundle.
    pub kernel: Span,
    /// The bundle, handed to the kernel as its ramdisk.
    pub bundle: Option<Span>,
}

/// Picks by name (`hypervisor`, `bundle`), else by order: the kernel, then the bundle. A bundle
/// without a kernel module must have an entry `hypervisor`; QEMU's `-initrd` passes only one file.
///
/// # Errors
/// [`Error::NoKernel`] if there is none, [`Error::BadBundle`] for a damaged bundle,
/// [`Error::BadHandoff`] if a module lies where memory cannot be read.
pub fn select<M: PhysicalMemory>(memory: &M, modules: &[Module<'_>]) -> Result<Payload, Error> {
    let named = |name| modules.iter().find(|module| module.name() == name).map(|m| m.span);
    let (kernel, bundle) = match (named(HYPERVISOR), named("bundle")) {
        (None, None) => by_order(memory, modules)?,
        named => named,
    };
    let contents = match bundle {
        Some(span) => Some((span, open(memory, span)?)),
        None => None,
    };
    let kernel = match (kernel, contents) {
        (Some(kernel), _) => kernel,
        (None, Some((span, contents))) => {
            let entry = contents.find(HYPERVISOR).ok_or(Error::NoKernel)?;
            Span::new(span.start + entry.offset as u64, entry.data.len() as u64)
        }
        (None, None) => return Err(Error::NoKernel),
    };
    Ok(Payload { kernel, bundle })
}

/// The bundle at `span`, checked.
fn open<M: PhysicalMemory>(memory: &M, span: Span) -> Result<Bundle<'_>, Error> {
    if !span.start.is_multiple_of(PAGE) {
        return Err(Error::BadBundle("was not loaded at a page boundary"));
    }
    Bundle::parse(bytes(memory, span)?).map_err(|error| {
        Error::BadBundle(match error {
            BundleError::BadMagic => "does not start with its magic",
            BundleError::Truncated => "is cut off",
            BundleError::BadEntry(_) => "has a damaged entry",
        })
    })
}

/// Modules without names: a lone one may be either, of two the first is the kernel.
fn by_order<M: PhysicalMemory>(
    memory: &M,
    modules: &[Module<'_>],
) -> Result<(Option<Span>, Option<Span>), Error> {
    match modules {
        [] => Err(Error::NoKernel),
        [only] if bytes(memory, only.span)?.starts_with(elf::MAGIC) => Ok((Some(only.span), None)),
        [only] => Ok((None, Some(only.span))),
        [first, second, ..] => Ok((Some(first.span), Some(second.span))),
    }
}

/// The contents of a module.
///
/// # Errors
/// [`Error::BadHandoff`] if memory there cannot be read, or the span is empty.
pub fn bytes<M: PhysicalMemory>(memory: &M, span: Span) -> Result<&[u8], Error> {
    let found = if span.is_empty() { None } else { memory.bytes(span.start, span.length()) };
    found.ok_or(Error::BadHandoff("a module is empty or out of reach"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Memory, make_bundle};

    fn module(start: u64, length: usize, text: &str) -> Module<'_> {
        Module { span: Span::new(start, length as u64), text }
    }

    #[test]
    fn names_beat_order() {
        let bundle = make_bundle(&[("root", b"x")]);
        let memory = Memory::new(&[(0x1000, &bundle), (0x10_0000, b"\x7fELF...")]);
        let modules =
            [module(0x1000, bundle.len(), "bundle quiet"), module(0x10_0000, 7, "hypervisor")];
        let payload = select(&memory, &modules).unwrap();
        assert_eq!(payload.kernel, modules[1].span);
        assert_eq!(payload.bundle, Some(modules[0].span));
    }

    #[test]
    fn order_serves_without_names() {
        let bundle = make_bundle(&[("root", b"x")]);
        let memory = Memory::new(&[(0x1000, b"\x7fELF..."), (0x10_0000, &bundle)]);
        let modules = [module(0x1000, 7, ""), module(0x10_0000, bundle.len(), "")];
        let payload = select(&memory, &modules).unwrap();
        assert_eq!(payload.kernel, modules[0].span);
        assert_eq!(payload.bundle, Some(modules[1].span));
        let alone = select(&memory, &modules[..1]).unwrap();
        assert_eq!(alone, Payload { kernel: modules[0].span, bundle: None });
    }

    #[test]
    fn one_bundle_holds_the_kernel() {
        let bundle = make_bundle(&[("root", b"x"), ("hypervisor", b"\x7fELF...")]);
        let memory = Memory::new(&[(0x5000, &bundle)]);
        let payload = select(&memory, &[module(0x5000, bundle.len(), "")]).unwrap();
        assert_eq!(payload.kernel, Span::new(0x5000 + 0x2000, 7));
        assert_eq!(payload.bundle, Some(Span::new(0x5000, bundle.len() as u64)));
    }

    #[test]
    fn what_is_missing_is_said() {
        let bundle = make_bundle(&[("root", b"x")]);
        let memory = Memory::new(&[(0x5000, &bundle), (0x2_0800, &bundle), (0x9000, b"\x7fELF")]);
        assert_eq!(select(&memory, &[]), Err(Error::NoKernel));
        let only = [module(0x5000, bundle.len(), "")];
        assert_eq!(select(&memory, &only), Err(Error::NoKernel));
        let odd = [module(0x2_0800, bundle.len(), "bundle")];
        let unaligned = Error::BadBundle("was not loaded at a page boundary");
        assert_eq!(select(&memory, &odd), Err(unaligned));
        let not_a_bundle = [module(0x9000, 4, "bundle")];
        let no_magic = Error::BadBundle("does not start with its magic");
        assert_eq!(select(&memory, &not_a_bundle), Err(no_magic));
        let cut = [module(0x5000, 4096, "bundle")];
        assert_eq!(select(&memory, &cut), Err(Error::BadBundle("is cut off")));
        let out_of_reach = [module(0x4000_0000, 4, "")];
        assert!(matches!(select(&memory, &out_of_reach), Err(Error::BadHandoff(_))));
    }
}
