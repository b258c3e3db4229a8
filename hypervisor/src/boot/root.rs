//! The root task: the only one that the kernel starts.

use abi::bundle::{Bundle, ROOT};
use abi::cap::{MemRights, Perms, SpaceKind, own, root};
use abi::hip::{self, Hip, Region, RegionKind};
use abi::hypercall::PRIORITIES;
use abi::layout::{PAGE_SIZE, ROOT_HIP, ROOT_LOG, ROOT_UTCB};
use abi::program::Program;
use bootloader_api::BootInfo;
use bootloader_api::info::{MemoryRegion, MemoryRegionKind};
use hypervisor_logic::acpi::PhysRead;
use hypervisor_logic::paging::PINNED;
use hypervisor_logic::physical::PhysicalSpace;
use hypervisor_logic::sched::Budget;
use spin::Once;

use super::machine::Machine;
use super::memory::Map;
use super::screen;
use crate::arch::{self, Resume, bitmaps, cpu, fpu, space};
use crate::log;
use crate::mem::tables::Tables;
use crate::mem::{pool, virt};
use crate::object::ec::{Ec, Kind, set_nobody};
use crate::object::pd::Pd;
use crate::object::sc::Sc;
use crate::object::sm::Sm;
use crate::object::space::{Space, Table};
use crate::object::{Object, Ref};
use crate::panic::refuse;

/// Time slice of the root task, in time-stamp-counter ticks.
const SLICE: u64 = 10_000_000;

/// Bytes of an ACPI root pointer.
const RSDP_LENGTH: usize = 36;

/// The highest priority.
const HIGHEST: u8 = (PRIORITIES - 1) as u8;

/// Unwraps what can only fail for lack of memory.
fn need<T, E>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|_| refuse(format_args!("too little memory for the root task")))
}

/// What the root task is made from, and the domain that it is made in.
struct Root<'a> {
    info: &'a BootInfo,
    map: &'a Map,
    machine: &'a Machine,
    pd: Ref<Pd>,
}

/// Makes the root task's objects and memory. Returns its scheduling context.
pub fn prepare(info: &BootInfo, map: &Map, machine: &Machine) -> Ref<Sc> {
    let page = need(pool::alloc().ok_or(()));
    // SAFETY: a fresh page for the first domain, and what is free of the pool is its quota.
    let pd = unsafe {
        virt(page).cast::<Pd>().write(Pd::new(0, pool::free_pages(), HIGHEST, u64::MAX));
        Ref::<Pd>::from_address(virt(page) as u64)
    };
    let kinds = [SpaceKind::Object, SpaceKind::Host, SpaceKind::Port, SpaceKind::Msr];
    let [objects, host, ports, msrs] = kinds.map(|kind| need(Space::create(pd, kind)));
    for space in [objects, host, ports] {
        space.adopt();
    }
    fill(&ports, &msrs);
    let root = Root { info, map, machine, pd };
    let (image_start, entry) = root.load_image();
    let physical_space = Table::Physical(root.physical_space(image_start));
    let frames = need(Ref::create(pd, Space::new(pd, physical_space)));
    let utcb = need(pd.account.take_page().ok_or(()));
    root.map(ROOT_UTCB, utcb, MemRights::RW.union(PINNED));
    root.map_log();
    let ec = root.start_thread(utcb, entry);
    crate::sched::set_tsc_hz(machine.calibration.tsc_hz);
    let budget = Budget::new(SLICE, 0, arch::tsc());
    let sc = need(Ref::create(pd, Sc::new(ec, HIGHEST, budget)));
    ec.sc.set(Some(sc));
    publish(pd, own::PD, pd);
    publish(pd, own::OBJECTS, objects);
    publish(pd, own::MEMORY, host);
    publish(pd, root::PHYSICAL, frames);
    publish(pd, root::PORTS, ports);
    publish(pd, root::MSRS, msrs);
    publish(pd, root::EC, ec);
    publish(pd, root::SC, sc);
    for interrupt in 0..machine.interrupts {
        let sm = need(Ref::create(pd, Sm::new(0, Some(interrupt))));
        publish(pd, root::INTERRUPTS + interrupt, sm);
    }
    make_idle(pd);
    // The page itself is charged before the number is written into it.
    let page = need(pd.account.take_page().ok_or(()));
    root.map(ROOT_HIP, page, MemRights::R.union(PINNED));
    // SAFETY: the page is as large as a `Hip`, whose fields are numbers, and holds zeros.
    root.write_hip(unsafe { &mut *virt(page).cast::<Hip>() }, image_start);
    sc
}

