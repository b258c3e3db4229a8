//! Monitors that fail their guests: one never answers, one has no portal for an exit, one is only slow. Which it is, the name of the
//! partition says.
#![no_std]
#![no_main]

use abi::cap::MemRights;
use abi::vcpu::{Exit, Groups, VcpuState};
use runtime::memory::Page;
use runtime::pd::Pd;
use runtime::sm::Sm;
use runtime::space::GuestSpace;
use runtime::vcpu::{VcpuBuilder, real_mode_state};
use runtime::{Outcome, Status, Task, park};

runtime::entry!(main);

core::arch::global_asm!(
    ".pushsection .text.guest, \"ax\"",
    ".balign 4096",
    "guest:",
    ".code16",
    "    cpuid",
    "    hlt",
    ".code64",
    ".balign 4096",
    ".popsection",
);

unsafe extern "C" {
    safe static guest: Page;
}

fn main(task: Task) -> Result<Outcome, Status> {
    let name = task.partition().map(|partition| partition.name).unwrap_or_default();
    let memory = GuestSpace::create(Pd::OWN)?;
    memory.grant((&guest).into(), 0x1000, MemRights::RX)?;
    let slow = Slow { until: runtime::clock::now() + 15 * task.clock().hz() };
    let builder = VcpuBuilder::new(memory, slow)?.on(Exit::Startup, Groups::NONE, start);
    let builder = match name.as_str() {
        "hang" => builder.on(Exit::Cpuid, Groups::NONE, hang),
        "slow" => builder.on(Exit::Cpuid, Groups::NONE, wait),
        _ => builder,
    };
    builder.run()?;
    park()
}

/// When the slow monitor answers.
struct Slow {
    until: u64,
}

fn start(_: &mut Slow, vcpu: &mut VcpuState) -> Groups {
    real_mode_state(vcpu, 0x1000)
}

fn hang(_: &mut Slow, _: &mut VcpuState) -> Groups {
    // SAFETY: computes for ever, with a mark in a register.
    unsafe { core::arch::asm!("mov r15d, 0x5eed", "2:", "inc r14", "jmp 2b", options(noreturn)) }
}

/// Longer than a monitor may compute, but this one sleeps.
fn wait(slow: &mut Slow, _: &mut VcpuState) -> Groups {
    if let Ok(never) = Sm::create(Pd::OWN, 0) {
        let _ = never.down_until(slow.until);
    }
    runtime::exit(Outcome::Done)
}
