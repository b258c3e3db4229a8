//! What this host can run, found by trying.
//!
//! Whether KVM nests is asked of KVM, through QEMU: the features of the processor model `host` are
//! those that KVM says it supports, and it says so of VT-x and AMD-V only where it nests.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::choice::{Host, Unfit};
use super::specification::{Extension, Platform};
use super::{bochs, qemu};
use crate::workspace::Workspace;

/// Seconds that an emulator may take to answer.
const PATIENCE: &str = "60";

type Found<T> = Result<T, Unfit>;

impl Host for Workspace {
    fn extension(&self, platform: Platform) -> Found<Extension> {
        match platform {
            Platform::QemuKvm => nested(self),
            Platform::QemuTcg => emulated(self),
            Platform::Bochs if bochs::program(self).is_file() => Ok(Extension::VtX),
            Platform::Bochs => Err(set_up("there is no Bochs with VT-x")),
        }
    }

    fn models(&self, platform: Platform) -> Found<Vec<String>> {
        match platform {
            Platform::Bochs => {
                let mut command = patient(&bochs::program(self));
                let output = command.args(["--help", "cpu"]).stdin(Stdio::null()).output();
                let output = output.map_err(|error| set_up(format!("Bochs: {error}")))?;
                let said = [output.stdout, output.stderr].concat();
                Ok(bochs_models(&String::from_utf8_lossy(&said)))
            }
            Platform::QemuKvm | Platform::QemuTcg => {
                let answer = ask(self, platform, "query-cpu-definitions", json!({}))?;
                let names = answer.as_array().into_iter().flatten();
                Ok(names.filter_map(|model| model["name"].as_str().map(str::to_owned)).collect())
            }
        }
    }

    fn properties(&self, platform: Platform, cpu: &str) -> Found<()> {
        let (name, properties) = cpu.split_once(',').unwrap_or((cpu, ""));
        if properties.is_empty() {
            return Ok(());
        }
        if platform == Platform::Bochs {
            return Err(Unfit {
                why: format!("{name} has no properties such as {properties:?}"),
                remedy: format!("Name the model alone: --cpu {name}."),
            });
        }
        let model = json!({ "name": name, "props": json_properties(properties) });
        let arguments = json!({ "type": "full", "model": model });
        ask(self, platform, "query-cpu-model-expansion", arguments).map(drop).map_err(|unfit| {
            Unfit { remedy: "`qemu-system-x86_64 -cpu help` lists what there is.".into(), ..unfit }
        })
    }
}

/// Properties such as `+avx,-npt,family=6` as QEMU's monitor wants them.
fn json_properties(list: &str) -> Value {
    let pairs = list.split(',').map(|property| {
        if let Some(name) = property.strip_prefix('+') {
            return (name.to_owned(), json!(true));
        }
        if let Some(name) = property.strip_prefix('-') {
            return (name.to_owned(), json!(false));
        }
        let (name, value) = property.split_once('=').unwrap_or((property, "on"));
        let value = match (value, value.parse::<i64>()) {
            ("on", _) => json!(true),
            ("off", _) => json!(false),
            (_, Ok(number)) => json!(number),
            (text, _) => json!(text),
        };
        (name.to_owned(), value)
    });
    Value::Object(pairs.collect())
}

fn set_up(why: impl Into<String>) -> Unfit {
    Unfit { why: why.into(), remedy: "Run scripts/setup.".into() }
}

fn elsewhere(why: impl Into<String>, remedy: &str) -> Unfit {
    Unfit { why: why.into(), remedy: format!("{remedy}, or use --platform qemu-tcg or bochs.") }
}

/// A command that is ended when it takes too long.
fn patient(program: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.arg(PATIENCE).arg(program);
    command
}

/// Whether this host's KVM gives its virtual machines VT-x or AMD-V.
fn nested(workspace: &Workspace) -> Found<Extension> {
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        let remedy = "Load KVM's modules, and join the group that /dev/kvm belongs to";
        return Err(elsewhere(format!("/dev/kvm cannot be used ({error})"), remedy));
    }
    let features = features(workspace, Platform::QemuKvm, Platform::QemuKvm.default_cpu())?;
    judge(&features).map_err(|short| {
        let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let parameter = |module: &str| {
            fs::read_to_string(format!("/sys/module/{module}/parameters/nested")).ok()
        };
        explain(short, &processor, parameter)
    })
}

/// Whether this QEMU emulates AMD-V.
fn emulated(workspace: &Workspace) -> Found<Extension> {
    let features = features(workspace, Platform::QemuTcg, qemu::DEFAULT_CPU)?;
    match judge(&features) {
        Ok(Extension::AmdV) => Ok(Extension::AmdV),
        _ => Err(Unfit {
            why: "this QEMU does not emulate AMD-V with nested paging".into(),
            remedy: "Install QEMU 7.2 or later, or use --platform bochs.".into(),
        }),
    }
}

/// What a processor model has, as QEMU lists it.
fn features(workspace: &Workspace, platform: Platform, model: &str) -> Found<Value> {
    let arguments = json!({ "type": "full", "model": { "name": model } });
    let mut answer = ask(workspace, platform, "query-cpu-model-expansion", arguments)?;
    Ok(answer["model"]["props"].take())
}

