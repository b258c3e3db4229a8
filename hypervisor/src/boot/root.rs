//! The root task: the only one that the kernel starts.

use abi::bundle::{Bundle, ROOT};
use abi::cap::{MemRights, Perms, own, root};
use abi::hip::{self, Hip, MAX_REGIONS, Region, RegionKind};
use abi::hypercall::PRIORITIES;
use abi::layout::{PAGE_SIZE, ROOT_HIP, ROOT_LOG, ROOT_UTCB};
use abi::program::Program;
use bootloader_api::BootInfo;
use bootloader_api::info::MemoryRegionKind;
use hypervisor_logic::acpi::PhysRead;
use hypervisor_logic::physical::PhysicalSpace;
use hypervisor_logic::sched::Budget;
use spin::Once;

use super::machine::Machine;
use super::memory::{Map, Physical};
use super::screen;
use crate::arch::vendor::Virtualization;
use crate::arch::{self, Resume, bitmaps, cpu, fpu, space};
use crate::log;
use crate::mem::tables::Tables;
use crate::mem::{pool, virt};
use crate::object::ec::{Birth, Ec, Kind, set_nobody};
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

/// How to start it.
pub struct Start {
    /// Its page tables.
    pub cr3: u64,
    /// Its scheduling context.
    pub sc: Ref<Sc>,
}

static START: Once<Start> = Once::new();

/// Unwraps what can only fail for lack of memory.
fn need<T, E>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|_| refuse(format_args!("too little memory for the root task")))
}

/// Makes the root task's objects and memory.
pub fn prepare(
    info: &BootInfo,
    map: &Map,
    physical: &Physical,
    machine: &Machine,
    virtualization: &Virtualization,
) -> &'static Start {
    let page = need(pool::alloc().ok_or(()));
    // SAFETY: a fresh page for the first domain, and what is free of the pool is its quota.
    let pd = unsafe {
        virt(page).cast::<Pd>().write(Pd::new(0, pool::free_pages(), HIGHEST, u64::MAX));
        Ref::<Pd>::from_address(virt(page) as u64)
    };
    let objects = need(Space::create(pd, abi::cap::SpaceKind::Object));
    let host = need(Space::create(pd, abi::cap::SpaceKind::Host));
    let ports = need(Space::create(pd, abi::cap::SpaceKind::Port));
    let msrs = need(Space::create(pd, abi::cap::SpaceKind::Msr));
    for space in [objects, host, ports] {
        space.adopt();
    }
    fill(&ports, &msrs);
    let (image_start, entry) = load_image(info, map, physical, pd, &host);
    let physical_space = physical_space(info, map, machine, image_start);
    let frames = need(Ref::create(pd, Space::new(pd, Table::Physical(physical_space))));
    let utcb = need(pd.account.take_page().ok_or(()));
    kernel_page(pd, &host, ROOT_UTCB, utcb, MemRights::RW);
    map_log(physical, map, pd, &host);
    let ec = start_thread(pd, utcb, entry);
    crate::sched::set_tsc_hz(machine.tsc_hz);
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
    kernel_page(pd, &host, ROOT_HIP, page, MemRights::R);
    write_hip(page, info, map, physical, machine, virtualization, pd, image_start);
    START.call_once(|| Start { cr3: pd.cr3.get(), sc })
}

fn publish<T: Object>(pd: Ref<Pd>, at: u32, object: Ref<T>) {
    need(pd.insert(at, object.cap(Perms::ALL)));
}

/// The root task may use every port, and give guests every register that they can have.
fn fill(ports: &Space, msrs: &Space) {
    if let (Table::Port(ports), Table::Msr(msrs)) = (&ports.table, &msrs.table) {
        (0..=u16::MAX.into()).for_each(|port| ports.allow(port, true));
        bitmaps::GUEST_MSRS.iter().for_each(|register| msrs.allow((*register).into(), true));
    }
}

fn kernel_page(pd: Ref<Pd>, host: &Space, va: u64, pa: u64, rights: MemRights) {
    if let Table::Host(table) = &host.table {
        let mut table = space::host(table.root);
        need(space::map_kernel_page(&mut table, &pd.account, va, pa, rights));
    }
}

fn map_log(physical: &Physical, map: &Map, pd: Ref<Pd>, host: &Space) {
    let Table::Host(table) = &host.table else { return };
    let mut table = space::host(table.root);
    let mut tables = Tables(&pd.account);
    let ring = &raw const log::RING as u64;
    for offset in (0..size_of::<hip::LogRing>() as u64).step_by(PAGE_SIZE as usize) {
        if let Some(pa) = physical.translate(map.boot, ring + offset) {
            // Not pinned: the root task may show it to others.
            let _ = need(table.map(&mut tables, ROOT_LOG + offset, pa, 12, MemRights::R));
        }
    }
}

