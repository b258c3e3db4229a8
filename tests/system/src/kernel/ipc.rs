//! Messages.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::cap::{Perms, Selector};
use abi::hypercall::Status;
use abi::utcb::{Item, MAX_WORDS, MsgTag, Utcb, Window};
use runtime::clock::now;
use runtime::ec::Ec;
use runtime::handler::Handler;
use runtime::lock::Lock;
use runtime::pd::Pd;
use runtime::pt::Pt;
use runtime::selector::FREE;
use runtime::sm::Sm;
use runtime::task::{Defaults, defaults};

use super::threads::{STACK, semaphore, settle, spawn, wait};
use crate::report::{Bench, Check, Test};
use crate::{check, check_eq};

pub const TESTS: &[Test] = &[
    ("ipc.words", words),
    ("ipc.identifier", identifier),
    ("ipc.items", items),
    ("ipc.items-in-reply", items_in_reply),
    ("ipc.nested", nested),
    ("ipc.busy-handler", busy),
    ("ipc.helping", helping),
    ("ipc.dead-handler", dead),
    ("ipc.recursion", recursion),
    ("ipc.too-deep", too_deep),
    ("ipc.too-deep-and-waiting", too_deep_and_waiting),
    ("ipc.no-leftovers", no_leftovers),
];

fn show(status: Status) -> String {
    format!("{status:?}")
}

/// Adds one to every word and sends as many back.
fn echo((): &mut (), utcb: &mut Utcb, id: u64, tag: u64) -> MsgTag {
    let tag = MsgTag(tag);
    for word in &mut utcb.words[..tag.words()] {
        *word = word.wrapping_add(id);
    }
    tag
}

fn words(bench: &mut Bench<'_>) -> Check {
    let handler = Handler::new(()).map_err(show)?;
    let portal = handler.portal(1, 0, echo).map_err(show)?;
    for count in [0, 1, 2, 3, 4, 5, 6, 17, 128, 255, 256] {
        for (index, word) in (0..).zip(&mut bench.utcb.words) {
            *word = 0x1_0000 + index;
        }
        let reply = portal.call(bench.utcb, MsgTag::new(count, 0)).map_err(show)?;
        check_eq!((reply.words(), reply.items()), (count, 0), "tag for {count} words");
        for (index, word) in (0..).zip(&bench.utcb.words) {
            let expected = 0x1_0000 + index as u64 + u64::from(index < count);
            check_eq!(*word, expected, "word {index} of {count}");
        }
    }
    // A tag with more than there can be is cut.
    let reply = portal.call(bench.utcb, MsgTag(u64::MAX)).map_err(show)?;
    check_eq!(reply.words(), MAX_WORDS, "words of a tag of ones");
    Ok(())
}

fn identifier(bench: &mut Bench<'_>) -> Check {
    let handler = Handler::new(()).map_err(show)?;
    let portal = handler.portal(0x1234_5678_9abc_def0, 0, echo).map_err(show)?;
    let mut ask = |portal: Pt| {
        bench.utcb.words[0] = 0;
        portal.call(bench.utcb, MsgTag::new(1, 0)).map_err(show)?;
        Ok::<_, String>(bench.utcb.words[0])
    };
    check_eq!(ask(portal)?, 0x1234_5678_9abc_def0, "identifier");
    portal.change(u64::MAX - 5, 0).map_err(show)?;
    check_eq!(ask(portal)?, u64::MAX - 5, "changed identifier");
    Ok(())
}

/// Opens a window when called with two words, else reports the items as words.
fn receive((): &mut (), utcb: &mut Utcb, _: u64, tag: u64) -> MsgTag {
    let tag = MsgTag(tag);
    if tag.words() == 2 {
        utcb.window = Window { base: utcb.words[0] as u32, count: utcb.words[1] as u32 };
        return MsgTag::default();
    }
    for (i, item) in (0..tag.items()).zip(utcb.items) {
        utcb.words[2 * i] = item.selector.into();
        utcb.words[2 * i + 1] = item.perms.into();
    }
    MsgTag::new(2 * tag.items(), 0)
}

fn send(
    bench: &mut Bench<'_>,
    portal: Pt,
    items: &[Item],
) -> Result<alloc::vec::Vec<(u64, u64)>, String> {
    bench.utcb.items[..items.len()].copy_from_slice(items);
    portal.call(bench.utcb, MsgTag::new(0, items.len())).map_err(show)?;
    Ok(bench.utcb.words.chunks(2).take(items.len()).map(|pair| (pair[0], pair[1])).collect())
}

fn open(bench: &mut Bench<'_>, portal: Pt, base: Selector, count: u32) -> Check {
    bench.utcb.words[0] = base.into();
    bench.utcb.words[1] = count.into();
    portal.call(bench.utcb, MsgTag::new(2, 0)).map(|_| ()).map_err(show)
}

