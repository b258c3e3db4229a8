use super::*;

fn workspace() -> Workspace {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    Workspace { target: root.join("target"), tools: root.join("target/tools"), root }
}

fn parse(text: &str) -> Result<Manifest> {
    Manifest::parse(&workspace(), "test.toml", Path::new(env!("CARGO_MANIFEST_DIR")), text)
}

/// Message, and line number, of the mistake in a manifest.
fn complaint(text: &str) -> (String, usize) {
    let report = parse(text).expect_err("no mistake found");
    let mistake: &Mistake = report.downcast_ref().unwrap();
    let line = text[..mistake.span.offset()].lines().count().max(1)
        + usize::from(text[..mistake.span.offset()].ends_with('\n'));
    (mistake.message.clone(), line)
}

#[test]
fn everything_can_be_said() {
    let manifest = parse(
        r#"
        [system]
        name = "all"
        on_end = "reboot"

        [[partition]]
        name = "linux"
        vmm = "other-vmm"
        memory = "256M"
        cpus = 1
        cpu = 3
        priority = 70
        budget = "5ms"
        period = "20ms"
        kernel = "Cargo.toml"
        initrd = "busybox"
        cmdline = "console=ttyS0"
        restart = "on-failure"
        console = true
        args = "verbose"
        ports = ["0x40-0x43", "97"]
        interrupts = [2, 8]

        [[partition]]
        name = "task"

        [[partition]]
        name = "everywhere"
        cpu = "all"
        "#,
    )
    .unwrap();
    assert_eq!((manifest.name.as_str(), manifest.on_end), ("all", OnEnd::Reboot));
    let [linux, task, everywhere] = manifest.partitions.as_slice() else { panic!("not three") };
    assert_eq!(linux.vmm.get_ref(), "other-vmm");
    assert_eq!((linux.memory, linux.cpus, linux.priority), (256 << 20, 1, 70));
    assert_eq!((linux.budget_us, linux.period_us), (5_000, 20_000));
    assert_eq!(linux.kernel.as_ref().unwrap().name(), "Cargo.toml");
    assert_eq!(linux.initrd, Some(Content::Busybox));
    assert_eq!((linux.restart, linux.console), (Restart::OnFailure, true));
    assert_eq!((linux.cmdline.as_str(), linux.args.as_str()), ("console=ttyS0", "verbose"));
    let ports = [(0x40, 0x43), (97, 97)].map(|(first, last)| Ports { first, last });
    assert_eq!((linux.ports.as_slice(), linux.interrupts.as_slice()), (&ports[..], &[2, 8][..]));
    assert_eq!((task.vmm.get_ref().as_str(), task.memory, task.cpus), ("vmm", 0, 1));
    assert_eq!((linux.cpu, task.cpu, everywhere.cpu), (Place::Cpu(3), Place::Cpu(0), Place::All));
    assert_eq!((task.budget_us, task.period_us), (10_000, 10_000));
    assert_eq!((task.restart, task.console), (Restart::Never, false));
}

#[test]
fn mistakes_point_at_their_line() {
    let system = "[system]\nname = \"x\"\n[[partition]]\nname = \"a\"\n";
    let cases = [
        ("memory 256M", "", 5),
        ("speed = 9", "unknown field `speed`", 5),
        ("memory = \"256Q\"", "is not a size", 5),
        ("memory = 256", "a size such as", 5),
        ("memory = \"5000\"", "whole pages", 5),
        ("\n\ncpus = 0", "cpus is 0; it can only be 1", 7),
        ("cpus = 2", "cpus is 2; it can only be 1", 5),
        ("cpus = \"two\"", "invalid type", 5),
        ("cpu = 64", "cpu is 64; it can be 0 to 63", 5),
        ("cpu = -1", "cpu is -1; it can be 0 to 63", 5),
        ("\ncpu = \"both\"", "it is a number such as 1, or \"all\"", 6),
        ("cpu = [1]", "a number such as 1, or \"all\"", 5),
        ("priority = 128", "priority is 128; it can be 1 to 127", 5),
        ("restart = \"sometimes\"", "unknown variant", 5),
        ("budget = \"10\"", "is not a time", 5),
        ("period = \"0ms\"", "period of nothing", 5),
        ("period = \"1ms\"\nbudget = \"2ms\"", "a budget of 2000 us in a period of 1000 us", 6),
        ("kernel = \"Cargo.toml\"", "a kernel but no memory", 5),
        ("memory = \"1M\"\nkernel = \"absent\"", "No such file", 6),
        ("memory = \"1M\"\nkernel = \"src\"", "is not a file", 6),
        ("initrd = \"busybox\"", "initrd without a kernel", 5),
        ("cmdline = \"x\"", "cmdline without a kernel", 5),
        ("ports = [\"0x40-\"]", "is not a range of ports", 5),
        ("ports = [64]", "a range of ports such as", 5),
        ("ports = [\"0x43-0x40\"]", "is not a range of ports", 5),
        ("ports = [\"65536\"]", "is not a range of ports", 5),
        ("ports = [\"1\",\n\"0-2\"]", "0x0 to 0x2, this partition has some already", 6),
        ("ports = [\"0-0x3f8\"]", "the console service has some already", 5),
        ("interrupts = [192]", "it can be 0 to 191", 5),
        ("interrupts = [4]", "the console service has interrupt 4 already", 5),
        ("interrupts = [3, 3]", "this partition has interrupt 3 already", 5),
        (
            "interrupts = [3]\n[[partition]]\nname = \"b\"\ninterrupts = [3]",
            "partition \"a\" has interrupt 3 already",
            8,
        ),
        (
            "ports = [\"1\"]\n[[partition]]\nname = \"b\"\nports = [\"1\"]",
            "partition \"a\" has some already",
            8,
        ),
        ("[[partition]]\nname = \"a\"", "a second partition named \"a\"", 6),
        ("[[partition]]\nname = \"a b\"", "is not a name", 6),
        ("[[partition]]\nvmm = \"vmm\"", "missing field `name`", 5),
        ("[other]", "unknown field `other`", 5),
    ];
    for (text, expected, expected_line) in cases {
        let (message, line) = complaint(&format!("{system}{text}\n"));
        assert!(message.contains(expected), "{text:?} gave {message:?}");
        assert_eq!(line, expected_line, "{text:?} gave {message:?}");
    }
    let (message, line) = complaint("[system]\nname = \"x\"\non_end = \"explode\"\n");
    assert!(message.contains("unknown variant") && line == 3, "{message} in {line}");
    let (message, _) = complaint("");
    assert!(message.contains("missing field `system`"), "{message}");
}

#[test]
fn the_report_shows_the_line_itself() {
    let report = parse("[system]\nname = \"x\"\nnmae = 1\n").unwrap_err();
    let text = format!("{report:?}");
    assert!(text.contains("test.toml:3"), "{text}");
    assert!(text.contains("nmae = 1"), "{text}");
}

#[test]
fn the_manifests_of_the_project_are_sound() {
    let workspace = workspace();
    for folder in ["guests", "tests"] {
        for entry in workspace.root.join(folder).read_dir().unwrap() {
            let path = entry.unwrap().path();
            let is_manifest = path.extension().is_some_and(|extension| extension == "toml")
                && path.file_name().is_some_and(|name| name != "system.toml");
            if is_manifest {
                Manifest::read(&workspace, &path).unwrap();
            }
        }
    }
}
