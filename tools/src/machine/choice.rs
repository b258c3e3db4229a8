//! Which platform runs the system.

use miette::{Result, bail, miette};

use super::specification::{Extension, Platform, Specification};
use crate::cli::PlatformArgument;

/// Why a platform cannot be taken, and what can be done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// Why.
    pub why: String,
    /// What to do.
    pub remedy: String,
}

/// What this host can run.
pub trait Host {
    /// The extension that QEMU's machines have on a platform, if it works here.
    ///
    /// # Errors
    /// Why it does not.
    fn extension(&self, platform: Platform) -> std::result::Result<Extension, Unfit>;

    /// The processor models that a platform knows.
    ///
    /// # Errors
    /// What it says instead.
    fn models(&self, platform: Platform) -> std::result::Result<Vec<String>, Unfit>;

    /// Whether a known model can have the properties that follow its name.
    ///
    /// # Errors
    /// What is wrong with them.
    fn properties(&self, platform: Platform, cpu: &str) -> std::result::Result<(), Unfit>;
}

/// A machine, and why its platform was taken.
#[derive(Clone, Debug)]
pub struct Choice {
    /// What to start.
    pub specification: Specification,
    /// For people.
    pub reason: String,
}

/// What `auto` tries, fastest first.
const ORDER: [Platform; 3] = [Platform::QemuKvm, Platform::QemuTcg, Platform::Bochs];

/// Finds the platform for a machine; the one that it names already does not count.
///
/// # Errors
/// A platform that cannot do what is asked, and what to do instead.
pub fn choose(
    wanted: PlatformArgument,
    machine: &Specification,
    host: &impl Host,
) -> Result<Choice> {
    let on = |platform| Specification { platform, ..machine.clone() };
    // It can be everything, so what it cannot be is nobody's fault.
    on(Platform::QemuTcg).check()?;
    let forced = match wanted {
        PlatformArgument::Auto => return first_that_works(on, host),
        PlatformArgument::Bochs => on(Platform::Bochs),
        PlatformArgument::QemuKvm => on(Platform::QemuKvm),
        PlatformArgument::QemuTcg => on(Platform::QemuTcg),
    };
    forced.check()?;
    if let Err(Unfit { why, remedy }) = fitting(&forced, host) {
        bail!(help = remedy, "{}: {why}", forced.platform.name());
    }
    Ok(Choice { specification: forced, reason: "as asked".into() })
}

fn first_that_works(on: impl Fn(Platform) -> Specification, host: &impl Host) -> Result<Choice> {
    let mut passed_over = Vec::new();
    let mut remedies = Vec::new();
    for platform in ORDER {
        let specification = on(platform);
        let found = match specification.check() {
            Ok(()) => fitting(&specification, host),
            Err(report) => Err(Unfit { why: report.to_string(), remedy: String::new() }),
        };
        match found {
            Ok(extension) => {
                let taken = format!("{} has {}", platform.name(), extension.name());
                passed_over.insert(0, taken);
                return Ok(Choice { specification, reason: passed_over.join("; ") });
            }
            Err(Unfit { why, remedy }) => {
                remedies.push(format!("{}: {why}. {remedy}", platform.name()));
                passed_over.push(format!("not {}: {why}", platform.name()));
            }
        }
    }
    Err(miette!(help = remedies.join("\n"), "no platform here can run this machine"))
}

/// Whether this host can run a machine, and with what extension.
fn fitting(
    specification: &Specification,
    host: &impl Host,
) -> std::result::Result<Extension, Unfit> {
    let platform = specification.platform;
    let extension = host.extension(platform)?;
    if let Some(cpu) = &specification.cpu {
        let models = host.models(platform)?;
        let model = specification.model();
        if !models.iter().any(|known| known == model) {
            return Err(Unfit {
                why: format!("there is no processor model {model:?}"),
                remedy: format!("{} knows: {}", platform.name(), without_versions(&models)),
            });
        }
        host.properties(platform, cpu)?;
    }
    Ok(extension)
}

