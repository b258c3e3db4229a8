//! The screen's memory, where the loader can write to it.

use core::ptr::addr_of_mut;

use ::screen::{Layout, Screen, TEXT_ADDRESS};
use boot::framebuffer::LinearFramebuffer;
use boot::handoff::Handoff;
use x86_64::instructions::port::Port;

use crate::cpu;

/// A large page.
const LARGE: u64 = 2 << 20;
/// Index register of the CRT controller in colour modes; the data register is the next port.
const CRT_CONTROLLER: u16 = 0x3d4;
/// Where frame buffers are seen: behind what the first tables identity map.
const WINDOW: u64 = 4 << 30;
/// The entry of `first_pdpt` for it, which covers 1 GiB.
const WINDOW_ENTRY: usize = 4;
/// Present, writable, large page.
const LEAF: u64 = 0x83;
/// Present, writable.
const TABLE: u64 = 0x03;

/// Entries of a page table.
#[repr(C, align(4096))]
struct Directory([u64; 512]);

static mut DIRECTORY: Directory = Directory([0; 512]);

unsafe extern "C" {
    static mut first_pdpt: [u64; 512];
}

/// The text screen of a PC, without its cursor, which nobody moves.
pub fn text() -> Option<Screen<'static>> {
    // SAFETY: bit 5 of the cursor start register hides the cursor (IBM VGA, CRT controller index
    // 10); where there is no such controller, nobody listens.
    unsafe {
        Port::new(CRT_CONTROLLER).write(0x0a_u8);
        Port::new(CRT_CONTROLLER + 1).write(0x20_u8);
    }
    let start = TEXT_ADDRESS as *mut u8;
    // SAFETY: the low 4 GiB are mapped, and nobody else has a reference to the text screen's
    // memory; where there is no such memory, nothing else is there either.
    let memory = unsafe { core::slice::from_raw_parts_mut(start, Layout::TEXT.length()) };
    Screen::new(memory, Layout::TEXT)
}

/// The screen that the hand-off describes, if the loader can show text there.
///
/// # Safety
/// To be called once.
pub unsafe fn find(handoff: &Handoff<'_>) -> Option<Screen<'static>> {
    if handoff.text_screen {
        return text();
    }
    let framebuffer = handoff.framebuffer?;
    // SAFETY: the caller's promise.
    let memory = unsafe { map(&framebuffer) }?;
    // Whatever firmware drew, also where no characters will be.
    memory.fill(0);
    Screen::new(memory, framebuffer.layout())
}

/// Maps a frame buffer, wherever in the physical address space it is.
///
/// # Safety
/// To be called once.
unsafe fn map(framebuffer: &LinearFramebuffer) -> Option<&'static mut [u8]> {
    let span = framebuffer.span();
    let first = span.start / LARGE * LARGE;
    if span.end > cpu::features().physical_limit() || span.end - first > 512 * LARGE {
        return None;
    }
    let directory = addr_of_mut!(DIRECTORY).cast::<u64>();
    for page in 0..512 {
        let start = first + page as u64 * LARGE;
        if start < span.end {
            // SAFETY: the table is not in use yet.
            unsafe { directory.add(page).write(start | LEAF) };
        }
    }
    let pdpt = addr_of_mut!(first_pdpt).cast::<u64>();
    // SAFETY: the entry was not present, so no stale translation exists; the loader's own memory
    // is identity mapped, so that the table's address is its physical one.
    unsafe { pdpt.add(WINDOW_ENTRY).write_volatile(directory as u64 | TABLE) };
    let start = WINDOW + (span.start - first);
    // SAFETY: mapped now, and referred to by nobody else.
    Some(unsafe { core::slice::from_raw_parts_mut(start as *mut u8, framebuffer.info.byte_len) })
}
