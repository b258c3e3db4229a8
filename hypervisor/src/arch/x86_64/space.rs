//! Address spaces as the processor sees them.

use core::sync::atomic::{AtomicU64, Ordering};

use abi::cap::MemRights;
use abi::hypercall::Status;
use abi::layout::HYPERCALL_PAGE;
use hypervisor_logic::frames::Frames;
use hypervisor_logic::paging::{self, Ept, Host, Npt, PINNED, PageTable, Progress, Source};

use super::cpu::{self, Cpu};
use super::gdt::{IO_MAP_NONE, IO_MAP_USED};
use super::shootdown;
use super::vendor::{Vendor, vendor};
use crate::mem::tables::{Kernel, Tables};
use crate::object::Ref;
use crate::object::ec::Ec;
use crate::object::pd::Account;
use crate::object::space::{Space, Table};

/// Root table whose upper half every host space shares.
static TEMPLATE: AtomicU64 = AtomicU64::new(0);
/// Frame of the hypercall page.
static HYPERCALL_FRAME: AtomicU64 = AtomicU64::new(0);
/// log2 of the largest leaf in host and guest tables.
static MAX_SHIFT: [AtomicU64; 2] = [AtomicU64::new(21), AtomicU64::new(12)];

/// Remembers what new spaces need.
pub fn init(template: u64, hypercall_frame: u64, host_shift: u32, guest_shift: u32) {
    TEMPLATE.store(template, Ordering::Relaxed);
    HYPERCALL_FRAME.store(hypercall_frame, Ordering::Relaxed);
    MAX_SHIFT[0].store(u64::from(host_shift), Ordering::Relaxed);
    MAX_SHIFT[1].store(u64::from(guest_shift), Ordering::Relaxed);
}

/// The kernel's root table.
pub fn template() -> u64 {
    TEMPLATE.load(Ordering::Relaxed)
}

/// log2 of the largest leaf in host tables.
fn host_shift() -> u32 {
    MAX_SHIFT[0].load(Ordering::Relaxed) as u32
}

/// The tables of a guest space, in the format of the machine's extension.
pub struct GuestTable {
    /// Physical address of the root table.
    pub root: u64,
    max_leaf_shift: u32,
}

/// Does the same in the one format or the other.
macro_rules! in_format {
    ($guest:expr, $table:ident => $what:expr) => {{
        let GuestTable { root, max_leaf_shift } = *$guest;
        match vendor() {
            Vendor::Vmx => {
                let $table = PageTable::<Ept>::from_root(root, max_leaf_shift);
                $what
            }
            Vendor::Svm => {
                let $table = PageTable::<Npt>::from_root(root, max_leaf_shift);
                $what
            }
        }
    }};
}

impl GuestTable {
    /// Empty tables: an empty table is the same in both formats.
    pub fn new(account: &Account) -> Result<Self, Status> {
        let max_leaf_shift = MAX_SHIFT[1].load(Ordering::Relaxed) as u32;
        let table = PageTable::<Ept>::new(max_leaf_shift, &mut Tables(account));
        Ok(Self { root: table.ok_or(Status::Quota)?.root, max_leaf_shift })
    }

    /// See [`paging::grant`].
    #[inline(always)]
    pub fn grant<S: Source>(
        &self,
        source: &S,
        account: &Account,
        [from, to, count]: [u64; 3],
        rights: MemRights,
    ) -> Progress {
        in_format!(self, table => {
            paging::grant(source, &mut Tables(account), &table, from, to, count, rights)
        })
    }

    /// See [`PageTable::revoke`].
    pub fn revoke(&self, account: &Account, first: u64, count: u64, remove: MemRights) -> Progress {
        in_format!(self, table => table.revoke(&mut Tables(account), first, count, remove))
    }

    /// See [`PageTable::reclaim`].
    pub fn reclaim(&self, account: &Account, next: &mut u64, limit: u32) -> bool {
        in_format!(self, table => table.reclaim(&mut Tables(account), next, limit))
    }

    /// Gives all tables back. Nothing uses them any more.
    pub fn destroy(self, account: &Account) {
        in_format!(&self, table => table.destroy(&mut Tables(account)));
    }
}

