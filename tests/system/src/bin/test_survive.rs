//! A healthy task, whose neighbours are not.
#![no_std]
#![no_main]

use system_tests::processor::is_tcg;
use system_tests::report::{Bench, Check, Test};
use system_tests::{check, check_eq};

use runtime::{Outcome, Status, Task, pd::Pd, sm::Sm};

runtime::entry!(main);

const TESTS: &[Test] = &[("survive.time-goes-on", time), ("survive.memory-is-kept", memory)];

fn main(task: Task) -> Outcome {
    system_tests::report::main(task, &[TESTS])
}

/// Sleeps a hundred times, for a hundred milliseconds in all, while a neighbour spins.
fn time(bench: &mut Bench<'_>) -> Check {
    let Ok(sleep) = Sm::create(Pd::OWN, 0) else { return Err("no semaphore".into()) };
    let start = runtime::clock::now();
    for _ in 0..100 {
        check_eq!(sleep.down_until(bench.in_ms(1)), Err(Status::Timeout), "sleep");
    }
    let ms = (runtime::clock::now() - start) / (bench.hz / 1000);
    // QEMU itself has to wait for its turn on the host now and then.
    let limit = if is_tcg() { 400 } else { 150 };
    check!((100..limit).contains(&ms), "100 ms took {ms} ms");
    Ok(())
}

/// What this task writes to its memory stays there.
fn memory(bench: &mut Bench<'_>) -> Check {
    for offset in (0..bench.memory.len()).step_by(4096) {
        bench.memory.store_u64(offset, !offset).map_err(|_| "outside of memory")?;
    }
    let Ok(sleep) = Sm::create(Pd::OWN, 0) else { return Err("no semaphore".into()) };
    let _ = sleep.down_until(bench.in_ms(20));
    for offset in (0..bench.memory.len()).step_by(4096) {
        check_eq!(bench.memory.load_u64(offset), Ok(!offset), "word at {offset:#x}");
    }
    Ok(())
}