fn publish<T: Object>(pd: Ref<Pd>, at: u32, object: Ref<T>) {
    need(pd.insert(at, object.cap(Perms::ALL)));
}

/// The root task may use every port, and give guests every register that they can have.
fn fill(ports: &Space, msrs: &Space) {
    if let (Table::Port(ports), Table::Msr(msrs)) = (&ports.table, &msrs.table) {
        (0..=u16::MAX.into()).for_each(|port| ports.allow(port, true));
        let registers = bitmaps::GUEST_MSRS.into_iter().flatten();
        registers.for_each(|register| msrs.allow(register.into(), true));
    }
}

/// Writes the idle contexts into their pages.
fn make_idle(pd: Ref<Pd>) {
    let nobody = Ec::new(pd, Kind::Thread, need(cpu::find(0).ok_or(())));
    set_nobody(need(Ref::create(pd, nobody)));
    for cpu in cpu::all() {
        let idle = Ec::new(pd, Kind::Thread, cpu);
        idle.resume.set(Resume::idle());
        // SAFETY: the page was set aside for this.
        unsafe { cpu.idle.as_ptr().write(idle) };
    }
}

/// The bundle as the loader maps it.
fn bundle(info: &BootInfo) -> Option<&'static [u8]> {
    let address = info.ramdisk_addr.into_option()?;
    let len = usize::try_from(info.ramdisk_len).ok()?;
    // SAFETY: the loader maps the ramdisk there, and it stays.
    Some(unsafe { core::slice::from_raw_parts(address as *const u8, len) })
}

/// The program of the root task in the bundle.
fn program(info: &BootInfo) -> Program<'static> {
    let Some(bytes) = bundle(info) else {
        refuse(format_args!("the loader brought no bundle; add it as the second module"));
    };
    let bundle = Bundle::parse(bytes)
        .unwrap_or_else(|error| refuse(format_args!("the bundle is damaged ({error:?})")));
    let Some(entry) = bundle.find(ROOT) else {
        refuse(format_args!("the bundle has no entry `{ROOT}`"));
    };
    Program::parse(entry.data).unwrap_or_else(|error| {
        refuse(format_args!("the root task is no program that can be loaded ({error:?})"))
    })
}

