//! The process in which inputs are tried, until time is up or one of them finds a bug.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::allocation;
use crate::compares;
use crate::corpus;
use crate::coverage::{self, Seen};
use crate::mutate::Mutator;
use crate::random::Random;
use crate::targets::Target;

/// What a worker ends with when an input made the program panic.
pub const PANICKED: u8 = 101;

/// How long a campaign is.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Seconds; ignored if there is a number of runs.
    pub seconds: u64,
    /// Inputs that are made.
    pub runs: Option<u64>,
    /// Chooses one of all sequences of inputs.
    pub seed: u64,
}

/// The input that is being tried, where another process can read it: its number, its length, and
/// its bytes.
#[derive(Debug)]
pub struct Scratch {
    file: File,
    count: u64,
}

/// Bytes before the input in the file.
const HEAD: usize = 16;

impl Scratch {
    /// A new file.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::create(path)?, count: 0 })
    }

    fn put(&mut self, input: &[u8]) {
        self.count += 1;
        let mut bytes = Vec::with_capacity(HEAD + input.len());
        bytes.extend(self.count.to_le_bytes());
        bytes.extend((input.len() as u64).to_le_bytes());
        bytes.extend(input);
        self.file.write_all_at(&bytes, 0).expect("the scratch file can be written");
    }

    /// The number of the input in the file at `path`, and the input; `None` before the first.
    pub fn get(path: &Path) -> Option<(u64, Vec<u8>)> {
        let bytes = fs::read(path).ok()?;
        let word = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let length = usize::try_from(word(8)?).ok()?;
        Some((word(0)?, bytes.get(HEAD..HEAD.checked_add(length)?)?.to_vec()))
    }
}

/// What the latest panic said.
static SAID: Mutex<String> = Mutex::new(String::new());

fn said() -> String {
    SAID.lock().map_or_else(|poisoned| poisoned.into_inner().clone(), |text| text.clone())
}

/// Keeps what a panic says instead of printing it.
fn listen() {
    panic::set_hook(Box::new(|info| {
        compares::stop();
        allocation::unlimited();
        if let Ok(mut text) = SAID.lock() {
            *text = info.to_string();
        }
    }));
}

/// A campaign.
struct Campaign<'a> {
    target: &'a Target,
    scratch: Scratch,
    mutator: Mutator<'a>,
    seen: Seen,
    snapshot: Vec<u8>,
    /// Inputs of which each reached something new.
    kept: Vec<Vec<u8>>,
}

/// Tries the seeds, the stored corpus, and then what comes of them. Prints a line in the end.
pub fn campaign(target: &Target, effort: Effort, scratch: Scratch, save: bool) -> ExitCode {
    listen();
    let mutator = Mutator {
        random: Random::new(effort.seed),
        dictionary: target.dictionary,
        longest: target.longest,
    };
    let (seen, snapshot, kept) = (Seen::new(), Vec::new(), Vec::new());
    let mut campaign = Campaign { target, scratch, mutator, seen, snapshot, kept };
    let stored = match corpus::read(target) {
        Ok(stored) => stored,
        Err(error) => {
            println!("the corpus cannot be read: {error}");
            return ExitCode::FAILURE;
        }
    };
    match campaign.run(stored, effort) {
        Ok(text) => {
            println!("{text}");
            if save && let Err(error) = corpus::write(target, &campaign.smallest()) {
                println!("the corpus cannot be written: {error}");
                return ExitCode::FAILURE;
            }
            ExitCode::SUCCESS
        }
        Err(input) => {
            let input = campaign.shrink(input);
            campaign.scratch.put(&input);
            println!("{}", said());
            ExitCode::from(PANICKED)
        }
    }
}

/// Tries one input, and lets a panic take its course.
pub fn once(target: &Target, mut scratch: Scratch, input: &[u8]) {
    scratch.put(input);
    allocation::limit();
    (target.run)(input);
    allocation::unlimited();
}

