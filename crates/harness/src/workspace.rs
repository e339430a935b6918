//! Where things are: the checkout, the folder for what is kept outside it, the binaries cargo built.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Version of the workspace; all crates, images and charts carry it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Names the folder that keeps tools, Kubernetes parts and other things too dear to make twice.
pub const CACHE_VARIABLE: &str = "COMMPOOL_CACHE";

/// Names a folder with ready binaries, in place of cargo's own.
pub const BINARIES_VARIABLE: &str = "COMMPOOL_BIN_DIR";

/// Cache folder when [`CACHE_VARIABLE`] is not set.
const DEFAULT_CACHE: &str = "/var/tmp/commpool";

/// Beginnings of the variables by which cargo tells a program about its own package.
const OF_OUR_PACKAGE: &[&str] =
    &["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_", "OUT_DIR"];

/// The checkout and the folders that belong to it.
#[derive(Clone, Debug)]
pub struct Workspace {
    root: PathBuf,
    cache: PathBuf,
}

impl Workspace {
    /// Finds the checkout: the workspace above `CARGO_MANIFEST_DIR` (set by `cargo run` and `cargo test`), else the
    /// one above the current folder.
    ///
    /// # Errors
    /// When neither lies inside a checkout.
    pub fn find() -> Result<Self> {
        let start = match env::var_os("CARGO_MANIFEST_DIR") {
            Some(folder) => PathBuf::from(folder),
            None => env::current_dir().context("the current folder cannot be read")?,
        };
        let root = start.ancestors().find(|folder| is_root(folder)).with_context(|| {
            format!("{} is not inside a checkout of Commpool; change into one first", start.display())
        })?;
        let cache = env::var_os(CACHE_VARIABLE).filter(|value| !value.is_empty());
        Ok(Self { root: root.to_owned(), cache: cache.map_or_else(|| DEFAULT_CACHE.into(), PathBuf::from) })
    }

    /// Folder of the workspace's `Cargo.toml`.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Folder for what is kept outside the checkout: `COMMPOOL_CACHE`, else `/var/tmp/commpool`. It need not exist.
    #[must_use]
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// Cargo's target folder for this checkout: `CARGO_TARGET_DIR` (relative to the current folder, as cargo reads
    /// it), else `target` in the checkout.
    #[must_use]
    pub fn target(&self) -> PathBuf {
        match env::var_os("CARGO_TARGET_DIR").filter(|value| !value.is_empty()) {
            Some(folder) => env::current_dir().unwrap_or_default().join(folder),
            None => self.root.join("target"),
        }
    }

    /// Cargo in the checkout. What the cargo that runs us set for our own package is taken away: build scripts ask for
    /// it, and would run anew whenever a verb is started in another way.
    #[must_use]
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root);
        for (name, _) in env::vars_os() {
            let own = name.to_str().is_some_and(|name| OF_OUR_PACKAGE.iter().any(|prefix| name.starts_with(prefix)));
            if own {
                command.env_remove(name);
            }
        }
        command
    }

    /// A folder for logs of one kind of work, made if it is missing: `logs/NAME` in the cache folder.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn logs(&self, name: &str) -> Result<PathBuf> {
        self.folder(&format!("logs/{name}"))
    }

    /// A folder below the cache folder, made if it is missing.
    ///
    /// # Errors
    /// When the folder cannot be made; the message names the variable that moves it elsewhere.
    pub fn folder(&self, path: &str) -> Result<PathBuf> {
        let folder = self.cache.join(path);
        std::fs::create_dir_all(&folder).with_context(|| {
            format!("cannot make {}; set {CACHE_VARIABLE} to a folder that can be written", folder.display())
        })?;
        Ok(folder)
    }

    /// A binary of this workspace: from `COMMPOOL_BIN_DIR` if that is set, else from the folder of cargo's profile
    /// that the running program itself was built into.
    ///
    /// # Errors
    /// When it is not there; the message says how to build it.
    pub fn binary(&self, name: &str) -> Result<PathBuf> {
        let folder = match env::var_os(BINARIES_VARIABLE).filter(|value| !value.is_empty()) {
            Some(folder) => PathBuf::from(folder),
            None => own_profile_folder()?,
        };
        let path = folder.join(name);
        if !path.is_file() {
            bail!(
                "{} is not built: run `cargo build --bins`, or set {BINARIES_VARIABLE} to the folder that has it",
                path.display()
            );
        }
        Ok(path)
    }
}

/// Whether a folder is the root of this workspace.
fn is_root(folder: &Path) -> bool {
    std::fs::read_to_string(folder.join("Cargo.toml")).is_ok_and(|text| text.contains("[workspace]"))
}

/// Folder of the profile the running program lies in: `target/debug` for `target/debug/xtask` and for
/// `target/debug/deps/some_test-…`.
fn own_profile_folder() -> Result<PathBuf> {
    let program = env::current_exe().context("the path of the running program cannot be read")?;
    let folder = program.parent().context("the running program lies in no folder")?;
    let inside = folder.file_name().is_some_and(|name| name == "deps" || name == "examples");
    let profile = if inside { folder.parent().unwrap_or(folder) } else { folder };
    Ok(profile.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkout_is_found_from_inside_it() {
        let workspace = Workspace::find().unwrap();
        assert!(workspace.root().join("crates/harness/Cargo.toml").is_file());
    }

    #[test]
    fn a_missing_binary_says_how_to_get_it() {
        let error = Workspace::find().unwrap().binary("no-such-binary").unwrap_err().to_string();
        assert!(error.contains("cargo build") && error.contains(BINARIES_VARIABLE), "{error}");
    }
}
