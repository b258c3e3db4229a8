//! Capability tables, quotas, page tables and the page pool together, as the kernel uses them, against a model of maps and sets: ten
//! million operations at random.

use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use abi::cap::{MemRights, ObjectType, Perms, Selector};
use abi::hypercall::Status;

use crate::buddy::{Buddy, Memory};
use crate::frames::{Frames, WORDS};
use crate::objects::{Cap, ObjectTable, clear, next};
use crate::paging::{Ept, PageTable};
use crate::quota::Quota;

const OPERATIONS: u64 = 10_000_000;
/// Operations from one look at everything to the next.
const AUDIT: u64 = 100_000;
/// Pages of the machine.
const PAGES: u64 = 2048;
/// Where they begin.
const BASE: u64 = 0x4000_0000;
/// Domains, and objects of all domains, at a time.
const DOMAINS: usize = 12;
const OBJECTS: usize = 64;
/// Selectors that are used in each table, in two leaves.
const SELECTORS: [Selector; 24] = {
    let mut selectors = [0; 24];
    let mut at = 0;
    while at < 24 {
        selectors[at] = if at % 2 == 0 { 1 + at as Selector } else { 300 + at as Selector };
        at += 1;
    }
    selectors
};
/// Capabilities at a time.
const MOST: usize = DOMAINS * SELECTORS.len();

/// Physical memory.
struct Ram(Vec<u64>);

impl Ram {
    fn index(address: u64) -> usize {
        usize::try_from((address - BASE) / 8).expect("an address outside of memory")
    }
}

impl Memory for Ram {
    fn read(&self, address: u64) -> u64 {
        self.0[Self::index(address)]
    }
    fn write(&mut self, address: u64, value: u64) {
        self.0[Self::index(address)] = value;
    }
}

/// The pool, and who the model says has each page.
struct Pool {
    buddy: Buddy,
    ram: Ram,
    owners: BTreeMap<u64, usize>,
}

/// The pool seen through the account of a domain.
struct Account<'a> {
    pool: &'a mut Pool,
    quota: &'a mut Quota,
    domain: usize,
}

impl Frames for Account<'_> {
    fn alloc(&mut self) -> Option<u64> {
        self.quota.take(1).ok()?;
        let page = self.pool.buddy.alloc(&mut self.pool.ram, 0).expect("quotas promise too much");
        let first = Ram::index(page);
        self.pool.ram.0[first..first + WORDS].fill(0);
        let before = self.pool.owners.insert(page, self.domain);
        assert_eq!(before, None, "page {page:#x} is given out twice");
        Some(page)
    }
    fn free(&mut self, page: u64) {
        assert_eq!(self.pool.owners.remove(&page), Some(self.domain), "page {page:#x} is not its");
        self.pool.buddy.free(&mut self.pool.ram, page, 0);
        self.quota.give(1);
    }
    fn read(&self, page: u64, index: usize) -> u64 {
        assert!(self.pool.owners.contains_key(&page), "page {page:#x} is read, but it is free");
        self.pool.ram.read(page + 8 * index as u64)
    }
    fn write(&mut self, page: u64, index: usize, value: u64) {
        assert!(self.pool.owners.contains_key(&page), "page {page:#x} is written, but it is free");
        self.pool.ram.write(page + 8 * index as u64, value);
    }
}

struct Domain {
    quota: Quota,
    parent: Option<usize>,
    table: u64,
    guest: u64,
    /// What the model says of them.
    caps: BTreeMap<Selector, Cap>,
    pages: BTreeMap<u64, u64>,
}

