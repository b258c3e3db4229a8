//! Packing a system: the bundle from its manifest, and the bootable image around that.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use abi::bundle::{HYPERVISOR, ROOT, SYSTEM};
use miette::{IntoDiagnostic, Result, WrapErr, miette};

use crate::bundle::{Bundle, LONGEST_NAME};
use crate::cli::ImageArguments;
use crate::compile::{self, Built};
use crate::files;
use crate::gdb;
use crate::guest::Content;
use crate::manifest::Manifest;
use crate::program;
use crate::say;
use crate::units::show_size;
use crate::workspace::Workspace;

/// The console service; it is in every bundle, because the kernel gives up the serial port.
const CONSOLE: &str = "console";

/// What GRUB does: load the three parts, say what is missing, and start. No menu, no waiting. The
/// serial terminal is a dumb one, so that GRUB does not clear the screen of whoever looks on. The
/// loader welcomes a frame buffer, which is all that UEFI has; a BIOS machine stays in text mode.
const GRUB_CONFIGURATION: &str = "\
set timeout=0
serial --unit=0 --speed=115200
terminfo serial dumb
terminal_output console serial
insmod all_video
multiboot2 /boot/ferrite-boot
if [ \"$grub_platform\" = pc ]; then
    set gfxpayload=text
fi
module2 /boot/hypervisor hypervisor
module2 /boot/bundle bundle
boot
";

/// The GRUB modules that this takes; all others stay out of the image.
const GRUB_MODULES: &str = "normal iso9660 multiboot2 serial terminfo echo test configfile \
                            all_video search search_fs_file search_fs_uuid fat part_acorn \
                            part_amiga part_apple part_bsd part_dfly part_dvh part_gpt \
                            part_msdos part_plan part_sun part_sunpc";

/// A packed system.
#[derive(Debug, Clone)]
pub struct Packed {
    /// The hybrid image.
    pub image: PathBuf,
    /// The loader, for direct boot.
    pub loader: PathBuf,
    /// The bundle with the kernel inside, for direct boot.
    pub direct_bundle: PathBuf,
    /// The virtual address of the kernel's first instruction.
    pub entry: u64,
}

/// `scripts/image`.
///
/// # Errors
/// Whatever stands in the way of an image.
pub fn command(workspace: &Workspace, arguments: &ImageArguments) -> Result<ExitCode> {
    let path = arguments.manifest.clone().unwrap_or_else(|| workspace.default_manifest());
    let manifest = Manifest::read(workspace, &path)?;
    let built = compile::build(workspace)?;
    let packed = pack(workspace, &built, &manifest)?;
    let image = match &arguments.output {
        Some(output) => {
            files::copy(&packed.image, output)?;
            output
        }
        None => &packed.image,
    };
    let size = image.metadata().into_diagnostic()?.len();
    say::step(format!("{} ({})", workspace.short(image), show_size(size)));
    Ok(ExitCode::SUCCESS)
}

/// Packs a system into target/images/NAME.
///
/// # Errors
/// A program or guest file that is not there, or a failing GRUB.
pub fn pack(workspace: &Workspace, built: &Built, manifest: &Manifest) -> Result<Packed> {
    for partition in &manifest.partitions {
        say::step(format!("packing {}", partition.summary()));
        let vmm = partition.vmm.get_ref();
        if !built.has(vmm) {
            return Err(manifest.complain(
                &partition.vmm,
                format!("no program named {vmm:?}"),
                format!("it can be any program of the packages {}", compile::PACKAGES.join(", ")),
            ));
        }
    }
    let images = workspace.target.join("images");
    // Two commands may pack the same system at the same time.
    let lock = File::create(images.join("lock")).into_diagnostic()?;
    lock.lock().into_diagnostic()?;
    let folder = images.join(&manifest.name);
    let boot = folder.join("iso/boot");
    files::fresh_folder(&folder)?;
    files::make_folder(&boot.join("grub"))?;
    let loader = built.program("boot")?;
    let hypervisor = built.program("hypervisor")?;
    files::copy(&loader, &boot.join("ferrite-boot"))?;
    files::copy(&hypervisor, &boot.join("hypervisor"))?;
    files::write(&boot.join("grub/grub.cfg"), GRUB_CONFIGURATION)?;

    let contents = contents(workspace, built, manifest)?;
    files::write(&boot.join("bundle"), make_bundle(&contents, None)?)?;
    let direct_bundle = folder.join("direct-bundle");
    let kernel = files::read(&hypervisor)?;
    let entry = gdb::entry_point(&kernel)?;
    files::write(&direct_bundle, make_bundle(&contents, Some(kernel))?)?;

    let image = images.join(format!("{}.iso", manifest.name));
    make_image(&folder.join("iso"), &image)?;
    Ok(Packed { image, loader, direct_bundle, entry })
}

/// The entries of a bundle: the root task, the description, and all that it names.
fn contents(
    workspace: &Workspace,
    built: &Built,
    manifest: &Manifest,
) -> Result<Vec<(String, Vec<u8>)>> {
    let mut programs = vec![CONSOLE.to_owned()];
    let mut guests: Vec<(Content, String)> = Vec::new();
    let mut system = config::System {
        name: manifest.name.clone(),
        on_end: manifest.on_end,
        partitions: Vec::new(),
    };
    for partition in &manifest.partitions {
        let vmm = partition.vmm.get_ref().clone();
        if !programs.contains(&vmm) {
            programs.push(vmm.clone());
        }
        let mut guest_file = |content: &Option<Content>| {
            content.as_ref().map(|content| name_guest_file(&mut guests, content))
        };
        system.partitions.push(config::Partition {
            name: partition.name.clone(),
            vmm,
            memory: partition.memory,
            cpus: partition.cpus,
            cpu: partition.cpu,
            priority: partition.priority,
            budget_us: partition.budget_us,
            period_us: partition.period_us,
            kernel: guest_file(&partition.kernel),
            initrd: guest_file(&partition.initrd),
            cmdline: partition.cmdline.clone(),
            args: partition.args.clone(),
            restart: partition.restart,
            console: partition.console,
            ports: partition.ports.clone(),
            interrupts: partition.interrupts.clone(),
        });
    }
    let description =
        config::encode(&system).map_err(|invalid| miette!("the system description: {invalid}"))?;
    let task = |name: &str| {
        let elf = files::read(&built.with_symbols(name))?;
        program::from_elf(&elf).wrap_err_with(|| format!("{name} cannot be a task"))
    };
    let mut contents =
        vec![(ROOT.to_owned(), task("root-task")?), (SYSTEM.to_owned(), description)];
    for program in programs {
        let bytes = task(&program)?;
        contents.push((program, bytes));
    }
    for (content, name) in guests {
        contents.push((name, content.load(workspace)?));
    }
    Ok(contents)
}

/// The bundle name of a guest file: the same file keeps its name, and two files never share one.
fn name_guest_file(guests: &mut Vec<(Content, String)>, content: &Content) -> String {
    if let Some((_, name)) = guests.iter().find(|(known, _)| known == content) {
        return name.clone();
    }
    let mut base: String =
        content.name().chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).collect();
    // Room for the folder and for a number.
    base.truncate(LONGEST_NAME - "guest/".len() - "-99".len());
    let mut name = format!("guest/{base}");
    let mut number = 2;
    while guests.iter().any(|(_, taken)| *taken == name) {
        name = format!("guest/{base}-{number}");
        number += 1;
    }
    guests.push((content.clone(), name.clone()));
    name
}

