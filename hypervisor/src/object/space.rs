//! Spaces: tables of what can be named or reached.

use abi::cap::{ObjectType, SpaceKind};
use abi::hypercall::Status;
use hypervisor_logic::objects::ObjectTable;
use hypervisor_logic::paging::{Host, PageTable};
use hypervisor_logic::physical::PhysicalSpace;

use super::pd::Pd;
use super::{Header, Object, Ref};
use crate::arch;
use crate::arch::bitmaps::{Bitmap, Kind};
use crate::mem::tables::Tables;
use crate::sync::Guarded;

/// A space of some kind, and who pays for its tables.
#[repr(C)]
pub struct Space {
    header: Header,
    /// The domain that pays.
    pub pd: Ref<Pd>,
    /// Domains whose threads run in it, and virtual CPUs that use it.
    pub users: Guarded<u32>,
    /// Of a guest space: CPUs that may have translations of it, by their bits.
    pub cpus: Guarded<u64>,
    /// How far its end has come.
    pub cursor: Guarded<u64>,
    /// The tables.
    pub table: Table,
}

/// The tables of a space.
pub enum Table {
    /// Capabilities.
    Object(ObjectTable),
    /// Ring-3 page tables.
    Host(PageTable<Host>),
    /// Second-level page tables.
    Guest(arch::space::GuestTable),
    /// I/O permission bitmap.
    Port(Bitmap),
    /// MSR permission bitmap.
    Msr(Bitmap),
    /// All memory that the kernel does not keep.
    Physical(&'static PhysicalSpace),
}

// SAFETY: `repr(C)`, and the header comes first.
unsafe impl Object for Space {
    const TYPE: ObjectType = ObjectType::Space;
}

impl Space {
    /// A space around tables that exist.
    pub const fn new(pd: Ref<Pd>, table: Table) -> Self {
        let (users, cpus, cursor) = (Guarded::new(0), Guarded::new(0), Guarded::new(0));
        Self { header: Header::new(ObjectType::Space), pd, users, cpus, cursor, table }
    }

    /// An empty space of some kind, charged to `pd`.
    pub fn create(pd: Ref<Pd>, kind: SpaceKind) -> Result<Ref<Self>, Status> {
        let mut tables = Tables(&pd.account);
        let table = match kind {
            SpaceKind::Object => Table::Object(ObjectTable::new(&mut tables).ok_or(Status::Quota)?),
            SpaceKind::Host => Table::Host(arch::space::new_host(&pd.account)?),
            SpaceKind::Guest => Table::Guest(arch::space::GuestTable::new(&pd.account)?),
            SpaceKind::Port => Table::Port(Bitmap::new(Kind::Port, &pd.account)?),
            SpaceKind::Msr => Table::Msr(Bitmap::new(Kind::Msr, &pd.account)?),
            SpaceKind::Physical => return Err(Status::BadParam),
        };
        // A failure from here on must give the tables back.
        Ref::create(pd, Self::new(pd, table)).map_err(|(status, space)| {
            space.table.free(&pd);
            status
        })
    }

    /// Whether its end has begun, which whoever destroys it may interrupt: then nothing new may get into it.
    pub fn is_ending(&self) -> bool {
        self.cursor.get() != 0
    }

    /// Physical address of the bitmap of a port or MSR space.
    pub const fn bitmap(&self) -> Option<u64> {
        match &self.table {
            Table::Port(bitmap) | Table::Msr(bitmap) => Some(bitmap.base),
            _ => None,
        }
    }

    /// Makes this the space that the threads of its domain run in, if they have none of the kind.
    pub fn adopt(&self) {
        match &self.table {
            Table::Object(table) if !self.pd.has_objects() => self.pd.table.set(table.root),
            Table::Host(table) if self.pd.cr3.get() == 0 => {
                self.pd.cr3.set(table.root);
                self.pd.host.set(Some(Ref::of(self)));
            }
            Table::Port(_) if self.pd.ports.get().is_none() => {
                self.pd.ports.set(Some(Ref::of(self)));
            }
            _ => return,
        }
        self.users.set(1);
    }
}

impl Table {
    /// Frees tables that nothing uses yet, or any more.
    pub fn free(self, pd: &Pd) {
        let mut tables = Tables(&pd.account);
        match self {
            Self::Object(table) => table.destroy(&mut tables),
            Self::Host(table) => table.destroy(&mut tables),
            Self::Guest(table) => table.destroy(&pd.account),
            Self::Port(bitmap) | Self::Msr(bitmap) => bitmap.free(&pd.account),
            Self::Physical(_) => {}
        }
    }
}