/// The extension among the features, if it is whole; else what is missing.
fn judge(features: &Value) -> Result<Extension, &'static str> {
    let has = |name: &str| features[name] == Value::Bool(true);
    match (has("vmx"), has("svm")) {
        (true, _) if has("vmx-ept") && has("vmx-unrestricted-guest") => Ok(Extension::VtX),
        (true, _) => Err("VT-x without EPT and unrestricted guest"),
        (_, true) if has("npt") => Ok(Extension::AmdV),
        (_, true) => Err("AMD-V without nested paging"),
        _ => Err("neither VT-x nor AMD-V"),
    }
}

/// Why KVM does not nest here.
fn explain(short: &str, processor: &str, parameter: impl Fn(&str) -> Option<String>) -> Unfit {
    let flags = processor.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let has = |name: &str| flags.split_whitespace().any(|flag| flag == name);
    let module = match (has("vmx"), has("svm")) {
        (true, _) => "kvm_intel",
        (_, true) => "kvm_amd",
        _ => {
            let why = "this host's processor has neither VT-x nor AMD-V";
            return elsewhere(why, "Switch it on, in the firmware or the outer hypervisor");
        }
    };
    match parameter(module) {
        Some(text) if !matches!(text.trim(), "Y" | "1") => elsewhere(
            format!("this host's KVM does not nest ({module}.nested is off)"),
            &format!("Load {module} with nested=1"),
        ),
        _ => elsewhere(format!("this host's KVM offers {short}"), "Take another host"),
    }
}

/// What a QEMU without a machine answers to one question.
fn ask(
    workspace: &Workspace,
    platform: Platform,
    question: &str,
    arguments: Value,
) -> Found<Value> {
    let accelerator = qemu::accelerator(platform);
    let lines = [
        json!({ "execute": "qmp_capabilities" }),
        json!({ "execute": question, "arguments": arguments, "id": "answer" }),
        json!({ "execute": "quit" }),
    ];
    let input: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let output = patient(&qemu::program(workspace))
        .args(["-machine", &format!("none,accel={accelerator}")])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-S", "-qmp", "stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .and_then(|mut child| {
            if let Some(mut stdin) = child.stdin.take() {
                // A QEMU that does not even read has said why.
                let _ = stdin.write_all(input.as_bytes());
            }
            child.wait_with_output()
        })
        .map_err(|error| set_up(format!("QEMU cannot be started ({error})")))?;
    let mut answer = answer(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().unwrap_or("QEMU does not answer");
        set_up(said.trim_start_matches("qemu-system-x86_64: "))
    })?;
    match answer["error"]["desc"].as_str() {
        Some(error) => Err(set_up(error)),
        None => Ok(answer["return"].take()),
    }
}

/// The answer among what QEMU says.
fn answer(said: &str) -> Option<Value> {
    said.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|line| line["id"] == "answer")
}

/// The models in Bochs's help: the lines of one word below a heading.
fn bochs_models(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| !line.starts_with("Supported CPU models"))
        .skip(1)
        .map(str::trim)
        .take_while(|line| line.split_whitespace().count() < 2)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extension_counts_only_if_it_is_whole() {
        let of = |value: Value| judge(&value);
        let vtx = json!({ "vmx": true, "vmx-ept": true, "vmx-unrestricted-guest": true });
        assert_eq!(of(vtx), Ok(Extension::VtX));
        assert_eq!(of(json!({ "svm": true, "npt": true })), Ok(Extension::AmdV));
        assert!(of(json!({ "vmx": true, "vmx-ept": true })).is_err());
        assert!(of(json!({ "svm": true, "npt": false })).is_err());
        assert!(of(json!({ "svm": false, "vmx": false })).is_err());
        assert!(of(Value::Null).is_err());
    }

    #[test]
    fn the_reason_names_what_to_change() {
        let reason = |flags: &str, nested: Option<&str>| {
            let processor = format!("processor: 0\nflags\t: fpu {flags}\n");
            explain("nothing", &processor, |_| nested.map(str::to_owned)).why
        };
        assert!(reason("sse", None).contains("processor has neither"));
        assert!(reason("vmx", Some("N\n")).contains("kvm_intel.nested"));
        assert!(reason("svm", Some("0\n")).contains("kvm_amd.nested"));
        assert!(reason("svm", Some("1\n")).contains("offers nothing"));
        assert!(reason("vmx", None).contains("offers nothing"));
    }

    #[test]
    fn the_answer_is_found_among_events() {
        let said = "{\"QMP\": {}}\n{\"return\": {}}\n{\"event\": \"STOP\"}\n\
                    {\"return\": [1], \"id\": \"answer\"}\n{\"return\": {}}\n";
        assert_eq!(answer(said).unwrap()["return"], json!([1]));
        assert_eq!(answer("{\"return\": {}}\n"), None);
        assert_eq!(answer(""), None);
    }

    #[test]
    fn properties_are_translated() {
        let expected =
            json!({ "avx": true, "npt": false, "svm": true, "family": 6, "vendor": "x" });
        assert_eq!(json_properties("+avx,npt=off,svm,family=6,vendor=x"), expected);
    }

    #[test]
    fn the_models_of_bochs_stand_below_their_heading() {
        let help = "0000i[ ] set to 'x'\nSupported CPU models:\n\ni386\ncorei7_skylake_x\n\n\
                    000i[SIM   ] quit_sim called\n=====\n";
        assert_eq!(bochs_models(help), ["i386", "corei7_skylake_x"]);
        assert_eq!(bochs_models("nothing of the kind"), [""; 0]);
    }
}