/// A host space with nothing but the kernel's half and the hypercall page.
pub fn new_host(account: &Account) -> Result<PageTable<Host>, Status> {
    let mut tables = Tables(account);
    let table = PageTable::new(host_shift(), &mut tables).ok_or(Status::Quota)?;
    for index in 256..512 {
        let entry = Kernel.read(template(), index);
        tables.write(table.root, index, entry);
    }
    let frame = HYPERCALL_FRAME.load(Ordering::Relaxed);
    if table.map(&mut tables, HYPERCALL_PAGE, frame, 12, MemRights::RX.union(PINNED)).is_err() {
        table.destroy(&mut tables);
        return Err(Status::Quota);
    }
    Ok(table)
}

/// The host tables with that root.
pub fn host(root: u64) -> PageTable<Host> {
    PageTable::from_root(root, host_shift())
}

/// Maps a page of the kernel for user space, read-write, where nothing is yet: its holder can neither grant nor revoke it.
pub fn map_vacant(root: u64, account: &Account, va: u64, pa: u64) -> Result<(), Status> {
    let table = host(root);
    if table.lookup(&Tables(account), va).is_some() {
        return Err(Status::Occupied);
    }
    table.map(&mut Tables(account), va, pa, 12, MemRights::RW.union(PINNED)).map(|_flush| ())
}

/// Unmaps a page that [`map_vacant`] has mapped.
pub fn unmap_kernel_page(root: u64, account: &Account, va: u64) {
    // Taking a 4 KiB leaf away needs no memory.
    let all = MemRights::RWX.union(PINNED);
    let _ = host(root).revoke(&mut Tables(account), va >> 12, 1, all);
    shootdown::host(root);
}

/// Drops all translations of host spaces on this CPU.
pub fn flush_host() {
    use x86_64::registers::control::Cr3;
    let (frame, flags) = Cr3::read();
    // SAFETY: writes back what was there.
    unsafe { Cr3::write(frame, flags) };
}

/// Loads a page-table root.
#[inline(always)]
pub fn load_root(cpu: &Cpu, root: u64) {
    cpu.cr3.set(root);
    // SAFETY: the root table of a live domain or the kernel's own, with the kernel's half in it.
    unsafe {
        core::arch::asm!("mov cr3, {}", in(reg) root, options(nostack, preserves_flags));
    }
}

/// Loads the host space and the ports of a thread.
#[inline(always)]
pub fn load(cpu: &Cpu, ec: Ref<Ec>) -> Ref<Ec> {
    let root = ec.cr3.get();
    if root == cpu.cr3.get() {
        return ec;
    }
    load_root(cpu, root);
    if ec.pd.ports.get().is_some() || cpu.ports_open.get() { open_ports(cpu, ec) } else { ec }
}

/// Opens or closes the ports whose bitmap is in the task state.
#[inline(never)]
fn open_ports(cpu: &Cpu, ec: Ref<Ec>) -> Ref<Ec> {
    let open = ec.pd.ports.get().is_some() && ec.pd.ports.get() == cpu.ports.get();
    cpu.ports_open.set(open);
    cpu::block().tss.io_map.set(if open { IO_MAP_USED } else { IO_MAP_NONE });
    ec
}

/// A thread took a general-protection fault: if that may be because its ports are not loaded, loads them. Returns whether
/// it is worth another try.
pub fn load_ports(cpu: &Cpu, ec: Ref<Ec>) -> bool {
    let Some(space) = ec.pd.ports.get() else { return false };
    let loaded = cpu.ports.get() == Some(space);
    if loaded && !cpu.task_register_stale.get() {
        return false;
    }
    let Table::Port(bitmap) = &space.table else { return false };
    let block = cpu::block();
    if !loaded {
        // SAFETY: the bitmap in the task state is as long, and only this CPU reads it.
        unsafe { block.io_bitmap().copy_from(crate::mem::virt(bitmap.base), 65536 / 8) };
        cpu.ports.set(Some(space));
    }
    open_ports(cpu, ec);
    super::gdt::load_task_register(block);
    cpu.task_register_stale.set(false);
    true
}

/// A port space changed: whoever has it loaded must load it again. The processor reads the offset of the bitmap at each access.
pub fn forget_ports(space: &Space) {
    for cpu in cpu::all().filter(|cpu| cpu.ports.get() == Some(Ref::of(space))) {
        cpu.ports.set(None);
        cpu.ports_open.set(false);
        cpu.block().tss.io_map.set(IO_MAP_NONE);
    }
    // No CPU may use the old one once this has returned.
    // SAFETY: orders memory accesses, no more.
    unsafe { core::arch::x86_64::_mm_mfence() };
}
