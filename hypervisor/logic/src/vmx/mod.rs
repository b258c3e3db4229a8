//! VT-x as far as it is data: what the processor offers, what the kernel asks for, how the VMCS
//! names things.

pub mod capability;
pub mod controls;
pub mod exits;
pub mod fields;
pub mod negotiate;

pub use crate::refusal::Refusal;
pub use capability::VmxCapabilities;
pub use fields::field;
pub use negotiate::{Controls, negotiate, unlock};