impl Root<'_> {
    /// Maps a page of the host space, which is fresh: there is nothing to flush.
    fn map(&self, va: u64, pa: u64, rights: MemRights) {
        let table = space::host(self.pd.cr3.get());
        let _ = need(table.map(&mut Tables(&self.pd.account), va, pa, 12, rights));
    }

    fn map_log(&self) {
        let ring = &raw const log::RING as u64;
        for offset in (0..size_of::<hip::LogRing>() as u64).step_by(PAGE_SIZE as usize) {
            if let Some(pa) = self.map.physical.translate(self.map.boot, ring + offset) {
                // Not pinned: the root task may show it to others.
                self.map(ROOT_LOG + offset, pa, MemRights::R);
            }
        }
    }

    /// Copies the segments of the root task below the pool, and maps them. Returns where they begin, and the address of the
    /// first instruction.
    fn load_image(&self) -> (u64, u64) {
        let program = program(self.info);
        let mut at = self.map.image_end;
        for segment in program.segments() {
            let start = at.checked_sub(segment.size).filter(|at| *at >= self.map.image_start);
            at = need(start.ok_or(()));
            // SAFETY: free memory below the pool, in the same region, that nobody else uses. There are
            // not more bytes of content than the segment has in memory.
            unsafe {
                let (content, to) = (segment.content, self.map.physical.at(at));
                to.write_bytes(0, segment.size as usize);
                to.copy_from_nonoverlapping(content.as_ptr(), content.len());
            }
            for page in (0..segment.size).step_by(PAGE_SIZE as usize) {
                self.map(segment.address + page, at + page, segment.rights);
            }
        }
        (at, program.entry())
    }

    /// Physical range of the bundle.
    fn bundle_range(&self) -> [u64; 2] {
        let offset = self.info.physical_memory_offset.into_option().unwrap_or(0);
        let address = self.info.ramdisk_addr.into_option();
        let base = address.map_or(0, |address| address.wrapping_sub(offset));
        [base, base + self.info.ramdisk_len.next_multiple_of(PAGE_SIZE)]
    }

    /// What the kernel keeps of physical memory, and what is RAM of the rest.
    fn physical_space(&self, image_start: u64) -> &'static PhysicalSpace {
        static SPACE: Once<PhysicalSpace> = Once::new();
        SPACE.call_once(|| {
            let mut space = PhysicalSpace::new(self.machine.features.physical_bits);
            for &MemoryRegion { start, end, kind, .. } in self.info.memory_regions.iter() {
                match kind {
                    MemoryRegionKind::Usable => need(space.add_ram(start, end - start)),
                    // The bundle is among what the loader used.
                    MemoryRegionKind::Bootloader => {
                        let [from, to] = self.bundle_range().map(|at| at.clamp(start, end));
                        need(space.keep(start, from - start));
                        need(space.add_ram(from, to - from));
                        need(space.keep(to, end - to));
                    }
                    _ => {}
                }
            }
            need(space.keep(image_start, self.map.image_end - image_start));
            need(space.keep(self.map.pool.0, self.map.pool.1));
            for device in self.machine.kept.into_iter().filter(|device| *device != 0) {
                need(space.keep(device, PAGE_SIZE));
            }
            space
        })
    }

    fn start_thread(&self, utcb: u64, entry: u64) -> Ref<Ec> {
        let mut ec = Ec::new(self.pd, Kind::Thread, need(cpu::find(0).ok_or(())));
        (ec.utcb, ec.utcb_address) = (virt(utcb).cast(), ROOT_UTCB);
        ec.resume.set(Resume::hypercall());
        let frame = ec.regs();
        (frame.rip, frame.gpr.rdi, frame.gpr.rsi) = (entry, ROOT_HIP, ROOT_UTCB);
        need(Ref::create(self.pd, ec))
    }

    fn write_hip(&self, hip: &mut Hip, image_start: u64) {
        let (machine, map, pool) = (self.machine, self.map, self.map.pool);
        let virtualization = &machine.virtualization;
        let [bundle_from, bundle_to] = self.bundle_range();
        hip.magic = hip::MAGIC;
        hip.version = hip::VERSION;
        hip.tsc_hz = machine.calibration.tsc_hz;
        hip.cpus = u64::from(cpu::count());
        hip.interrupts = u64::from(machine.interrupts);
        hip.bundle_base = bundle_from;
        hip.bundle_len = self.info.ramdisk_len;
        hip.acpi_rsdp = map.rsdp;
        if map.rsdp != 0
            && let Some(copy) = hip.acpi_root.get_mut(..RSDP_LENGTH)
            && !map.physical.read(map.rsdp, copy)
        {
            copy.fill(0);
        }
        hip.quota = self.pd.account.level().0;
        let when = |there, feature| if there { feature } else { 0 };
        hip.features = when(virtualization.largest_page >= 30, hip::features::GUEST_1G_PAGES)
            | when(virtualization.tells_lengths, hip::features::INSTRUCTION_LENGTH)
            | when(virtualization.tells_addresses, hip::features::LINEAR_ADDRESS)
            | when(fpu::has_xsave() && virtualization.guards_xcr0, hip::features::XSAVE)
            | when(cfg!(feature = "counters"), hip::features::COUNTERS);
        hip.framebuffer = self.framebuffer();
        let mut slots = hip.regions.iter_mut();
        let mut add = |base: u64, end: u64, kind: RegionKind| {
            if base < end
                && let Some(slot) = slots.next()
            {
                *slot = Region { base, len: end - base, kind: kind as u64 };
                hip.region_count += 1;
            }
        };
        for &MemoryRegion { start, end, kind, .. } in self.info.memory_regions.iter() {
            match kind {
                MemoryRegionKind::Usable if (start..end).contains(&pool.0) => {
                    add(start, image_start, RegionKind::Free);
                    add(pool.0 + pool.1, end, RegionKind::Free);
                }
                MemoryRegionKind::Usable => add(start, end, RegionKind::Free),
                MemoryRegionKind::Bootloader => {
                    add(bundle_from.max(start), bundle_to.min(end), RegionKind::Bundle);
                }
                _ => {
                    let (start, end) = (start & !(PAGE_SIZE - 1), end.next_multiple_of(PAGE_SIZE));
                    add(start, end, RegionKind::Reserved);
                }
            }
        }
    }

    fn framebuffer(&self) -> hip::Framebuffer {
        let Some((start, layout)) = screen::find(self.info) else { return Default::default() };
        let small = |value: usize| u32::try_from(value).unwrap_or(0);
        hip::Framebuffer {
            base: self.map.physical.of(start as *const u8),
            stride: small(layout.stride),
            width: small(layout.width),
            height: small(layout.height),
            bytes_per_pixel: small(layout.bytes),
        }
    }
}
