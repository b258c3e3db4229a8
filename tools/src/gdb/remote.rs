//! As much of gdb's remote serial protocol (gdb's manual, appendix E) as a test needs.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::time::{Duration, Instant};

use miette::{IntoDiagnostic, Result, WrapErr, bail, miette};

/// Where RIP is among the registers of `i386:x86-64`, in digits: 16 registers of 64 bits before it.
const RIP: Range<usize> = 16 * 16..17 * 16;

/// A connection to a machine's gdb stub.
#[derive(Debug)]
pub struct Remote {
    stream: TcpStream,
    deadline: Instant,
}

impl Remote {
    /// Connects to a machine, which stands still from then on.
    ///
    /// # Errors
    /// When nobody answers, or the machine does not stand.
    pub fn connect(stub: SocketAddr, deadline: Instant) -> Result<Self> {
        let stream = TcpStream::connect(stub).into_diagnostic().wrap_err("no gdb stub")?;
        let mut remote = Self { stream, deadline };
        let state = remote.ask("?")?;
        if !stands(&state) {
            bail!("the machine does not wait for gdb: {state:?}");
        }
        Ok(remote)
    }

    /// Lets it run until it is about to execute the instruction at `address`.
    ///
    /// # Errors
    /// When it stops anywhere else, or not in time.
    pub fn run_to(&mut self, address: u64) -> Result<()> {
        let breakpoint = format!("1,{address:x},1");
        self.demand(&format!("Z{breakpoint}"))?;
        let state = self.ask("c")?;
        if !stands(&state) {
            bail!("the machine did not stop at {address:#x}: {state:?}");
        }
        let registers = self.ask("g")?;
        let rip = registers.get(RIP).and_then(little_endian);
        if rip != Some(address) {
            bail!("the machine stopped, but not at {address:#x}: RIP is {rip:#x?}");
        }
        self.demand(&format!("z{breakpoint}"))
    }

    /// Lets it run without us.
    ///
    /// # Errors
    /// When it is gone.
    pub fn detach(mut self) -> Result<()> {
        self.demand("D")
    }

    fn demand(&mut self, command: &str) -> Result<()> {
        match self.ask(command)?.as_str() {
            "OK" => Ok(()),
            answer => bail!("the gdb stub answers {answer:?} to {command:?}"),
        }
    }

    /// The answer to a command.
    fn ask(&mut self, command: &str) -> Result<String> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let wait = Some(left.max(Duration::from_millis(1)));
        let mut exchange = || {
            self.stream.set_read_timeout(wait)?;
            self.stream.write_all(&packet(command))?;
            let answer = receive(&mut self.stream)?;
            self.stream.write_all(b"+")?;
            Ok::<_, io::Error>(answer)
        };
        exchange().map_err(|error| miette!("no answer to {command:?} from the gdb stub: {error}"))
    }
}

/// Whether this is a stop reply.
fn stands(state: &str) -> bool {
    state.starts_with(['S', 'T'])
}

fn packet(command: &str) -> Vec<u8> {
    format!("${command}#{:02x}", checksum(command.as_bytes())).into_bytes()
}

fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// The next packet; acknowledgements before it are skipped. Over TCP none is damaged.
fn receive(stream: &mut impl Read) -> io::Result<String> {
    let mut next = || {
        let mut byte = [0];
        stream.read_exact(&mut byte).map(|()| byte[0])
    };
    while next()? != b'$' {}
    let mut text = Vec::new();
    loop {
        match next()? {
            b'#' => break,
            byte => text.push(byte),
        }
    }
    let sum = [next()?, next()?];
    if sum.as_slice() != format!("{:02x}", checksum(&text)).as_bytes() {
        return Err(io::Error::other("wrong checksum"));
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// A register's value from its bytes in hexadecimal.
fn little_endian(hexadecimal: &str) -> Option<u64> {
    u64::from_str_radix(hexadecimal, 16).ok().map(u64::swap_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_have_their_checksums() {
        assert_eq!(packet("?"), b"$?#3f");
        assert_eq!(packet("OK"), b"$OK#9a");
        assert_eq!(receive(&mut &b"+$T05thread:01;#07"[..]).unwrap(), "T05thread:01;");
        assert!(receive(&mut &b"$OK#9b"[..]).is_err());
        assert!(receive(&mut &b"$OK#"[..]).is_err());
    }

    #[test]
    fn registers_come_lowest_byte_first() {
        assert_eq!(little_endian("5f1f0180ffffffff"), Some(0xffff_ffff_8001_1f5f));
        assert_eq!(little_endian("x"), None);
    }
}