/// The bundle as the loader maps it.
fn bundle(info: &BootInfo) -> Option<&'static [u8]> {
    let address = info.ramdisk_addr.into_option()?;
    let len = usize::try_from(info.ramdisk_len).ok()?;
    // SAFETY: the loader maps the ramdisk there, and it stays.
    Some(unsafe { core::slice::from_raw_parts(address as *const u8, len) })
}

/// Copies the segments of the root task below the pool, and maps them. Returns where they begin, and the address of the first
/// instruction.
fn load_image(
    info: &BootInfo,
    map: &Map,
    physical: &Physical,
    pd: Ref<Pd>,
    host: &Space,
) -> (u64, u64) {
    let Some(bytes) = bundle(info) else {
        refuse(format_args!("the loader brought no bundle; add it as the second module"));
    };
    let bundle = match Bundle::parse(bytes) {
        Ok(bundle) => bundle,
        Err(error) => refuse(format_args!("the bundle is damaged ({error:?})")),
    };
    let Some(entry) = bundle.find(ROOT) else {
        refuse(format_args!("the bundle has no entry `{ROOT}`"));
    };
    let program = match Program::parse(entry.data) {
        Ok(program) => program,
        Err(error) => {
            refuse(format_args!("the root task is no program that can be loaded ({error:?})"))
        }
    };
    let Table::Host(table) = &host.table else { return (map.image_end, 0) };
    let mut table = space::host(table.root);
    let mut at = map.image_end;
    for segment in program.segments() {
        let start = at.checked_sub(segment.size).filter(|start| *start >= map.image_start);
        at = need(start.ok_or(()));
        // SAFETY: free memory below the pool, in the same region, that nobody else uses. There are
        // not more bytes of content than the segment has in memory.
        unsafe {
            let (content, to) = (segment.content, physical.at(at));
            to.write_bytes(0, segment.size as usize);
            to.copy_from_nonoverlapping(content.as_ptr(), content.len());
        }
        for page in (0..segment.size).step_by(PAGE_SIZE as usize) {
            let mut tables = Tables(&pd.account);
            // A fresh space: there is nothing to flush.
            let (va, pa) = (segment.address + page, at + page);
            let _ = need(table.map(&mut tables, va, pa, 12, segment.rights));
        }
    }
    (at, program.entry())
}

/// What the kernel keeps of physical memory, and what is RAM of the rest.
fn physical_space(
    info: &BootInfo,
    map: &Map,
    machine: &Machine,
    image_start: u64,
) -> &'static PhysicalSpace {
    static SPACE: Once<PhysicalSpace> = Once::new();
    SPACE.call_once(|| {
        let mut space = PhysicalSpace::new(machine.physical_bits);
        for region in info.memory_regions.iter() {
            let len = region.end - region.start;
            let result = match region.kind {
                // The bundle is among what the loader used.
                MemoryRegionKind::Usable => space.add_ram(region.start, len),
                MemoryRegionKind::Bootloader => {
                    keep_but_bundle(&mut space, info, region.start, region.end)
                }
                _ => Ok(()),
            };
            need(result);
        }
        need(space.keep(image_start, map.image_end - image_start));
        need(space.keep(map.pool.0, map.pool.1));
        for device in machine.kept.into_iter().filter(|device| *device != 0) {
            need(space.keep(device, PAGE_SIZE));
        }
        space
    })
}

/// Physical range of the bundle.
fn bundle_range(info: &BootInfo) -> (u64, u64) {
    let offset = info.physical_memory_offset.into_option().unwrap_or(0);
    let base = info.ramdisk_addr.into_option().map_or(0, |address| address.wrapping_sub(offset));
    (base, base + info.ramdisk_len.next_multiple_of(PAGE_SIZE))
}

fn keep_but_bundle(
    space: &mut PhysicalSpace,
    info: &BootInfo,
    start: u64,
    end: u64,
) -> Result<(), hypervisor_logic::list::Full> {
    let (from, to) = bundle_range(info);
    let (from, to) = (from.clamp(start, end), to.clamp(start, end));
    space.keep(start, from - start)?;
    space.add_ram(from, to - from)?;
    space.keep(to, end - to)
}

