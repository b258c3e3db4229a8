//! QEMU's monitor, in its machine protocol: one JSON object a line, in both directions.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use miette::{IntoDiagnostic, Result, WrapErr, bail, miette};
use serde_json::{Value, json};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Marks the answer to the picture that is taken when the machine has turned itself off.
const LAST: &str = "last";

/// A connection to the monitor of a running machine.
#[derive(Debug)]
pub struct Monitor(Mutex<Connection>);

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    answers: Receiver<Value>,
}

impl Monitor {
    /// Greets a monitor. If there is to be a picture of the screen at the end, it is also taken
    /// when the machine turns itself off; QEMU then ends.
    ///
    /// # Errors
    /// When QEMU does not answer.
    pub fn greet(stream: TcpStream, picture: Option<PathBuf>) -> Result<Self> {
        let reader = BufReader::new(stream.try_clone().into_diagnostic()?);
        let mut writer = stream.try_clone().into_diagnostic()?;
        let (sender, answers) = channel();
        thread::spawn(move || {
            for line in reader.lines().map_while(Result::ok) {
                let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
                match reaction(&message, picture.as_deref()) {
                    Reaction::Pass if sender.send(message).is_err() => return,
                    Reaction::Say(command) if say(&mut writer, &command).is_err() => return,
                    Reaction::Pass | Reaction::Say(_) | Reaction::Nothing => {}
                }
            }
        });
        let monitor = Self(Mutex::new(Connection { stream, answers }));
        monitor.execute("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    /// The answer to a command.
    ///
    /// # Errors
    /// What QEMU says is wrong, or that it is gone.
    fn execute(&self, command: &str, arguments: Value) -> Result<Value> {
        let mut connection = self.0.lock().unwrap_or_else(|error| error.into_inner());
        say(&mut connection.stream, &json!({ "execute": command, "arguments": arguments }))
            .into_diagnostic()
            .wrap_err("QEMU's monitor is gone")?;
        let mut answer = connection
            .answers
            .recv_timeout(PATIENCE)
            .map_err(|_| miette!("QEMU's monitor does not answer {command}"))?;
        if let Some(error) = answer["error"]["desc"].as_str() {
            bail!("QEMU: {error}");
        }
        Ok(answer["return"].take())
    }

    /// Writes a picture of the screen.
    ///
    /// # Errors
    /// What QEMU says is wrong, or that it is gone.
    pub fn screenshot(&self, file: &Path) -> Result<()> {
        self.execute("screendump", picture_arguments(file)).map(drop)
    }

    /// Raises an NMI on every processor.
    ///
    /// # Errors
    /// What QEMU says is wrong, or that it is gone.
    pub fn nmi(&self) -> Result<()> {
        self.execute("inject-nmi", json!({})).map(drop)
    }

    /// Raises a machine check on the first processor: an error in bank 1 that cannot be corrected.
    ///
    /// # Errors
    /// What QEMU says is wrong, or that it is gone.
    pub fn machine_check(&self) -> Result<()> {
        let line = "mce 0 1 0xb200000000000000 0 0 0";
        let said = self.execute("human-monitor-command", json!({ "command-line": line }))?;
        match said.as_str() {
            None | Some("") => Ok(()),
            Some(error) => bail!("QEMU: {error}"),
        }
    }

    /// Where QEMU waits for gdb.
    ///
    /// # Errors
    /// When it does not.
    pub fn gdb(&self) -> Result<SocketAddr> {
        let devices = self.execute("query-chardev", json!({}))?;
        gdb_address(&devices).ok_or_else(|| miette!("QEMU has no gdb stub: {devices}"))
    }
}

fn say(stream: &mut TcpStream, command: &Value) -> std::io::Result<()> {
    stream.write_all(format!("{command}\n").as_bytes())
}

fn picture_arguments(file: &Path) -> Value {
    json!({ "filename": file.to_string_lossy(), "format": "png" })
}

/// What a message is good for.
#[derive(Debug, PartialEq)]
enum Reaction {
    /// It answers somebody.
    Pass,
    /// It wants something said.
    Say(Value),
    /// Nobody is interested.
    Nothing,
}

/// A machine that turns itself off stands still until its last picture is taken.
fn reaction(message: &Value, picture: Option<&Path>) -> Reaction {
    let is_answer = message.get("return").is_some() || message.get("error").is_some();
    if is_answer && message["id"] == LAST {
        return Reaction::Say(json!({ "execute": "quit" }));
    }
    if is_answer && message["id"].is_null() {
        return Reaction::Pass;
    }
    match picture {
        Some(file) if message["event"] == "SHUTDOWN" && message["data"]["guest"] == true => {
            let arguments = picture_arguments(file);
            Reaction::Say(json!({ "execute": "screendump", "arguments": arguments, "id": LAST }))
        }
        _ => Reaction::Nothing,
    }
}

/// The address in QEMU's list of character devices: a name such as
/// `disconnected:tcp:127.0.0.1:40247,server=on`.
fn gdb_address(devices: &Value) -> Option<SocketAddr> {
    let device = devices.as_array()?.iter().find(|device| device["label"] == "gdb")?;
    let (_, address) = device["filename"].as_str()?.split_once("tcp:")?;
    address.split([',', ' ']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_is_taken_before_the_machine_goes() {
        let file = Path::new("/a.png");
        let guest = json!({ "event": "SHUTDOWN", "data": { "guest": true } });
        let Reaction::Say(command) = reaction(&guest, Some(file)) else { panic!("no picture") };
        assert_eq!(command["execute"], "screendump");
        assert_eq!(command["arguments"]["filename"], "/a.png");
        let answers = [json!({ "return": {}, "id": LAST }), json!({ "error": {}, "id": LAST })];
        for answer in answers {
            let expected = Reaction::Say(json!({ "execute": "quit" }));
            assert_eq!(reaction(&answer, Some(file)), expected);
        }
        assert_eq!(reaction(&guest, None), Reaction::Nothing);
        let quit = json!({ "event": "SHUTDOWN", "data": { "guest": false } });
        assert_eq!(reaction(&quit, Some(file)), Reaction::Nothing);
    }

    #[test]
    fn only_answers_are_passed_on() {
        assert_eq!(reaction(&json!({ "return": {} }), None), Reaction::Pass);
        assert_eq!(reaction(&json!({ "error": { "desc": "x" } }), None), Reaction::Pass);
        assert_eq!(reaction(&json!({ "QMP": {} }), None), Reaction::Nothing);
        assert_eq!(reaction(&json!({ "event": "RESUME" }), None), Reaction::Nothing);
    }

    #[test]
    fn the_stub_is_found_among_the_devices() {
        let devices = json!([
            { "label": "console", "filename": "tcp:127.0.0.1:1 <-> 127.0.0.1:2" },
            { "label": "gdb", "filename": "disconnected:tcp:127.0.0.1:40247,server=on" },
        ]);
        assert_eq!(gdb_address(&devices), Some(([127, 0, 0, 1], 40247).into()));
        assert_eq!(gdb_address(&json!([])), None);
    }
}