/// Names for people: of EPYC and EPYC-v2 the first is enough.
fn without_versions(models: &[String]) -> String {
    let is_version = |name: &str| {
        let base = name.rsplit_once("-v").filter(|(_, number)| number.parse::<u32>().is_ok());
        base.is_some_and(|(base, _)| models.iter().any(|known| known == base))
    };
    let names: Vec<&str> =
        models.iter().map(String::as_str).filter(|name| !is_version(name)).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Firmware;
    use crate::machine::Pace;

    /// A host on which the named platforms work, with a model of each own and one in common.
    struct Fake(&'static [Platform]);

    impl Host for Fake {
        fn extension(&self, platform: Platform) -> std::result::Result<Extension, Unfit> {
            if self.0.contains(&platform) {
                return Ok(platform.extension().unwrap_or(Extension::VtX));
            }
            Err(Unfit { why: format!("{} is broken", platform.name()), remedy: "mend it".into() })
        }

        fn models(&self, platform: Platform) -> std::result::Result<Vec<String>, Unfit> {
            Ok(vec!["common".into(), "common-v2".into(), format!("only-{}", platform.name())])
        }

        fn properties(&self, _: Platform, cpu: &str) -> std::result::Result<(), Unfit> {
            match cpu.contains("magic") {
                true => Err(Unfit { why: "no magic".into(), remedy: "leave it out".into() }),
                false => Ok(()),
            }
        }
    }

    fn machine(cpu: Option<&str>) -> Specification {
        let usual = Specification::usual(Platform::Bochs, Pace::Fast);
        Specification { cpu: cpu.map(str::to_owned), ..usual }
    }

    fn text(report: &miette::Report) -> String {
        let help = report.help().map(|help| help.to_string()).unwrap_or_default();
        format!("{report}\n{help}")
    }

    fn taken(wanted: PlatformArgument, machine: &Specification, host: &Fake) -> Platform {
        choose(wanted, machine, host).unwrap().specification.platform
    }

    const AUTO: PlatformArgument = PlatformArgument::Auto;
    const ALL: Fake = Fake(&ORDER);

    #[test]
    fn auto_takes_the_first_that_works_and_says_why_not_the_others() {
        let expected = [
            (ALL, Platform::QemuKvm, "qemu-kvm has VT-x"),
            (Fake(&[Platform::QemuTcg, Platform::Bochs]), Platform::QemuTcg, "qemu-kvm is broken"),
            (Fake(&[Platform::Bochs]), Platform::Bochs, "qemu-tcg is broken"),
        ];
        for (host, platform, reason) in expected {
            let choice = choose(AUTO, &machine(None), &host).unwrap();
            assert_eq!(choice.specification.platform, platform);
            assert!(choice.reason.contains(reason), "{}", choice.reason);
        }
        let report = choose(AUTO, &machine(None), &Fake(&[])).unwrap_err();
        assert!(text(&report).contains("bochs is broken. mend it"), "{}", text(&report));
    }

    #[test]
    fn auto_goes_by_what_is_asked_of_the_machine() {
        let usual = machine(None);
        for wish in [
            Specification { firmware: Firmware::Uefi, ..usual.clone() },
            Specification { direct: true, ..usual.clone() },
            Specification { gdb: true, ..usual.clone() },
            Specification { screenshot: Some("a.png".into()), ..usual },
        ] {
            assert_eq!(taken(AUTO, &wish, &Fake(&[Platform::QemuTcg])), Platform::QemuTcg);
            let report = choose(AUTO, &wish, &Fake(&[Platform::Bochs])).unwrap_err();
            assert!(text(&report).contains("Bochs has no"), "{}", text(&report));
        }
        assert_eq!(taken(AUTO, &machine(Some("only-bochs")), &ALL), Platform::Bochs);
        assert_eq!(taken(AUTO, &machine(Some("only-qemu-tcg,-npt")), &ALL), Platform::QemuTcg);
    }

    #[test]
    fn a_platform_that_is_asked_for_is_taken_or_says_what_to_do() {
        let tcg = PlatformArgument::QemuTcg;
        assert_eq!(taken(tcg, &machine(None), &ALL), Platform::QemuTcg);
        let report = choose(tcg, &machine(None), &Fake(&[Platform::Bochs])).unwrap_err();
        assert!(text(&report).contains("qemu-tcg is broken\nmend it"), "{}", text(&report));
        let direct = Specification { direct: true, ..machine(None) };
        assert!(choose(PlatformArgument::Bochs, &direct, &ALL).is_err());
    }

    #[test]
    fn an_unknown_processor_names_those_that_exist() {
        for wanted in [AUTO, PlatformArgument::Bochs] {
            let report = choose(wanted, &machine(Some("z80")), &ALL).unwrap_err();
            assert!(text(&report).contains("no processor model \"z80\""), "{}", text(&report));
            assert!(text(&report).contains("common, only-bochs"), "{}", text(&report));
        }
    }

    #[test]
    fn a_model_may_have_a_version_and_properties() {
        let tcg = PlatformArgument::QemuTcg;
        assert_eq!(taken(tcg, &machine(Some("common-v2,-npt")), &ALL), Platform::QemuTcg);
        let report = choose(tcg, &machine(Some("common,+magic")), &ALL).unwrap_err();
        assert!(text(&report).contains("no magic\nleave it out"), "{}", text(&report));
    }

    #[test]
    fn what_no_platform_takes_is_said_plainly() {
        let small = Specification { memory: 1 << 20, ..machine(None) };
        let report = choose(AUTO, &small, &ALL).unwrap_err();
        assert!(report.to_string().contains("no less than 32"), "{report}");
    }
}
