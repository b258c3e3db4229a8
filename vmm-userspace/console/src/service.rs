//! The service: moves bytes between the serial port and the clients, and shows them.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use console::display::Display;
use console::keys::{Key, Keys};
use console::moderation::Moderation;
use console::output::{Kind, Output};
use console::patience::Patience;
use protocol::console::{ConsoleChannel, INPUT, LOG, LogChannel, OUTPUT};
use protocol::ring::{Consumer, Producer};
use protocol::startup::Client;
use runtime::memory::shared;
use runtime::sm::Sm;

use crate::uart::{FIFO, Uart};

/// Bytes that may wait for the serial port before clients have to.
const WAITING: usize = 256;
/// Bytes taken from a client at once.
const CHUNK: usize = 64;
/// Bytes taken from a client that ends no line before the next has a turn.
const TURN: usize = 1024;
/// Bytes kept for a client whose input ring is full. The sender was told to stop long before: this
/// is for what is on its way.
const BACKLOG: usize = 64 * 1024;

/// The receiving end of a client's stream.
enum Stream {
    Console(Consumer<'static, OUTPUT>),
    Log(Consumer<'static, LOG>),
}

/// One stream of output.
struct Source {
    stream: Stream,
    owner: Sm,
    /// Its number in the output.
    number: usize,
    /// The sources that have their turn first: what a guest printed comes before what its monitor or the root task say of it.
    after: Range<usize>,
    /// Bytes that had been collected when this source first let others go first.
    since: Option<usize>,
}

/// One who can be typed to.
struct Reader {
    name: String,
    input: Producer<'static, INPUT>,
    owner: Sm,
    backlog: VecDeque<u8>,
}

/// Everything.
pub struct Service {
    uart: Option<Uart>,
    moderation: Moderation,
    patience: Patience,
    display: Option<Display<'static>>,
    output: Output,
    sources: Vec<Source>,
    readers: Vec<Reader>,
    keys: Keys,
    focus: usize,
    /// The service's own lines.
    own: usize,
    /// The source that has the next turn.
    turn: usize,
    /// Bytes it had in this turn.
    taken: usize,
    /// Bytes collected in all.
    collected: usize,
}

impl Source {
    fn peek(&self, buffer: &mut [u8]) -> usize {
        match &self.stream {
            Stream::Console(stream) => stream.peek(buffer),
            Stream::Log(stream) => stream.peek(buffer),
        }
    }

    fn skip(&mut self, count: usize) {
        let owner = self.owner;
        // A client that is gone needs no wake-up.
        let wake = || {
            let _ = owner.up();
        };
        match &mut self.stream {
            Stream::Console(stream) => stream.skip(count, wake),
            Stream::Log(stream) => stream.skip(count, wake),
        }
    }

    fn prepare_wait(&self) -> bool {
        match &self.stream {
            Stream::Console(stream) => stream.prepare_wait(),
            Stream::Log(stream) => stream.prepare_wait(),
        }
    }
}

impl Reader {
    /// Moves what waits into the client's ring, as far as there is room.
    fn deliver(&mut self) {
        while !self.backlog.is_empty() {
            let (bytes, _) = self.backlog.as_slices();
            let owner = self.owner;
            let sent = self.input.write(bytes, || {
                let _ = owner.up();
            });
            if sent == 0 {
                return;
            }
            self.backlog.drain(..sent);
        }
    }
}

impl Service {
    /// Serves `clients` at the serial port and the screen.
    pub fn new(
        uart: Option<Uart>,
        display: Option<Display<'static>>,
        (moderation, patience): (Moderation, Patience),
        clients: &[Client],
    ) -> Self {
        let consoles = clients.iter().filter(|client| !client.console.is_empty()).count();
        let mut service = Self {
            uart,
            moderation,
            patience,
            display,
            output: Output::new(),
            sources: Vec::new(),
            readers: Vec::new(),
            keys: Keys::new(consoles),
            focus: 0,
            own: 0,
            turn: 0,
            taken: 0,
            collected: 0,
        };
        service.own = service.output.add(Kind::Text, "console: ".into());
        for client in clients {
            service.add(client, consoles > 1);
        }
        // The root task's own log is that of the client without a name.
        let all = service.sources.len();
        if let (Some(client), Some(log)) = (clients.first(), service.sources.first_mut())
            && client.name().is_empty()
        {
            log.after = 1..all;
        }
        if consoles > 1 {
            service.help();
        }
        service
    }

    fn add(&mut self, client: &Client, several: bool) {
        let (name, owner) = (client.name(), Sm::at(client.wake));
        // SAFETY: the root task mapped the channel for reading and writing.
        if let Some(channel) = unsafe { shared::<LogChannel>(client.log) } {
            let prefix = if name.is_empty() { String::new() } else { format!("{name}: ") };
            let number = self.output.add(Kind::Text, prefix);
            let stream = Stream::Log(Consumer::new(&channel.text));
            let next = self.sources.len() + 1;
            let after = if client.console.is_empty() { 0..0 } else { next..next + 1 };
            self.sources.push(Source { stream, owner, number, after, since: None });
        }
        // SAFETY: the root task mapped the channel for reading and writing.
        if let Some(channel) = unsafe { shared::<ConsoleChannel>(client.console) } {
            let prefix = if several { format!("{name}| ") } else { String::new() };
            let number = self.output.add(Kind::Terminal, prefix);
            let stream = Stream::Console(Consumer::new(&channel.output));
            self.sources.push(Source { stream, owner, number, after: 0..0, since: None });
            let input = Producer::new(&channel.input);
            let backlog = VecDeque::new();
            self.readers.push(Reader { name: name.into(), input, owner, backlog });
        }
    }

    fn say(&mut self, line: &str) {
        self.output.write(self.own, line.as_bytes());
        self.output.write(self.own, b"\n");
    }

    fn help(&mut self) {
        let names = self.readers.iter().enumerate();
        let names: Vec<_> = names.map(|(i, reader)| format!("{} {}", i + 1, reader.name)).collect();
        let current = self.readers.get(self.focus).map_or("nobody", |reader| &reader.name);
        let line = format!(
            "input goes to {current}; Ctrl-] and a digit change that: {}",
            names.join(", ")
        );
        self.say(&line);
    }

    /// Runs until nothing is left to do, then says whether it is right to sleep until
    /// [`Self::deadline`].
    pub fn work(&mut self, now: fn() -> u64) -> bool {
        loop {
            self.receive(now);
            self.collect(now);
            self.send();
            // Only an idle interrupt line can rise again.
            if !self.uart.as_ref().is_some_and(Uart::interrupting) {
                break;
            }
        }
        if let Some(display) = &mut self.display {
            display.refresh(now);
        }
        self.prepare_wait()
    }

    /// When there is something to do even if nobody wakes the service.
    pub fn deadline(&self) -> Option<u64> {
        let drawing = self.display.as_ref().and_then(Display::deadline);
        // As long as the queue is full, nobody is asked, and the port's interrupt says when that is over.
        let patience = self.patience.deadline().filter(|_| self.output.waiting() < WAITING);
        let others = [self.moderation.deadline(), patience];
        drawing.into_iter().chain(others.into_iter().flatten()).min()
    }

    /// Empties the receive FIFO. What comes meanwhile waits for the next look.
    fn receive(&mut self, now: fn() -> u64) {
        for reader in &mut self.readers {
            reader.deliver();
        }
        let mut received = false;
        for _ in 0..FIFO {
            let takes = |reader: &Reader| reader.backlog.len() < BACKLOG;
            if !self.readers.get(self.focus).is_none_or(takes) {
                break;
            }
            let Some(byte) = self.uart.as_mut().and_then(Uart::receive) else { break };
            received = true;
            match self.keys.feed(byte) {
                Key::Deliver(byte) => {
                    if let Some(reader) = self.readers.get_mut(self.focus) {
                        reader.backlog.push_back(byte);
                    }
                }
                Key::Focus(index) => {
                    self.focus = index;
                    self.help();
                }
                Key::Help => self.help(),
                Key::Nothing => {}
            }
        }
        for reader in &mut self.readers {
            reader.deliver();
        }
        let lost = self.uart.as_mut().map_or(0, Uart::take_overruns);
        if lost > 0 {
            self.say(&format!(
                "input was lost {lost} times: the sender ignored the request to stop"
            ));
        }
        self.moderation.looked(received, now());
        let behind = self.readers.get(self.focus).map_or(0, |reader| reader.backlog.len());
        if let Some(uart) = &mut self.uart {
            uart.request_to_send(behind == 0);
            let polled = self.moderation.deadline().is_some();
            uart.interrupt_when_received(behind < BACKLOG && !polled);
        }
    }

    /// Takes output from the clients, each in turn. A turn lasts until a line ends, but not for
    /// ever: nobody can keep the others from the terminal.
    fn collect(&mut self, now: fn() -> u64) {
        let mut idle = 0;
        let mut waits = false;
        while self.output.waiting() < WAITING && idle < self.sources.len() {
            let count = self.sources.len();
            let number = self.sources.get(self.turn % count).map(|source| source.number);
            let goes_on = number.is_some() && number == self.output.unfinished();
            if !goes_on && self.lets_others_first(self.turn % count) {
                self.turn = (self.turn + 1) % count;
                self.taken = 0;
                continue;
            }
            let Some(source) = self.sources.get_mut(self.turn % count) else { return };
            let mut buffer = [0; CHUNK];
            let mut taken = source.peek(&mut buffer);
            let interrupts = self.output.unfinished().is_some_and(|other| other != source.number);
            if taken > 0 && interrupts {
                if self.patience.lasts(now()) {
                    taken = 0;
                    waits = true;
                } else {
                    self.patience.renew();
                }
            }
            let bytes = buffer.get(..taken).unwrap_or_default();
            let line = bytes.iter().rposition(|byte| *byte == b'\n').map_or(taken, |end| end + 1);
            self.output.write(source.number, bytes.get(..line).unwrap_or_default());
            source.skip(line);
            if self.output.unfinished().is_none() {
                self.patience.renew();
            }
            self.taken += line;
            self.collected = self.collected.wrapping_add(line);
            idle = if taken == 0 { idle + 1 } else { 0 };
            if taken == 0 || self.output.unfinished().is_none() || self.taken >= TURN {
                self.turn = (self.turn + 1) % count;
                self.taken = 0;
            }
        }
        if idle >= self.sources.len() && !waits {
            self.patience.renew();
        }
    }

    /// Whether a source still waits for those before it: as long as they have something, but not for more than fits their
    /// rings, so that nobody can keep a log from the terminal.
    fn lets_others_first(&mut self, index: usize) -> bool {
        let mut byte = [0];
        let Some(source) = self.sources.get(index) else { return false };
        let first = self.sources.get(source.after.clone()).unwrap_or_default();
        let patience = OUTPUT * first.len();
        let others =
            source.peek(&mut byte) > 0 && first.iter().any(|other| other.peek(&mut byte) > 0);
        let collected = self.collected;
        let Some(source) = self.sources.get_mut(index) else { return false };
        if !others {
            source.since = None;
            return false;
        }
        let since = *source.since.get_or_insert(collected);
        collected.wrapping_sub(since) < patience
    }

    /// Fills the transmit FIFO if it is empty. What is sent appears on the screen as well; without
    /// a serial port that is at once.
    fn send(&mut self) {
        let room = match &self.uart {
            Some(uart) if self.output.waiting() > 0 && uart.can_send() => FIFO,
            Some(_) => 0,
            None => self.output.waiting(),
        };
        for _ in 0..room {
            let Some(byte) = self.output.next_byte() else { break };
            if let Some(uart) = &self.uart {
                uart.send(byte);
            }
            if let Some(display) = &mut self.display {
                display.feed(byte);
            }
        }
        if let Some(uart) = &mut self.uart {
            uart.interrupt_when_sent(self.output.waiting() > 0);
        }
    }

    /// Asks to be woken by whoever has something to say or to take. If somebody has already, it is
    /// not right to sleep; but what waits for the serial port is woken by its interrupt.
    fn prepare_wait(&self) -> bool {
        let collecting = self.output.waiting() < WAITING;
        // Those who wait for the end of a line have something, and time to wait.
        let unfinished = self.output.unfinished().filter(|_| self.patience.deadline().is_some());
        let sleeps = |source: &Source| unfinished.is_some_and(|other| other != source.number);
        let quiet = !collecting
            || self.sources.iter().all(|source| source.prepare_wait() || sleeps(source));
        let full = self.readers.iter().filter(|reader| !reader.backlog.is_empty());
        quiet && full.fold(true, |right, reader| right & reader.input.prepare_wait())
    }
}
