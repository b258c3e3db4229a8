//! What a guest starts with.

use alloc::format;
use alloc::string::String;

use machine::linux::{self, Image};
use machine::memory::GuestMemory;
use machine::pc::Pc;
use machine::{acpi, reset};
use runtime::Task;
use runtime::abi::vcpu::{Groups, VcpuState};

use crate::clock::GuestClock;
use crate::ram::Ram;

/// The guest's software, as the manifest names it.
#[derive(Clone, Debug)]
pub struct Software {
    kernel: &'static [u8],
    kernel_name: String,
    initrd: Option<&'static [u8]>,
    command_line: String,
}

impl Software {
    /// What the root task gave this task.
    ///
    /// # Errors
    /// A sentence that says what is missing in the manifest.
    pub fn of(task: &Task) -> Result<Self, String> {
        let partition = task.partition().ok_or("the task got no description of its partition")?;
        let kernel = task.kernel().ok_or("the manifest names no `kernel` for this partition")?;
        Ok(Self {
            kernel,
            kernel_name: partition.kernel.unwrap_or_default(),
            initrd: task.initrd(),
            command_line: partition.cmdline,
        })
    }

    /// Puts everything into memory and the registers into `state`, for a first start as for one after a reset. Returns
    /// the groups to write.
    ///
    /// # Errors
    /// A sentence that names the file and the numbers.
    pub fn load(
        &self,
        pc: &mut Pc,
        ram: &mut Ram,
        clock: &GuestClock,
        state: &mut VcpuState,
    ) -> Result<Groups, String> {
        for table in acpi::tables(1) {
            ram.write(table.gpa, &table.bytes)
                .map_err(|_| "the guest has too little memory for its ACPI tables")?;
        }
        let image = Image {
            kernel: self.kernel,
            initrd: self.initrd,
            command_line: &self.command_line,
            rsdp: acpi::RSDP,
        };
        let map = *ram.map();
        let loaded = linux::load(&image, &map, ram)
            .map_err(|error| format!("cannot boot `{}`: {error}", self.kernel_name))?;
        *state = reset::power_on(pc.signature());
        loaded.enter(state);
        Ok(pc.start(state, clock))
    }
}
