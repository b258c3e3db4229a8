//! The processor and its interrupt controllers.

use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::fmt;

use hypervisor_logic::acpi::{LocalApic, MachineInfo};
use hypervisor_logic::list::List;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags};

use super::memory::Map;
use crate::arch::cpu::{self, Block, Cpu};
use crate::arch::timer::{Calibration, Timer};
use crate::arch::vendor::Virtualization;
use crate::arch::{
    entry, fpu, gdt, idt, ioapic, kernel_map, lapic, machine_check, msr, port, space, timer, vendor,
};
use crate::mem::{pool, virt};
use crate::object::Ref;
use crate::panic::refuse;
use crate::println;

/// The processor's name.
pub struct Brand([[u8; 4]; 12]);

impl Brand {
    /// Asks for it.
    pub fn read() -> Self {
        let mut name = [0; 12];
        if __cpuid(0x8000_0000).eax >= 0x8000_0004 {
            for (leaf, part) in (0x8000_0002..).zip(name.chunks_exact_mut(4)) {
                let r = __cpuid(leaf);
                part.copy_from_slice(&[r.eax, r.ebx, r.ecx, r.edx]);
            }
        }
        Self(name.map(u32::to_le_bytes))
    }
}

impl fmt::Display for Brand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.as_flattened().split(|byte| *byte == 0).next().unwrap_or_default();
        let name = core::str::from_utf8(name).unwrap_or("").trim();
        f.write_str(if name.is_empty() { "an unnamed processor" } else { name })
    }
}

/// Processor features that the kernel uses.
pub struct Features {
    /// Local APIC in x2APIC mode.
    pub x2apic: bool,
    /// TSC-deadline timer.
    pub deadline: bool,
    /// XSAVE.
    pub xsave: bool,
    /// SMEP, SMAP, UMIP.
    pub protection: Cr4Flags,
    /// 1 GiB pages.
    pub huge_pages: bool,
    /// Bits of a physical address.
    pub physical_bits: u32,
}

impl Features {
    /// Asks for them.
    pub fn read() -> Self {
        let basic = __cpuid(1);
        let seven = (__cpuid(0).eax >= 7).then(|| __cpuid_count(7, 0));
        let (ebx, ecx) = seven.map_or((0, 0), |leaf| (leaf.ebx, leaf.ecx));
        let mut protection = Cr4Flags::empty();
        protection.set(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION, ebx & 1 << 7 != 0);
        protection.set(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION, ebx & 1 << 20 != 0);
        protection.set(Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION, ecx & 1 << 2 != 0);
        let extended = __cpuid(0x8000_0000).eax;
        let physical_bits =
            if extended >= 0x8000_0008 { __cpuid(0x8000_0008).eax & 0xff } else { 36 };
        Self {
            x2apic: basic.ecx & 1 << 21 != 0,
            deadline: basic.ecx & 1 << 24 != 0,
            xsave: basic.ecx & 1 << 26 != 0,
            protection,
            huge_pages: extended >= 0x8000_0001 && __cpuid(0x8000_0001).edx & 1 << 26 != 0,
            physical_bits,
        }
    }
}

/// The machine, ready for its first task.
pub struct Machine {
    /// What the processor has.
    pub features: Features,
    /// The extension that runs guests.
    pub virtualization: Virtualization,
    /// Device interrupts.
    pub interrupts: u32,
    /// Physical addresses of the pages that hold registers of the kernel's devices.
    pub kept: [u64; 9],
    /// How the timers run.
    pub calibration: Calibration,
    /// Processors, by their local APICs.
    pub local_apics: List<LocalApic, 64>,
}

pub fn out_of_memory() -> ! {
    refuse(format_args!("too little memory for the kernel's tables"))
}

/// Turns on what the kernel needs of this CPU, finds the interrupt controllers, and measures time.
pub fn start(map: &Map, virtualization: Virtualization) -> Machine {
    let features = Features::read();
    set_control_registers(&features);
    fpu::init(features.xsave);
    idt::build(pool::alloc().unwrap_or_else(|| out_of_memory()));
    machine_check::enable();
    let code = entry::hypercall_code();
    let page = pool::alloc().unwrap_or_else(|| out_of_memory());
    // SAFETY: the code is a few bytes, the page is fresh. What follows it traps.
    unsafe {
        virt(page).write_bytes(0xcc, 4096);
        virt(page).copy_from_nonoverlapping(code.as_ptr(), code.len());
    }
    let host_shift = if features.huge_pages { 30 } else { 21 };
    space::init(map.template, page, host_shift, virtualization.largest_page);
    let machine = interrupt_controllers(map, features, virtualization);
    if !vendor::enable() {
        let name = machine.virtualization.name;
        refuse(format_args!("{name} is there, but cannot be turned on"));
    }
    let cpu = machine.install(map, lapic::id());
    cpu.timer.enable();
    cpu::announce(&cpu);
    machine
}

