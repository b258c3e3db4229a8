//! The screen that the kernel's messages appear on: until the root task starts, and if the kernel dies later.

use bootloader_api::BootInfo;
use bootloader_api::info::FrameBufferInfo;
use screen::{Layout, Screen, TEXT_ADDRESS};

use super::memory::Map;
use crate::arch::kernel_map;
use crate::mem::PAGE;

/// Where the loader maps the frame buffer, or without one the text screen of a PC.
pub fn find(info: &BootInfo) -> Option<(u64, Layout)> {
    let Some(framebuffer) = info.framebuffer.as_ref() else {
        return Some((info.physical_memory_offset.into_option()? + TEXT_ADDRESS, Layout::TEXT));
    };
    let FrameBufferInfo { width, height, bytes_per_pixel: bytes, stride, .. } = framebuffer.info();
    let layout = Layout { stride: stride.saturating_mul(bytes), width, height, bytes };
    Some((framebuffer.buffer().as_ptr() as u64, layout))
}

/// The whole screen, until the loader's mapping goes.
pub fn open(info: &BootInfo) -> Option<Screen<'static>> {
    let (start, layout) = find(info)?;
    // SAFETY: the loader maps it; of its own description only the address is asked for later. Where there is no text screen,
    // nothing is there.
    let memory = unsafe { core::slice::from_raw_parts_mut(start as *mut u8, layout.length()) };
    Screen::new(memory, layout)
}

/// The five upper rows of the screen, mapped in the kernel's own tables for the case that the kernel dies.
pub fn keep(info: &BootInfo, map: &Map) -> Option<Screen<'static>> {
    let (start, layout) = find(info).map(|(start, layout)| (start, layout.top(5)))?;
    let first = map.physical.of(start as *const u8);
    let inside = first % PAGE as u64;
    // Page after page, at addresses that follow each other.
    let pages = (first - inside..first + layout.length() as u64).step_by(PAGE);
    let mut mapped = pages.map(|page| kernel_map::map_device(map.template, page));
    let start = mapped.next()?? + inside;
    mapped.all(|page| page.is_some()).then_some(())?;
    // SAFETY: mapped just now, for this alone.
    let memory = unsafe { core::slice::from_raw_parts_mut(start as *mut u8, layout.length()) };
    Screen::new(memory, layout)
}