/// The root task comes first; the kernel, where it is part of the bundle, second.
fn make_bundle(contents: &[(String, Vec<u8>)], hypervisor: Option<Vec<u8>>) -> Result<Vec<u8>> {
    let mut bundle = Bundle::default();
    let mut hypervisor = hypervisor;
    for (name, content) in contents {
        bundle.add(name, content.clone())?;
        if let Some(hypervisor) = hypervisor.take() {
            bundle.add(HYPERVISOR, hypervisor)?;
        }
    }
    Ok(bundle.into_bytes())
}

fn make_image(tree: &Path, image: &Path) -> Result<()> {
    let wheel = say::wheel("making the image");
    // Dates are fixed so that the same content makes the same image.
    let date = env::var("SOURCE_DATE_EPOCH").unwrap_or_else(|_| "1767225600".into());
    let partial = image.with_extension("iso.partial");
    let output = Command::new("grub-mkrescue")
        .env("SOURCE_DATE_EPOCH", date)
        .arg("--output")
        .arg(&partial)
        .args(["--locales=", "--fonts=", "--themes="])
        .arg(format!("--install-modules={GRUB_MODULES}"))
        .arg(tree)
        .args(["--", "-volid", "FERRITE"])
        .output()
        .into_diagnostic()
        .wrap_err("cannot start grub-mkrescue; run scripts/setup")?;
    wheel.finish_and_clear();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(miette!(help = said, "grub-mkrescue failed"));
    }
    fs::rename(&partial, image).into_diagnostic()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_files_keep_their_names_and_never_share_one() {
        let mut guests = Vec::new();
        let file = |path: &str| Content::File(PathBuf::from(path));
        assert_eq!(name_guest_file(&mut guests, &file("/a/kernel")), "guest/kernel");
        assert_eq!(name_guest_file(&mut guests, &file("/b/kernel")), "guest/kernel-2");
        assert_eq!(name_guest_file(&mut guests, &file("/a/kernel")), "guest/kernel");
        let long = name_guest_file(&mut guests, &file(&format!("/a/{}", "x".repeat(200))));
        assert!(long.len() <= LONGEST_NAME);
        let other = name_guest_file(&mut guests, &file(&format!("/b/{}", "x".repeat(200))));
        assert!(other.len() <= LONGEST_NAME && other != long);
        assert_eq!(guests.len(), 4);
    }

    #[test]
    fn the_kernel_is_the_second_entry_of_a_direct_bundle() {
        let contents = [("root".to_owned(), vec![1]), ("system".to_owned(), vec![2])];
        let bytes = make_bundle(&contents, Some(vec![3])).unwrap();
        let bundle = abi::bundle::Bundle::parse(&bytes).unwrap();
        let names: Vec<&str> = bundle.entries().map(|entry| entry.name).collect();
        assert_eq!(names, ["root", "hypervisor", "system"]);
        let bytes = make_bundle(&contents, None).unwrap();
        assert!(abi::bundle::Bundle::parse(&bytes).unwrap().find("hypervisor").is_none());
    }
}