/// An object: a page of its domain, and the list of the capabilities to it.
struct Object {
    domain: usize,
    page: u64,
    head: u64,
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

struct Machine {
    pool: Pool,
    domains: Vec<Option<Domain>>,
    objects: Vec<Option<Object>>,
    total: u64,
}

/// The account of a domain that is there.
macro_rules! account {
    ($machine:expr, $domain:expr) => {
        Account {
            pool: &mut $machine.pool,
            quota: &mut $machine.domains[$domain].as_mut().expect("no such domain").quota,
            domain: $domain,
        }
    };
}

impl Machine {
    fn new() -> Self {
        let mut ram = Ram(vec![0; PAGES as usize * WORDS]);
        let mut buddy = Buddy::new();
        assert!(buddy.donate(&mut ram, BASE, PAGES), "memory for the pool");
        let total = buddy.free_pages();
        let pool = Pool { buddy, ram, owners: BTreeMap::new() };
        let domains = (0..DOMAINS).map(|_| None).collect();
        let objects = (0..OBJECTS).map(|_| None).collect();
        let mut machine = Self { pool, domains, objects, total };
        assert!(machine.found(0, None, Quota::new(total)));
        machine
    }

    /// Makes a domain with that quota, if that is enough for its tables.
    fn found(&mut self, at: usize, parent: Option<usize>, quota: Quota) -> bool {
        let (caps, pages) = (BTreeMap::new(), BTreeMap::new());
        self.domains[at] = Some(Domain { quota, parent, table: 0, guest: 0, caps, pages });
        let mut account = account!(self, at);
        let table = ObjectTable::new(&mut account).map_or(0, |table| table.root);
        let guest = PageTable::<Ept>::new(30, &mut account).map_or(0, |table| table.root);
        let domain = self.domains[at].as_mut().expect("it was just made");
        (domain.table, domain.guest) = (table, guest);
        if table == 0 || guest == 0 {
            self.end_domain(at);
            return false;
        }
        true
    }

    fn create_domain(&mut self, parent: usize, pages: u64) {
        let Some(at) = self.domains.iter().position(Option::is_none) else { return };
        let mut quota = Quota::new(0);
        let from = &mut self.domains[parent].as_mut().expect("the parent").quota;
        if Quota::transfer(from, &mut quota, pages).is_ok() {
            self.found(at, Some(parent), quota);
        }
    }

    fn create_object(&mut self, domain: usize) {
        let Some(at) = self.objects.iter().position(Option::is_none) else { return };
        if let Some(page) = account!(self, domain).alloc() {
            self.objects[at] = Some(Object { domain, page, head: 0 });
            // Its first capability is where there is room, or nowhere: then nobody can name it.
            self.insert(domain, SELECTORS[at % SELECTORS.len()], at, Perms::ALL);
        }
    }

    fn insert(&mut self, domain: usize, selector: Selector, object: usize, perms: Perms) {
        let Some(Object { head, .. }) = self.objects[object] else { return };
        let cap = Cap::new(object as u64 + 1, ObjectType::Sm, perms);
        let to = self.domains[domain].as_ref().expect("the domain");
        let (taken, free) = (to.caps.contains_key(&selector), to.quota.free());
        let mut table = ObjectTable::from_root(to.table);
        match table.insert(&mut account!(self, domain), selector, cap, head) {
            Ok(slot) => {
                assert!(!taken, "selector {selector} was taken");
                self.objects[object].as_mut().expect("the object").head = slot;
                self.domains[domain].as_mut().expect("it").caps.insert(selector, cap);
            }
            Err(Status::Occupied) => assert!(taken, "selector {selector} is empty"),
            Err(Status::Quota) => assert_eq!(free, 0, "there was memory"),
            Err(error) => panic!("selector {selector} is refused: {error:?}"),
        }
    }

    fn grant(&mut self, from: usize, at: Selector, to: usize, selector: Selector, perms: Perms) {
        let domain = self.domains[from].as_ref().expect("the domain");
        let cap = ObjectTable::from_root(domain.table).get(&account!(self, from), at);
        let model = self.domains[from].as_ref().expect("it").caps.get(&at).copied();
        assert_eq!(cap, model.unwrap_or(Cap::EMPTY), "selector {at} of domain {from}");
        if !cap.is_empty() {
            let perms = cap.perms().intersection(perms);
            self.insert(to, selector, cap.object as usize - 1, perms);
        }
    }