/// Turns on what the kernel needs of a further CPU. Returns whether that worked.
pub fn start_another() -> bool {
    let features = Features::read();
    set_control_registers(&features);
    fpu::init(features.xsave);
    machine_check::enable();
    lapic::enable();
    cpu::cpu().timer.enable();
    vendor::enable()
}

fn set_control_registers(features: &Features) {
    let mut cr4 = Cr4Flags::PHYSICAL_ADDRESS_EXTENSION
        | Cr4Flags::PAGE_GLOBAL
        | Cr4Flags::MACHINE_CHECK_EXCEPTION
        | Cr4Flags::OSFXSR
        | Cr4Flags::OSXMMEXCPT_ENABLE
        | features.protection;
    cr4.set(Cr4Flags::OSXSAVE, features.xsave);
    let cr0 = Cr0Flags::PROTECTED_MODE_ENABLE
        | Cr0Flags::MONITOR_COPROCESSOR
        | Cr0Flags::TASK_SWITCHED
        | Cr0Flags::EXTENSION_TYPE
        | Cr0Flags::NUMERIC_ERROR
        | Cr0Flags::WRITE_PROTECT
        | Cr0Flags::ALIGNMENT_MASK
        | Cr0Flags::PAGING;
    // SAFETY: 64-bit mode with paging as before; what is added protects the kernel or concerns the FPU, which it does not use.
    // SYSCALL stays off unless it is the system call.
    unsafe {
        Cr4::write(cr4);
        Cr0::write(cr0);
        msr::EFER.write(msr::EFER.read() & !1 | 1 << 11);
    }
}

fn interrupt_controllers(map: &Map, features: Features, virtualization: Virtualization) -> Machine {
    port::mask_legacy_pics();
    let info = match MachineInfo::read(&map.physical, map.rsdp) {
        Ok(info) => Some(info),
        Err(error) => {
            println!("ACPI tables are missing or damaged ({error:?}): no device interrupts");
            None
        }
    };
    let mut kept = [0; 9];
    let lapic_pa = lapic::physical_base();
    let lapic_va = device(map, lapic_pa);
    kept[0] = lapic_pa;
    let mut interrupts = 0;
    if let Some(info) = &info {
        for (io_apic, slot) in info.io_apics.iter().zip(&mut kept[1..]) {
            *slot = u64::from(io_apic.address);
            let va = device(map, *slot);
            map.share(va);
            interrupts = interrupts.max(ioapic::add(va, io_apic.gsi_base));
        }
    }
    map.share(lapic_va);
    lapic::init(features.x2apic, lapic_va);
    lapic::enable();
    let Some(calibration) = timer::calibrate() else {
        refuse(format_args!(
            "the 8254 timer does not count, so there is nothing to measure time with"
        ));
    };
    println!(
        "time: TSC {} kHz, local APIC timer {} kHz{}, {interrupts} device interrupts",
        calibration.tsc_hz / 1000,
        calibration.apic_hz / 1000,
        if features.deadline { " (TSC deadline)" } else { "" },
    );
    Machine {
        features,
        virtualization,
        interrupts: interrupts.min(crate::arch::interrupts::MAX),
        kept,
        calibration,
        local_apics: info.map_or(List::new(LocalApic::default()), |info| info.local_apics),
    }
}

fn device(map: &Map, pa: u64) -> u64 {
    kernel_map::map_device(map.template, pa).unwrap_or_else(|| out_of_memory())
}

impl Machine {
    /// Maps and fills the block of the next CPU.
    pub fn install(&self, map: &Map, apic: u32) -> Ref<Cpu> {
        let timer = Timer::new(self.features.deadline, &self.calibration);
        let map_page = |va, pa| {
            let mapped = kernel_map::map(map.template, va, pa, false);
            // The first one makes the tables that the loader's root has to share before the rest is written.
            map.share(va);
            mapped
        };
        let cpu = cpu::install(apic, timer, map.template, map_page);
        cpu.unwrap_or_else(|| out_of_memory())
    }
}

/// On the kernel stack: loads the CPU's own tables and the system-call entry.
pub fn finish(block: &'static Block) {
    // SAFETY: the block is this CPU's; the entry point is that of the kernel.
    unsafe {
        gdt::load(block);
        idt::load();
        vendor::finish(block);
    }
}