fn items(bench: &mut Bench<'_>) -> Check {
    let handler = Handler::new(()).map_err(show)?;
    let portal = handler.portal(0, 0, receive).map_err(show)?;
    let sm = Sm::create(Pd::OWN, 0).map_err(show)?;
    let base = FREE.range(8).map_err(show)?;
    let whole = Item::new(sm.selector(), Perms::ALL);
    let up_only = Item::new(sm.selector(), Perms::SM_UP);
    let nothing = Item::new(base + 7, Perms::ALL);
    // No window yet: nothing is taken.
    check_eq!(send(bench, portal, &[whole])?, [(0, 0)], "without a window");
    open(bench, portal, base, 3)?;
    let landed = send(bench, portal, &[whole, nothing, up_only, whole])?;
    let b = u64::from(base);
    // The second names an empty selector, the fourth has no place left.
    check_eq!(landed[..], [(b, 0xff), (0, 0), (b + 2, 1), (0, 0)], "through a window of 3");
    let copy = Sm::at(base + 2);
    check_eq!((copy.up(), copy.down_until(0)), (Ok(()), Err(Status::BadCap)), "with SM_UP alone");
    check_eq!(Sm::at(base).down_until(0), Ok(()), "with everything");
    check_eq!(Sm::at(base + 1).up(), Err(Status::BadCap), "where nothing landed");
    // What is occupied stays.
    let landed = send(bench, portal, &[up_only, whole])?;
    check_eq!(landed[..], [(0, 0), (b + 1, 0xff)], "with the first selector taken");
    check_eq!((Sm::at(base).up(), Sm::at(base).down_until(0)), (Ok(()), Ok(())), "the old one");
    // A window at the end of the selectors, and one beyond.
    for at in [abi::cap::SELECTORS, u32::MAX] {
        open(bench, portal, at, 2)?;
        check_eq!(send(bench, portal, &[whole, whole])?, [(0, 0), (0, 0)], "window at {at:#x}");
    }
    Ok(())
}

fn items_in_reply(bench: &mut Bench<'_>) -> Check {
    let sm = Sm::create(Pd::OWN, 3).map_err(show)?;
    let handler = Handler::new(sm).map_err(show)?;
    let portal = handler.portal(0, 0, |sm: &mut Sm, utcb: &mut Utcb, _, _| {
        utcb.items[0] = Item::new(sm.selector(), Perms::SM_DOWN);
        MsgTag::new(0, 1)
    });
    let base = FREE.one().map_err(show)?;
    bench.utcb.window = Window { base, count: 1 };
    let reply = portal.map_err(show)?.call(bench.utcb, MsgTag::default()).map_err(show)?;
    bench.utcb.window = Window::default();
    check_eq!(reply.items(), 1, "items");
    check_eq!(bench.utcb.items[0], Item::new(base, Perms::SM_DOWN), "item");
    check_eq!(
        (Sm::at(base).down_until(0), Sm::at(base).up()),
        (Ok(()), Err(Status::BadCap)),
        "use"
    );
    Ok(())
}

fn nested(bench: &mut Bench<'_>) -> Check {
    // A chain of handlers, each of which calls the next and adds its share.
    let first = Handler::new(()).map_err(show)?;
    let mut portal = first.portal(1, 0, echo).map_err(show)?;
    for _ in 0..10 {
        let handler = Handler::with(defaults(), STACK, portal).map_err(show)?;
        portal = handler
            .portal(10, 0, |next: &mut Pt, utcb: &mut Utcb, id, tag| {
                let next = *next;
                let answered = next.call(utcb, MsgTag(tag)).is_ok();
                utcb.words[0] += if answered { id } else { 1_000_000 };
                MsgTag(tag)
            })
            .map_err(show)?;
    }
    for round in 0..3 {
        bench.utcb.words[0] = 0;
        portal.call(bench.utcb, MsgTag::new(1, 0)).map_err(show)?;
        check_eq!(bench.utcb.words[0], 101, "round {round}");
    }
    Ok(())
}

/// What the threads of a test did, in order.
struct Journal(Lock<alloc::vec::Vec<u8>>);

impl Journal {
    fn new() -> &'static Self {
        Box::leak(Box::new(Self(Lock::new(alloc::vec::Vec::with_capacity(64)))))
    }
    fn note(&self, what: u8) {
        self.0.lock().push(what);
    }
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }
}