impl Campaign<'_> {
    /// Runs to the end; the error is the input that made the program panic.
    fn run(&mut self, stored: Vec<Vec<u8>>, effort: Effort) -> Result<String, Vec<u8>> {
        let begin = Instant::now();
        for input in (self.target.seeds)().into_iter().chain(stored) {
            self.consider(input)?;
        }
        if self.kept.is_empty() {
            self.kept.push(Vec::new());
        }
        let (first, known) = (self.scratch.count, self.kept.len());
        let limit = Duration::from_secs(effort.seconds);
        loop {
            let runs = self.scratch.count - first;
            let over = effort.runs.map_or_else(|| begin.elapsed() >= limit, |most| runs >= most);
            if over {
                let (edges, new) = (self.seen.edges(), self.kept.len() - known);
                return Ok(format!("{runs} inputs, {edges} edges, {known} known and {new} new"));
            }
            let input = self.next();
            self.consider(input)?;
        }
    }

    /// A change of something that was kept, the latest more often.
    fn next(&mut self) -> Vec<u8> {
        let random = &mut self.mutator.random;
        let count = self.kept.len();
        let back = if random.one_in(3) { count.min(8) } else { count };
        let mut input = self.kept[count - 1 - random.below(back)].clone();
        let other = self.kept[random.below(count)].clone();
        self.mutator.mutate(&mut input, &other);
        input
    }

    /// Tries an input and keeps it if it reached something new.
    fn consider(&mut self, input: Vec<u8>) -> Result<(), Vec<u8>> {
        if !self.survives(&input) {
            return Err(input);
        }
        if self.seen.add(&self.snapshot) {
            self.kept.push(input);
        }
        Ok(())
    }

    /// Tries an input and takes a snapshot of what it reached. Whether the program came to its end.
    ///
    /// This function has edges of its own. Each copy of it would have others, which would look like
    /// something new that the program did.
    #[inline(never)]
    fn survives(&mut self, input: &[u8]) -> bool {
        self.scratch.put(input);
        let run = self.target.run;
        let result = panic::catch_unwind(AssertUnwindSafe(|| {
            allocation::limit();
            coverage::clear();
            compares::recorded(|| run(input));
        }));
        allocation::unlimited();
        coverage::copy_to(&mut self.snapshot);
        result.is_ok()
    }

    /// The smallest input that can be found quickly and panics at the same place.
    fn shrink(&mut self, input: Vec<u8>) -> Vec<u8> {
        let place = |text: &str| text.lines().next().unwrap_or_default().to_owned();
        let wanted = place(&said());
        let mut same = |candidate: &[u8]| !self.survives(candidate) && place(&said()) == wanted;
        let input = reduce(input, Duration::from_secs(2), &mut same);
        // The message is that of the input which is kept.
        self.survives(&input);
        input
    }

    /// Few and short inputs that reach every edge that the kept ones reach, and the seeds do not.
    fn smallest(&mut self) -> Vec<Vec<u8>> {
        let mut seen = Seen::new();
        for seed in (self.target.seeds)() {
            seen.add(self.reached(&seed));
        }
        let mut kept = self.kept.clone();
        kept.sort_by_key(Vec::len);
        let mut smallest = Vec::new();
        for input in kept {
            let new = seen.missing(self.reached(&input));
            if new.is_empty() {
                continue;
            }
            let mut as_good = |candidate: &[u8]| {
                let snapshot = self.reached(candidate);
                new.iter().all(|edge| snapshot[*edge] != 0)
            };
            let input = reduce(input, Duration::from_millis(100), &mut as_good);
            seen.add(self.reached(&input));
            smallest.push(input);
        }
        smallest
    }

    /// What a run reaches.
    fn reached(&mut self, input: &[u8]) -> &[u8] {
        self.survives(input);
        &self.snapshot
    }
}

/// Takes pieces out of an input, and clears what cannot be taken out, as long as `good` says yes to
/// the result.
fn reduce(mut input: Vec<u8>, limit: Duration, good: &mut dyn FnMut(&[u8]) -> bool) -> Vec<u8> {
    let begin = Instant::now();
    let mut size = input.len();
    while size > 0 {
        let mut at = 0;
        while at < input.len() && begin.elapsed() < limit {
            let end = (at + size).min(input.len());
            let mut shorter = input.clone();
            shorter.drain(at..end);
            if good(&shorter) {
                input = shorter;
                continue;
            }
            let mut zeros = input.clone();
            zeros[at..end].fill(0);
            if zeros != input && good(&zeros) {
                input = zeros;
            }
            at = end;
        }
        size /= 2;
    }
    input
}

/// Where workers of a supervisor put the inputs that they try.
pub fn scratch_path(folder: &Path, target: &Target) -> PathBuf {
    folder.join(format!("{}.input", target.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_matter_is_taken_out() {
        let mut matters =
            |input: &[u8]| input.len() >= 5 && input.windows(3).any(|window| window == b"bug");
        let input = b"there is one bug in this input".to_vec();
        let small = reduce(input, Duration::from_secs(60), &mut matters);
        assert_eq!(small.len(), 5);
        assert!(small.iter().all(|byte| b"bug\0".contains(byte)), "{small:?}");
    }
}