    /// Takes capabilities away, one after the other.
    fn revoke(&mut self, domain: usize, mut from: Selector, limit: Selector) {
        let table = self.domains[domain].as_ref().expect("the domain").table;
        while from < limit {
            let table = ObjectTable::from_root(table);
            let found = table.find_next(&account!(self, domain), from, limit);
            from = found.next;
            let Some((cap, slot)) = found.cap else { continue };
            let object = self.objects[cap.object as usize - 1].as_mut().expect("a dead object");
            object.head = clear(&mut account!(self, domain), object.head, slot);
            let model = self.domains[domain].as_mut().expect("it").caps.remove(&(from - 1));
            assert_eq!(model, Some(cap), "selector {} of domain {domain}", from - 1);
        }
    }

    fn end_object(&mut self, at: usize) {
        let Some(Object { domain, page, head }) = self.objects[at] else { return };
        let (mut head, mut gone) = (head, 0);
        while head != 0 {
            head = clear(&mut account!(self, domain), head, head);
            gone += 1;
            assert!(gone <= MOST, "the list of object {at} has no end");
        }
        for domain in self.domains.iter_mut().flatten() {
            let before = domain.caps.len();
            domain.caps.retain(|_, cap| cap.object != at as u64 + 1);
            gone -= before - domain.caps.len();
        }
        assert_eq!(gone, 0, "capabilities that only one side knows of");
        self.objects[at] = None;
        account!(self, domain).free(page);
    }

    /// Ends a domain, with all below it; what it has left goes to its parent.
    fn end_domain(&mut self, at: usize) {
        self.domains[at].as_mut().expect("the domain").quota.close();
        while let Some(below) = self.below(at) {
            self.end_domain(below);
        }
        for object in 0..OBJECTS {
            if self.objects[object].as_ref().is_some_and(|object| object.domain == at) {
                self.end_object(object);
            }
        }
        let Domain { table, guest, .. } = *self.domains[at].as_ref().expect("it");
        if table != 0 {
            self.revoke(at, 1, abi::cap::SELECTORS);
            ObjectTable::from_root(table).destroy(&mut account!(self, at));
        }
        if guest != 0 {
            PageTable::<Ept>::from_root(guest, 30).destroy(&mut account!(self, at));
        }
        let mut domain = self.domains[at].take().expect("it");
        assert_eq!(domain.quota.free(), domain.quota.limit(), "pages of domain {at} are missing");
        if let Some(parent) = domain.parent {
            let to = &mut self.domains[parent].as_mut().expect("the parent").quota;
            let pages = domain.quota.free();
            Quota::transfer(&mut domain.quota, to, pages).expect("the way back");
        }
    }

    fn below(&self, at: usize) -> Option<usize> {
        let is_child = |domain: &Option<Domain>| {
            domain.as_ref().is_some_and(|domain| domain.parent == Some(at))
        };
        self.domains.iter().position(is_child)
    }

    fn map(&mut self, domain: usize, page: u64, frame: u64) {
        let guest = self.domains[domain].as_ref().expect("the domain").guest;
        let free = self.domains[domain].as_ref().expect("it").quota.free();
        let table = PageTable::<Ept>::from_root(guest, 30);
        let mut account = account!(self, domain);
        match table.map(&mut account, page << 12, frame << 12, 12, MemRights::RW) {
            Ok(_) => {
                self.domains[domain].as_mut().expect("it").pages.insert(page, frame);
            }
            Err(Status::Quota) => assert!(free < 3, "there was memory"),
            Err(error) => panic!("page {page:#x} is refused: {error:?}"),
        }
    }

    fn unmap(&mut self, domain: usize, page: u64, count: u64) {
        let guest = self.domains[domain].as_ref().expect("the domain").guest;
        let table = PageTable::<Ept>::from_root(guest, 30);
        let mut account = account!(self, domain);
        let mut done = 0;
        while done < count {
            let step = table.revoke(&mut account, page + done, count - done, MemRights::RWX);
            assert!(step.error.is_none() && step.done > 0, "no progress");
            done += step.done;
        }
        let model = &mut self.domains[domain].as_mut().expect("it").pages;
        model.retain(|at, _| !(page..page + count).contains(at));
    }

