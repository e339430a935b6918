//! Debian packages that tests and the cluster need: which are missing, and installing them without starting services.

use std::fs;
use std::io::{self, BufRead as _, IsTerminal as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command::{self, output, say, succeeds};

/// The file by which Debian asks whether a package may start its service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// First lines of our policy file; the second one tells a leftover of a killed run from the administrator's own.
const POLICY_TEXT: &str = "#!/bin/sh\n# commpool: no service is started by the packages of its tests\nexit 101\n";

/// Whether something may be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// Somebody said yes beforehand (`--yes`, or `CI` is set).
    Given,
    /// Somebody has to be asked.
    Ask,
}

impl Consent {
    /// Consent from a `--yes` flag and the environment: `CI` counts as yes unless it is empty, `0` or `false`.
    #[must_use]
    pub fn from_flag(yes: bool) -> Self {
        if yes || Self::in_ci() { Self::Given } else { Self::Ask }
    }

    /// Whether this is a run of CI, where nobody can be asked and nothing may be left out.
    #[must_use]
    pub fn in_ci() -> bool {
        std::env::var("CI").is_ok_and(|value| !["", "0", "false"].contains(&value.as_str()))
    }

    /// Whether the work described may be done; asks on the terminal if need be. Without a terminal the answer is no.
    #[must_use]
    pub fn allows(self, what: &str) -> bool {
        if self == Self::Given {
            return true;
        }
        if !io::stdin().is_terminal() {
            say(&format!("{what}: not done without a terminal to ask on; say --yes to allow it"));
            return false;
        }
        say(&format!("{what}. Go on? [y/N]"));
        let mut answer = String::new();
        let read = io::stdin().lock().read_line(&mut answer);
        read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
    }
}

/// Which of these packages are not installed.
#[must_use]
pub fn missing<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    packages.iter().copied().filter(|package| version(package).is_none()).collect()
}

/// Version of an installed package.
#[must_use]
pub fn version(package: &str) -> Option<String> {
    let query = ["-W", "-f=${db:Status-Status} ${Version}", package];
    let answer = output(Command::new("dpkg-query").args(query)).ok()?;
    answer.strip_prefix("installed ").map(str::to_owned)
}

/// Installs those of these packages that are missing, after asking. Elsewhere than on Debian nothing is done: there the
/// programs themselves are looked for when they are needed.
///
/// # Errors
/// When it is not allowed, or they cannot be installed.
pub fn provide(packages: &[&str], consent: Consent) -> Result<()> {
    let missing = missing(packages);
    if missing.is_empty() || command::which("dpkg-query").is_none() {
        return Ok(());
    }
    let what = format!("Debian packages to be installed (no service of theirs is started): {}", missing.join(" "));
    if !consent.allows(&what) {
        bail!("packages are missing: {}", missing.join(" "));
    }
    install(&missing)
}

/// Installs packages, without recommended ones and without letting any of them start a service.
///
/// # Errors
/// When this is not Debian, not root, or apt fails.
pub fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let wanted = packages.join(" ");
    if command::which("apt-get").is_none() {
        bail!("these Debian packages are needed and this machine has no apt-get: {wanted}");
    }
    if !command::is_root() {
        bail!("only root can install packages; run `apt-get install --no-install-recommends {wanted}` as root");
    }
    let _policy = Policy::put(Path::new(POLICY))?;
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(io::stderr());
        command.args(["-q", "-o", "Dpkg::Use-Pty=0"]).args(arguments);
        command
    };
    let install = [&["install", "-y", "--no-install-recommends"], packages].concat();
    // An image of CI may carry package lists, old ones or none: fresh lists are fetched only if these do not do.
    if succeeds(&mut apt(&[&install[..], &["--simulate"]].concat())) && command::run(&mut apt(&install)).is_ok() {
        return Ok(());
    }
    command::run(&mut apt(&["update"]))?;
    command::run(&mut apt(&install)).with_context(|| format!("these packages could not be installed: {wanted}"))
}

/// A policy file that refuses to start services, while it lives; what was there before comes back.
struct Policy {
    file: PathBuf,
    saved: Option<PathBuf>,
}

impl Policy {
    /// Puts the file in place, unless one that refuses is there already.
    fn put(file: &Path) -> Result<Option<Self>> {
        let found = fs::read_to_string(file).ok();
        let ours = found.as_deref() == Some(POLICY_TEXT);
        if found.is_some() && !ours && answer(file) == Some(101) {
            return Ok(None);
        }
        let saved = (found.is_some() && !ours).then(|| file.with_extension("d.before-commpool"));
        if let Some(saved) = &saved {
            fs::rename(file, saved).with_context(|| format!("cannot put {} aside", file.display()))?;
        }
        let policy = Self { file: file.to_owned(), saved };
        fs::write(file, POLICY_TEXT).with_context(|| format!("cannot write {}", file.display()))?;
        fs::set_permissions(file, fs::Permissions::from_mode(0o755))?;
        Ok(Some(policy))
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        let back = match &self.saved {
            Some(saved) => fs::rename(saved, &self.file),
            None => fs::remove_file(&self.file),
        };
        if let Err(error) = back {
            say(&format!("{} could not be put back as it was: {error}", self.file.display()));
        }
    }
}

/// What a policy file answers when a service is to be started.
fn answer(file: &Path) -> Option<i32> {
    loop {
        match Command::new(file).args(["commpool", "start"]).status() {
            // Another thread that is starting a program holds a copy of the descriptor the file was written by.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
            ended => return ended.ok()?.code(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(file: &Path, text: &str) {
        fs::write(file, text).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn without_a_policy_ours_refuses_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("policy-rc.d");
        let policy = Policy::put(&file).unwrap().unwrap();
        assert_eq!(answer(&file), Some(101));
        drop(policy);
        assert!(!file.exists());
    }

    #[test]
    fn a_permitting_policy_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("policy-rc.d");
        script(&file, "#!/bin/sh\nexit 0\n");
        let policy = Policy::put(&file).unwrap().unwrap();
        assert_eq!(answer(&file), Some(101));
        drop(policy);
        assert_eq!(answer(&file), Some(0));
    }

    #[test]
    fn a_refusing_policy_is_left_alone_and_a_leftover_of_ours_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("policy-rc.d");
        script(&file, "#!/bin/sh\nexit 101\n");
        assert!(Policy::put(&file).unwrap().is_none());
        script(&file, POLICY_TEXT);
        drop(Policy::put(&file).unwrap().unwrap());
        assert!(!file.exists());
    }

    #[test]
    fn installed_and_missing_packages_are_told_apart() {
        if command::which("dpkg-query").is_none() {
            return;
        }
        assert!(version("dpkg").is_some());
        assert_eq!(missing(&["dpkg", "no-such-package-anywhere"]), ["no-such-package-anywhere"]);
    }
}