fn start_thread(pd: Ref<Pd>, utcb: u64, entry: u64) -> Ref<Ec> {
    let (utcb, resume) = (virt(utcb).cast(), Resume::hypercall());
    let cpu = need(cpu::find(0).ok_or(()));
    let birth =
        Birth { utcb, utcb_address: ROOT_UTCB, resume, ..Birth::new(pd, Kind::Thread, cpu) };
    let ec = need(Ref::create(pd, Ec::new(birth)).map_err(|(status, _)| status));
    let frame = ec.regs();
    (frame.rip, frame.gpr.rdi, frame.gpr.rsi) = (entry, ROOT_HIP, ROOT_UTCB);
    ec
}

/// Writes the idle contexts into their pages.
fn make_idle(pd: Ref<Pd>) {
    let nobody = Ec::new(Birth::new(pd, Kind::Thread, need(cpu::find(0).ok_or(()))));
    set_nobody(need(Ref::create(pd, nobody).map_err(|(status, _)| status)));
    for cpu in cpu::all() {
        let birth = Birth { resume: Resume::idle(), ..Birth::new(pd, Kind::Thread, cpu) };
        // SAFETY: the page was set aside for this.
        unsafe { cpu.idle.as_ptr().write(Ec::new(birth)) };
    }
}

#[allow(clippy::too_many_arguments)]
fn write_hip(
    page: u64,
    info: &BootInfo,
    map: &Map,
    physical: &Physical,
    machine: &Machine,
    virtualization: &Virtualization,
    pd: Ref<Pd>,
    image_start: u64,
) {
    // SAFETY: the page is as large as a `Hip`, whose fields are numbers, and holds zeros.
    let hip = unsafe { &mut *virt(page).cast::<Hip>() };
    let (bundle_base, _) = bundle_range(info);
    hip.magic = hip::MAGIC;
    hip.version = hip::VERSION;
    hip.tsc_hz = machine.tsc_hz;
    hip.cpus = u64::from(cpu::count());
    hip.interrupts = u64::from(machine.interrupts);
    hip.bundle_base = bundle_base;
    hip.bundle_len = info.ramdisk_len;
    hip.acpi_rsdp = machine.rsdp;
    if machine.rsdp != 0
        && let Some(copy) = hip.acpi_root.get_mut(..RSDP_LENGTH)
        && !physical.read(machine.rsdp, copy)
    {
        copy.fill(0);
    }
    hip.quota = pd.account.level().0;
    let lengths = virtualization.tells_lengths;
    hip.features =
        if virtualization.largest_page >= 30 { hip::features::GUEST_1G_PAGES } else { 0 }
            | if lengths { hip::features::INSTRUCTION_LENGTH } else { 0 }
            | if virtualization.tells_addresses { hip::features::LINEAR_ADDRESS } else { 0 }
            | if fpu::has_xsave() && virtualization.guards_xcr0 { hip::features::XSAVE } else { 0 }
            | if cfg!(feature = "counters") { hip::features::COUNTERS } else { 0 };
    hip.framebuffer = framebuffer(info, physical);
    let mut count = 0;
    let mut add = |base: u64, end: u64, kind: RegionKind| {
        if base < end
            && count < MAX_REGIONS
            && let Some(slot) = hip.regions.get_mut(count)
        {
            *slot = Region { base, len: end - base, kind: kind as u64 };
            count += 1;
        }
    };
    let (bundle_from, bundle_to) = bundle_range(info);
    for region in info.memory_regions.iter() {
        match region.kind {
            MemoryRegionKind::Usable if (region.start..region.end).contains(&map.pool.0) => {
                add(region.start, image_start, RegionKind::Free);
                add(map.pool.0 + map.pool.1, region.end, RegionKind::Free);
            }
            MemoryRegionKind::Usable => add(region.start, region.end, RegionKind::Free),
            MemoryRegionKind::Bootloader => {
                add(bundle_from.max(region.start), bundle_to.min(region.end), RegionKind::Bundle);
            }
            _ => add(
                region.start & !(PAGE_SIZE - 1),
                region.end.next_multiple_of(PAGE_SIZE),
                RegionKind::Reserved,
            ),
        }
    }
    hip.region_count = count as u64;
}

fn framebuffer(info: &BootInfo, physical: &Physical) -> hip::Framebuffer {
    let Some((start, layout)) = screen::find(info) else { return hip::Framebuffer::default() };
    let small = |value: usize| u32::try_from(value).unwrap_or(0);
    hip::Framebuffer {
        base: physical.of(start as *const u8),
        stride: small(layout.stride),
        width: small(layout.width),
        height: small(layout.height),
        bytes_per_pixel: small(layout.bytes),
    }
}