    fn transfer(&mut self, parent: usize, child: usize, pages: u64, give: bool) {
        let Ok([Some(parent), Some(child)]) = self.domains.get_disjoint_mut([parent, child]) else {
            return;
        };
        let (from, to) = if give {
            (&mut parent.quota, &mut child.quota)
        } else {
            (&mut child.quota, &mut parent.quota)
        };
        let enough = pages <= from.free();
        assert_eq!(Quota::transfer(from, to, pages).is_ok(), enough, "{pages} pages");
    }

    /// Looks at everything.
    fn audit(&mut self) {
        let mut limits = 0;
        for at in 0..DOMAINS {
            let Some(domain) = &self.domains[at] else { continue };
            limits += domain.quota.limit();
            let charged = self.pool.owners.values().filter(|owner| **owner == at).count() as u64;
            assert_eq!(domain.quota.limit() - domain.quota.free(), charged, "charged to {at}");
            let (table, guest) = (domain.table, domain.guest);
            let (caps, pages) = (domain.caps.clone(), domain.pages.clone());
            let account = account!(self, at);
            for selector in SELECTORS {
                let cap = ObjectTable::from_root(table).get(&account, selector);
                assert_eq!(cap, caps.get(&selector).copied().unwrap_or(Cap::EMPTY), "{selector}");
            }
            for (page, frame) in pages {
                let mapping = PageTable::<Ept>::from_root(guest, 30).lookup(&account, page << 12);
                assert_eq!(mapping.map(|mapping| mapping.pa >> 12), Some(frame), "page {page:#x}");
            }
        }
        assert_eq!(limits, self.total, "the sum of the limits");
        let owned = self.pool.owners.len() as u64;
        assert_eq!(self.pool.buddy.free_pages() + owned, self.total, "pages in the pool");
        for at in 0..OBJECTS {
            let Some(Object { domain, head, .. }) = self.objects[at] else { continue };
            let (mut slot, mut listed) = (head, 0);
            while slot != 0 {
                slot = next(&account!(self, domain), slot);
                listed += 1;
                assert!(listed <= MOST, "the list of object {at} has no end");
            }
            let all = self.domains.iter().flatten().flat_map(|domain| domain.caps.values());
            assert_eq!(
                listed,
                all.filter(|cap| cap.object == at as u64 + 1).count(),
                "object {at}"
            );
        }
    }
}

#[test]
fn ten_million_operations() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut machine = Machine::new();
    for operation in 0..OPERATIONS {
        let alive: Vec<usize> = (0..DOMAINS).filter(|at| machine.domains[*at].is_some()).collect();
        let one = |random: &mut Random| alive[random.below(alive.len() as u64) as usize];
        let selector = |random: &mut Random| SELECTORS[random.below(24) as usize];
        let domain = one(&mut random);
        match random.below(100) {
            0..4 => machine.create_domain(domain, random.below(40)),
            4..20 => machine.create_object(domain),
            20..50 => {
                let (at, to) = (selector(&mut random), one(&mut random));
                let (new, perms) = (selector(&mut random), Perms(random.below(256) as u8));
                machine.grant(domain, at, to, new, perms);
            }
            50..60 => {
                let first = selector(&mut random);
                machine.revoke(domain, first, first + random.below(8) as Selector);
            }
            60..68 => machine.end_object(random.below(OBJECTS as u64) as usize),
            68..70 if domain != 0 => machine.end_domain(domain),
            70..85 => {
                // Few tables, so that they are shared, and freed again.
                let page = random.below(3) << 18 | random.below(2) << 9 | random.below(16);
                machine.map(domain, page, random.below(1 << 20));
            }
            85..92 => machine.unmap(domain, random.below(3) << 18, random.below(1 << 10)),
            _ => {
                let parent = machine.domains[domain].as_ref().and_then(|domain| domain.parent);
                if let Some(parent) = parent {
                    machine.transfer(parent, domain, random.below(20), random.below(2) == 0);
                }
            }
        }
        if operation % AUDIT == 0 {
            machine.audit();
        }
    }
    machine.audit();
    machine.end_domain(0);
    assert!(machine.pool.owners.is_empty());
    assert_eq!(machine.pool.buddy.free_pages(), machine.total);
}
