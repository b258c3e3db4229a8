//! What an exit tells on some processors and not on others.

use abi::hip::features;
use abi::vcpu::{MemoryAccess, blocking};

use super::vm::Vm;
use crate::processor::{Extension, extension};

impl Vm {
    /// The length that an exit tells of an instruction of `length` bytes.
    pub fn told(&self, length: u64) -> u64 {
        if self.features & features::INSTRUCTION_LENGTH != 0 { length } else { 0 }
    }

    /// The linear address of an access to memory, if the exit tells it; it must if the kernel says so.
    pub fn linear(&self) -> Result<Option<u64>, alloc::string::String> {
        if self.state.qual[0] & MemoryAccess::LINEAR_VALID != 0 {
            return Ok(Some(self.state.qual[2]));
        }
        if self.features & features::LINEAR_ADDRESS != 0 {
            return Err("the linear address is missing".into());
        }
        Ok(None)
    }

    /// Whether interrupts are blocked by STI or MOV SS. Not every processor tells which of the two it was (APM 2 15.21.5).
    pub fn in_shadow(&self, by: u32) -> bool {
        let shadow = self.state.blocking & (blocking::STI | blocking::MOV_SS);
        shadow == by || shadow == blocking::STI && extension() == Extension::Svm
    }
}
