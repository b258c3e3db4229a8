//! Guest code, written where it is used.

/// The bytes of 16-, 32- or 64-bit code.
#[macro_export]
macro_rules! code {
    ($bits:literal, $($line:literal),+ $(,)?) => {{
        let (start, end): (*const u8, *const u8);
        // SAFETY: takes the addresses of bytes that lie in a section of their own, and does nothing else.
        unsafe {
            ::core::arch::asm!(
                "lea {start}, [rip + 771f]",
                "lea {end}, [rip + 772f]",
                ".pushsection .rodata.guest, \"a\"",
                concat!(".code", $bits),
                "771:",
                $($line,)+
                "772:",
                ".code64",
                ".popsection",
                start = out(reg) start,
                end = out(reg) end,
                options(nomem, nostack, preserves_flags),
            );
        }
        // SAFETY: the bytes between the two labels are constant.
        unsafe { ::core::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
    }};
}
