//! Where things are.

use std::env;
use std::path::{Path, PathBuf};

use miette::{Result, miette};

/// The folders that everything else is named by.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// The checkout.
    pub root: PathBuf,
    /// What cargo and this tool build.
    pub target: PathBuf,
    /// What `scripts/setup` put in place.
    pub tools: PathBuf,
}

impl Workspace {
    /// The checkout that this tool was built from.
    ///
    /// # Errors
    /// When it is gone, or `scripts/setup` has not been there.
    pub fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .filter(|root| root.join("rust-toolchain.toml").is_file())
            .ok_or_else(|| {
                miette!("the checkout that this tool was built from is gone; build it again")
            })?
            .to_path_buf();
        let target = env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root.join("target"), |folder| root.join(folder));
        let tools =
            env::var_os("FERRITE_TOOLS").map_or_else(|| root.join("target/tools"), PathBuf::from);
        if !tools.join("env.sh").is_file() {
            return Err(miette!(help = "run scripts/setup", "{} is missing", tools.display()));
        }
        Ok(Self { root, target, tools })
    }

    /// The system that is meant when none is named.
    pub fn default_manifest(&self) -> PathBuf {
        self.root.join("guests/demo.toml")
    }

    /// A path as people in this checkout would write it.
    pub fn short(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }
}