fn busy(bench: &mut Bench<'_>) -> Check {
    // The handler blocks while it serves its first caller; the second one has a higher priority and must wait all the same.
    let journal = Journal::new();
    let (gate, done) = (semaphore()?, semaphore()?);
    let handler = Handler::new((journal, gate)).map_err(show)?;
    let portal = handler
        .portal(0, 0, |(journal, gate): &mut (&'static Journal, Sm), utcb: &mut Utcb, _, _| {
            journal.note(utcb.words[0] as u8);
            let _ = gate.down();
            MsgTag::default()
        })
        .map_err(show)?;
    for (name, priority) in [(b'a', 2), (b'b', 3), (b'c', 4)] {
        spawn(priority, move |utcb| {
            utcb.words[0] = name.into();
            let reply = portal.call(utcb, MsgTag::new(1, 0));
            journal.note(if reply.is_ok() { name - 32 } else { b'?' });
            let _ = done.up();
        })?;
        settle(bench)?;
    }
    check_eq!(journal.text(), "a", "before the gate opens");
    for turn in 0..3 {
        gate.up().map_err(show)?;
        wait(bench, done, "a reply")
            .map_err(|why| format!("turn {turn}: {why}; {}", journal.text()))?;
    }
    // The most important of those that wait is next, even before the one that was answered goes on.
    check_eq!(journal.text(), "acACbB", "order");
    Ok(())
}

fn spin(ticks: u64) {
    let start = now();
    while now().wrapping_sub(start) < ticks {}
}

fn helping(bench: &mut Bench<'_>) -> Check {
    // A thread of low priority is in the handler, one of medium priority could hold it up for long, one of high priority
    // needs the handler: it helps, so the medium one has to wait.
    let journal = Journal::new();
    let (ready, done) = (semaphore()?, semaphore()?);
    let handler = Handler::new(ready).map_err(show)?;
    let portal = handler
        .portal(0, 0, |ready: &mut Sm, _: &mut Utcb, _, _| {
            let _ = ready.up();
            spin(300_000);
            MsgTag::default()
        })
        .map_err(show)?;
    spawn(1, move |_| {
        let _ = portal.signal();
        journal.note(b'l');
        let _ = done.up();
    })?;
    wait(bench, ready, "the first call")?;
    // The main thread is more important than all: they start when it waits.
    spawn(2, move |_| {
        spin(2_000_000);
        journal.note(b'm');
        let _ = done.up();
    })?;
    spawn(3, move |_| {
        let _ = portal.signal();
        journal.note(b'h');
        let _ = done.up();
    })?;
    for _ in 0..3 {
        wait(bench, done, "the end of a thread")?;
    }
    let order = journal.text();
    check!(order.find('h') < order.find('m'), "the medium thread held the other up: {order}");
    Ok(())
}

fn dead(bench: &mut Bench<'_>) -> Check {
    // There are no portals for its exceptions.
    let events = FREE.range(32).map_err(show)?;
    let handler = Handler::with(Defaults { events, ..defaults() }, STACK, ()).map_err(show)?;
    let portal = handler
        .portal(0, 0, |(), _: &mut Utcb, _, _| -> MsgTag { runtime::task::die() })
        .map_err(show)?;
    check_eq!(portal.call(bench.utcb, MsgTag::default()), Err(Status::Aborted), "its last call");
    check_eq!(portal.call(bench.utcb, MsgTag::default()), Err(Status::Aborted), "the call after");
    // A handler in the middle hears of it.
    let middle = Handler::new(portal).map_err(show)?;
    let portal = middle
        .portal(0, 0, |next: &mut Pt, utcb: &mut Utcb, _, _| {
            utcb.words[0] = next.signal().err().map_or(99, |status| status as u64);
            MsgTag::new(1, 0)
        })
        .map_err(show)?;
    portal.call(bench.utcb, MsgTag::default()).map_err(show)?;
    check_eq!(bench.utcb.words[0], Status::Aborted as u64, "what a handler in between gets");
    Ok(())
}

/// Two portals that a handler calls: the one of the other handler, or its own.
static CIRCLE: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// Calls the portal that the identifier names, and returns the status as a word.
fn call_on((): &mut (), utcb: &mut Utcb, id: u64, _: u64) -> MsgTag {
    let next = CIRCLE.get(id as usize).map_or(0, |portal| portal.load(Ordering::Relaxed));
    utcb.words[0] = Pt::at(next as Selector).signal().err().map_or(0, |status| status as u64);
    MsgTag::new(1, 0)
}

