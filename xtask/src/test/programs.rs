//! The test programs cargo builds, and running one as cargo would.
//!
//! Cargo builds all of them once. `cargo test -p …` for each group would resolve features anew for each choice of
//! packages, and build half the libraries several times.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use commpool_harness::Workspace;
use commpool_harness::command::{run as run_command, shown};
use serde_json::Value;

/// What a test program tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The code of a library or program from within.
    Unit,
    /// A package from outside: a file of its `tests`.
    Integration,
}

/// A test program.
#[derive(Clone, Debug)]
pub(super) struct Program {
    /// Folder of its package, relative to the checkout.
    pub(super) folder: PathBuf,
    /// Name of what it tests, or of the test's file.
    pub(super) name: String,
    pub(super) kind: Kind,
    executable: PathBuf,
}

/// Builds every binary and every test program.
pub(super) fn build(workspace: &Workspace) -> Result<Vec<Program>> {
    run_command(workspace.cargo().args(["build", "--locked", "--workspace", "--bins"]))?;
    let mut tests = workspace.cargo();
    tests.args(["test", "--locked", "--workspace", "--lib", "--bins", "--tests", "--no-run"]);
    tests.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    let output = tests.output().with_context(|| format!("`{}` cannot be started", shown(&tests)))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", shown(&tests), output.status);
    }
    let lines = String::from_utf8_lossy(&output.stdout);
    Ok(lines.lines().filter_map(|line| program(workspace.root(), &serde_json::from_str(line).ok()?)).collect())
}

/// The test program of a message of cargo, if it tells of one.
fn program(root: &Path, message: &Value) -> Option<Program> {
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let manifest = Path::new(message["manifest_path"].as_str()?);
    let kind = if message["target"]["kind"][0] == "test" { Kind::Integration } else { Kind::Unit };
    Some(Program {
        folder: manifest.parent()?.strip_prefix(root).ok()?.to_owned(),
        name: message["target"]["name"].as_str()?.to_owned(),
        kind,
        executable: message["executable"].as_str()?.into(),
    })
}

impl Program {
    /// A command that runs it in its package's folder with the variables that tests ask for.
    pub(super) fn command(&self, workspace: &Workspace) -> Command {
        let folder = workspace.root().join(&self.folder);
        let mut command = Command::new(&self.executable);
        command.current_dir(&folder).env("CARGO_MANIFEST_DIR", &folder).stdin(Stdio::null());
        command
    }

    /// The line that heads its output.
    pub(super) fn heading(&self) -> String {
        let kind = if self.kind == Kind::Unit { "unit tests" } else { "tests" };
        format!("     Running {kind} {} of {}", self.name, self.folder.display())
    }
}

/// Runs the examples in the documentation; cargo alone can.
pub(super) fn documentation(workspace: &Workspace, log: &File) -> Result<()> {
    let mut doc = workspace.cargo();
    doc.args(["test", "--locked", "--workspace", "--doc"]).stdin(Stdio::null());
    run_command(doc.stdout(log.try_clone()?).stderr(log.try_clone()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_of_cargo_tell_of_test_programs() {
        let message = |kind: &str, test: bool| {
            json!({
                "reason": "compiler-artifact",
                "manifest_path": "/checkout/crates/store/Cargo.toml",
                "target": {"kind": [kind], "name": "contract"},
                "profile": {"test": test},
                "executable": "/target/debug/deps/contract-1",
            })
        };
        let root = Path::new("/checkout");
        let found = program(root, &message("test", true)).unwrap();
        assert_eq!((found.folder.to_str(), found.kind), (Some("crates/store"), Kind::Integration));
        assert_eq!(program(root, &message("lib", true)).unwrap().kind, Kind::Unit);
        assert!(program(root, &message("bin", false)).is_none());
        assert!(program(root, &json!({"reason": "build-finished"})).is_none());
    }
}
