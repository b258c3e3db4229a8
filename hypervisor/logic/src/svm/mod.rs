//! AMD-V as far as it is data: what the processor offers, what the kernel asks for, how the VMCB
//! names things.

pub mod capability;
pub mod exits;
pub mod fields;
pub mod intercepts;
pub mod negotiate;
pub mod qualification;
pub mod state;

pub use crate::refusal::Refusal;
pub use capability::SvmCapabilities;
pub use fields::field;
pub use negotiate::{Controls, negotiate};
