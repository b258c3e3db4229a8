//! Hands the linker script to the linker when the loader itself is built.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=linker.ld");
    println!("cargo:rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let folder = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let script = Path::new(&folder).join("linker.ld");
    println!("cargo:rustc-link-arg-bins=-T{}", script.display());
    // Nothing relocates the loader, so it must be a fixed-address executable whatever relocation
    // model its code was compiled with.
    println!("cargo:rustc-link-arg-bins=--no-pie");
}
