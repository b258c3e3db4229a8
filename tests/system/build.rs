//! Links the tasks with the memory layout that the runtime prescribes.

fn main() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../vmm-userspace/runtime/task.ld");
    println!("cargo::rerun-if-changed={script}");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "none") {
        println!("cargo::rustc-link-arg-bins=-T{script}");
        println!("cargo::rustc-link-arg-bins=-zmax-page-size=4096");
    }
}
