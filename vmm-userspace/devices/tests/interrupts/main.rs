//! Tests of the interrupt controllers, from outside: by registers, lines and messages alone.

mod ioapic;
mod lapic;
mod lapic_acceptance;
mod lapic_base;
mod lapic_errors;
mod lapic_fuzz;
mod lapic_ipi;
mod lapic_lvt;
mod lapic_priority;
mod lapic_timer;
mod lapic_x2apic;
mod pic;
mod pic_model;
mod wiring;
