//! File operations whose errors name the file.

use std::fs;
use std::path::Path;

use miette::{IntoDiagnostic, Result, WrapErr};

/// The content of a file.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).into_diagnostic().wrap_err_with(|| format!("cannot read {}", path.display()))
}

/// The content of a text file.
pub fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path)
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot read {}", path.display()))
}

/// Writes a file, in one piece: readers see the old content or the new.
pub fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let partial = Path::new(&name);
    fs::write(partial, content)
        .and_then(|()| fs::rename(partial, path))
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot write {}", path.display()))
}

/// Makes a folder and all above it.
pub fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path)
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot make the folder {}", path.display()))
}

/// An empty folder, whatever was there before.
pub fn fresh_folder(path: &Path) -> Result<()> {
    if path.exists() {
        fs::remove_dir_all(path)
            .into_diagnostic()
            .wrap_err_with(|| format!("cannot empty the folder {}", path.display()))?;
    }
    make_folder(path)
}

/// Copies a file.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// A second name for a file, on the same disk. It keeps its content when another file takes the
/// first name.
pub fn link(from: &Path, to: &Path) -> Result<()> {
    fs::hard_link(from, to)
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot link {} to {}", from.display(), to.display()))
}