/// Whoever calls in a circle would wait for itself, for ever: the call that closes it fails.
fn recursion(bench: &mut Bench<'_>) -> Check {
    let (one, other) = (Handler::new(()).map_err(show)?, Handler::new(()).map_err(show)?);
    let to_one = one.portal(1, 0, call_on).map_err(show)?;
    let to_other = other.portal(0, 0, call_on).map_err(show)?;
    CIRCLE[0].store(to_one.selector().into(), Ordering::Relaxed);
    for (what, second) in [("itself", to_one), ("its caller", to_other)] {
        CIRCLE[1].store(second.selector().into(), Ordering::Relaxed);
        let done = semaphore()?;
        let seen: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(u64::MAX)));
        let first = if what == "itself" { to_one } else { to_other };
        spawn(bench.priority - 1, move |utcb| {
            if first.call(utcb, MsgTag::default()).is_ok() {
                seen.store(utcb.words[0], Ordering::Relaxed);
            }
            let _ = done.up();
        })?;
        wait(bench, done, "the end of a circle of calls")?;
        let seen = seen.load(Ordering::Relaxed);
        // In the longer circle the first handler's own call succeeds, and its words are what the second left.
        let failed = seen == Status::Aborted as u64 || (what != "itself" && seen == 0);
        check!(failed, "a handler that calls {what} got {seen}");
    }
    Ok(())
}

/// Handlers each of which calls the one before it, the first of them `last`, and a portal to the last of them.
fn through(last: Pt) -> Result<(Vec<Ec>, Pt), String> {
    /// More than the kernel follows.
    const DEPTH: usize = 80;
    let mut handlers = Vec::new();
    let mut portal = last;
    for _ in 0..DEPTH {
        let handler = Handler::with(defaults(), STACK, portal).map_err(show)?;
        portal = handler
            .portal(0, 0, |next: &mut Pt, _: &mut Utcb, _, _| {
                let _ = next.signal();
                MsgTag::default()
            })
            .map_err(show)?;
        handlers.push(handler.ec());
    }
    Ok((handlers, portal))
}

fn end_all(handlers: Vec<Ec>) -> Check {
    // SAFETY: they hold nothing.
    handlers.into_iter().rev().try_for_each(|handler| unsafe { handler.destroy() }.map_err(show))
}

/// Calls that are nested too deep do not keep anybody else from running, and whoever made the first one gets its answer: one of the others
/// fails.
fn too_deep(bench: &mut Bench<'_>) -> Check {
    let (reached, back) = (semaphore()?, semaphore()?);
    let last = Handler::with(defaults(), STACK, reached).map_err(show)?;
    let last = last
        .portal(0, 0, |reached: &mut Sm, _: &mut Utcb, _, _| {
            let _ = reached.up();
            // Preempted here, it has to be found again from the first call on.
            spin(1_000_000);
            MsgTag::default()
        })
        .map_err(show)?;
    let (handlers, portal) = through(last)?;
    spawn(bench.priority - 1, move |_| {
        if portal.signal().is_ok() {
            let _ = back.up();
        }
    })?;
    wait(bench, reached, "the last call")?;
    let sleep = semaphore()?;
    check_eq!(sleep.down_until(bench.in_ms(20)), Err(Status::Timeout), "sleep");
    wait(bench, back, "the first call")?;
    end_all(handlers)
}

/// The same where the last one waits for ever: whoever made the first call gets an answer, at the latest when its handler is ended.
fn too_deep_and_waiting(bench: &mut Bench<'_>) -> Check {
    let (reached, back) = (semaphore()?, semaphore()?);
    let last = Handler::with(defaults(), STACK, (reached, semaphore()?)).map_err(show)?;
    let last = last
        .portal(0, 0, |(reached, never): &mut (Sm, Sm), _: &mut Utcb, _, _| {
            let _ = reached.up();
            let _ = never.down();
            MsgTag::default()
        })
        .map_err(show)?;
    let (handlers, portal) = through(last)?;
    spawn(bench.priority - 1, move |_| {
        let _ = portal.signal();
        let _ = back.up();
    })?;
    wait(bench, reached, "the last call")?;
    settle(bench)?;
    end_all(handlers)?;
    wait(bench, back, "the first call")
}

/// A short reply carries its own words, and nothing that lies behind them in the server's page.
fn no_leftovers(bench: &mut Bench<'_>) -> Check {
    let handler = Handler::new(()).map_err(show)?;
    let two = handler.portal(0, 0, |(), _: &mut Utcb, _, _| MsgTag::new(2, 0)).map_err(show)?;
    bench.utcb.words[..4].copy_from_slice(&[1, 2, 0x5ec2e7, 0x5ec2e8]);
    two.call(bench.utcb, MsgTag::new(4, 0)).map_err(show)?;
    for count in [0, 1, 2, 3] {
        bench.utcb.words[..4].fill(0);
        two.call(bench.utcb, MsgTag::new(count, 0)).map_err(show)?;
        check_eq!(bench.utcb.words[2..4], [0, 0], "words behind a reply to {count} words");
    }
    Ok(())
}
