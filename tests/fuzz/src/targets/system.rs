//! The compiled system description, which the root task and every monitor decode.

use config::{OnEnd, Partition, Place, Ports, Restart, System};

use super::Target;

/// Decoding, and back.
pub const TARGET: Target = Target { name: "system", longest: 512, dictionary: &[], seeds, run };

fn seeds() -> Vec<Vec<u8>> {
    let partition = Partition {
        name: "linux".into(),
        vmm: "vmm".into(),
        memory: 256 << 20,
        cpus: 1,
        cpu: Place::Cpu(0),
        priority: 64,
        budget_us: 5_000,
        period_us: 10_000,
        kernel: Some("linux-kernel".into()),
        initrd: Some("linux-initrd".into()),
        cmdline: "console=ttyS0".into(),
        args: String::new(),
        restart: Restart::OnFailure,
        console: true,
        ports: vec![Ports { first: 0x40, last: 0x43 }],
        interrupts: vec![2],
    };
    let task = Partition {
        name: "task".into(),
        vmm: "hello".into(),
        memory: 0,
        kernel: None,
        initrd: None,
        args: "quiet".into(),
        ports: vec![],
        interrupts: vec![],
        ..partition.clone()
    };
    let system = |partitions| System { name: "demo".into(), on_end: OnEnd::Reboot, partitions };
    [vec![], vec![task.clone()], vec![partition, task]]
        .map(|partitions| config::encode(&system(partitions)).expect("a sound system"))
        .to_vec()
}

fn run(bytes: &[u8]) {
    match config::decode(bytes) {
        Ok(system) => {
            let again = config::encode(&system).expect("what was decoded can be encoded");
            assert_eq!(config::decode(&again).as_ref(), Ok(&system));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
