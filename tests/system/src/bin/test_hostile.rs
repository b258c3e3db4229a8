//! A hostile guest with a monitor that judges its exits, or its neighbour with a checksum. Which it is, the name of the partition says.
#![no_std]
#![no_main]

use runtime::{Outcome, Task, println};
use system_tests::hostile::{self, neighbour};
use system_tests::report;

runtime::entry!(main, heap: 4 << 20);

fn main(task: Task) -> Outcome {
    let name = task.partition().map(|partition| partition.name).unwrap_or_default();
    if name.as_str() == "neighbour" {
        return report::interactive(task, "neighbour.checksum", neighbour::work);
    }
    match hostile::run(&task) {
        Ok(tally) => {
            println!("exits: {tally}");
            println!("operations {:?}, replies {:?}", tally.classes, tally.replies);
            println!("{} lengths right", tally.lengths);
            println!("{} exits at stale code, {} entries refused", tally.stale, tally.refused);
            println!("HOSTILE pass {} operations, {} bursts", tally.operations, tally.bursts);
            Outcome::Done
        }
        Err(why) => {
            println!("HOSTILE fail: {why}");
            Outcome::Failed
        }
    }
}
