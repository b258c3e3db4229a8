//! That no way through ring 0 ends in a panic, read off the finished kernel: which functions call the library's panic functions.
//!
//! The lints of the kernel's crates refuse what can be seen to panic in the source. What the compiler adds, checks of indices and lengths
//! among it, is in the instructions only where it could not prove that the check holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use miette::{IntoDiagnostic, Result, bail};

/// Functions that may panic, by a part of their names, and why that is no way to bring a running kernel down.
const ALLOWED: [(&str, &str); 2] = [
    (
        "hypervisor::boot::",
        "no task and no guest runs yet: a machine that cannot be used is refused",
    ),
    (
        "spin::once::Once",
        "each value is set at boot; only the first call, which sets it, comes here",
    ),
];

/// What a panic in ring 0 ends in.
const PANIC: &str = "core::panicking::panic_fmt";
/// Functions that ring 0 has; without them what was read is not the kernel.
const EXPECTED: [&str; 3] =
    [PANIC, "hypervisor::ipc::call", "hypervisor::arch::x86_64::trap::trap"];

/// Calls and jumps from function to function.
type Calls = BTreeMap<String, BTreeSet<String>>;

/// Looks at a kernel with symbols.
///
/// # Errors
/// Names the functions that can panic and may not.
pub fn check(kernel: &Path) -> Result<()> {
    let output = Command::new("objdump")
        .args(["-d", "-C", "--no-show-raw-insn"])
        .arg(kernel)
        .output()
        .into_diagnostic()?;
    let calls = calls(&String::from_utf8_lossy(&output.stdout));
    if let Some(missing) = EXPECTED.iter().find(|name| !calls.contains_key(**name)) {
        bail!("{} has no function {missing}", kernel.display());
    }
    let found = panicking(&calls);
    if !found.is_empty() {
        bail!("in the kernel these functions can panic: {}", found.join(", "));
    }
    Ok(())
}

/// Reads a disassembly.
fn calls(disassembly: &str) -> Calls {
    let mut calls = Calls::new();
    let mut current = String::new();
    for line in disassembly.lines() {
        if let Some(name) = line.strip_suffix(">:").and_then(|line| line.split_once(" <")) {
            current = name.1.to_owned();
            calls.entry(current.clone()).or_default();
        } else if let Some(target) = target(line)
            && target != current
        {
            calls.entry(current.clone()).or_default().insert(target.to_owned());
        }
    }
    calls
}

/// The function that an instruction calls or jumps to.
fn target(line: &str) -> Option<&str> {
    let (_, instruction) = line.split_once(":\t")?;
    let (mnemonic, operand) = instruction.split_once(char::is_whitespace)?;
    if mnemonic != "call" && !mnemonic.starts_with('j') {
        return None;
    }
    let name = operand.split_once('<')?.1.strip_suffix('>')?;
    Some(name.rsplit_once("+0x").map_or(name, |(name, _)| name))
}

/// The functions outside of the library that call one of it that panics, directly or not, and are not allowed to.
fn panicking(calls: &Calls) -> Vec<String> {
    let mut panics = BTreeSet::from([PANIC]);
    loop {
        let more: Vec<&str> = calls
            .iter()
            .filter(|(caller, callees)| {
                is_library(caller)
                    && !panics.contains(caller.as_str())
                    && callees.iter().any(|callee| panics.contains(callee.as_str()))
            })
            .map(|(caller, _)| caller.as_str())
            .collect();
        if more.is_empty() {
            break;
        }
        panics.extend(more);
    }
    let allowed = |name: &str| ALLOWED.iter().any(|(part, _)| name.contains(part));
    calls
        .iter()
        .filter(|(caller, callees)| {
            !is_library(caller)
                && !allowed(caller)
                && callees.iter().any(|callee| panics.contains(callee.as_str()))
        })
        .map(|(caller, _)| caller.clone())
        .collect()
}

fn is_library(name: &str) -> bool {
    name.trim_start_matches('<').starts_with("core::")
        && !name.contains("hypervisor::")
        && !name.contains("hypervisor_logic::")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISASSEMBLY: &str = "\
ffffffff80000000 <hypervisor::ipc::call>:
ffffffff80000000:\tcall   ffffffff80000040 <hypervisor::object::lookup>
ffffffff80000005:\tjne    ffffffff80000010 <hypervisor::ipc::call+0x10>
ffffffff80000010:\tret
ffffffff80000040 <hypervisor::object::lookup>:
ffffffff80000040:\tjmp    ffffffff80000080 <core::slice::copy_from_slice_impl::len_mismatch_fail>
ffffffff80000080 <core::slice::copy_from_slice_impl::len_mismatch_fail>:
ffffffff80000080:\tcall   ffffffff800000c0 <core::panicking::panic_fmt>
ffffffff800000a0 <hypervisor::boot::launch>:
ffffffff800000a0:\tcall   ffffffff800000c0 <core::panicking::panic_fmt>
ffffffff800000c0 <core::panicking::panic_fmt>:
ffffffff800000c0:\tud2
";

    #[test]
    fn a_panic_behind_a_function_of_the_library_is_found() {
        assert_eq!(panicking(&calls(DISASSEMBLY)), ["hypervisor::object::lookup"]);
    }

    #[test]
    fn calls_and_jumps_lead_to_functions() {
        let found = calls(DISASSEMBLY);
        let of = |name: &str| found[name].iter().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(of("hypervisor::ipc::call"), ["hypervisor::object::lookup"]);
        assert!(of("core::panicking::panic_fmt").is_empty());
    }
}
