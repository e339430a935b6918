//! `cargo xtask check`: everything that can be judged without running the product.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use commpool_harness::Workspace;
use commpool_harness::command::{output, run as run_command, say};

use crate::steps::Steps;

/// A tool of crates.io, pinned.
struct Tool {
    name: &'static str,
    version: &'static str,
}

const DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2" };
const MACHETE: Tool = Tool { name: "cargo-machete", version: "0.9.2" };

/// Runs all checks; the later ones run even when an earlier one fails.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let steps = Steps::new("check");
    let cargo = |arguments: &[&str]| {
        let mut command = workspace.cargo();
        command.args(arguments);
        command
    };
    steps.run("fmt", || run_command(&mut cargo(&["fmt", "--all", "--check"])));
    steps.run("clippy", || {
        run_command(&mut cargo(&["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]))
    });
    steps.run("rustdoc", || {
        let mut rustdoc = cargo(&["doc", "--locked", "--workspace", "--no-deps", "--document-private-items"]);
        run_command(rustdoc.env("RUSTDOCFLAGS", "-D warnings"))
    });
    steps.run("dependencies", || {
        // Those of other platforms too: without them cargo cannot tell what depends on what.
        run_command(&mut cargo(&["fetch", "--locked", "--quiet"]))?;
        let mut deny = Command::new(DENY.installed(workspace)?);
        // The list of advisories comes from a Git host, and is asked for by hand.
        let checks = ["--locked", "--offline", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"];
        run_command(deny.args(checks).current_dir(workspace.root()))
    });
    steps.run("unused dependencies", || {
        run_command(Command::new(MACHETE.installed(workspace)?).arg("--with-metadata").current_dir(workspace.root()))
    });
    steps.run("generated files", || generated(workspace));
    steps.finish()
}

/// Compares what is generated and committed with what would be generated now.
fn generated(workspace: &Workspace) -> Result<()> {
    let arguments = ["run", "--locked", "--quiet", "-p", "commpool-operator", "--bin", "crdgen", "--", "--check"];
    run_command(workspace.cargo().args(arguments))
}

impl Tool {
    /// The tool's binary in the cache folder, built first if this version is not there.
    fn installed(&self, workspace: &Workspace) -> Result<PathBuf> {
        let folder = workspace.folder("tools")?.join(format!("{}-{}", self.name, self.version));
        let binary = folder.join("bin").join(self.name);
        if self.is(&binary) {
            return Ok(binary);
        }
        say(&format!("building {} {} once into {} (some minutes)", self.name, self.version, folder.display()));
        let mut install = workspace.cargo();
        install.args(["install", "--locked", "--quiet", "--force", "--version", self.version, "--root"]);
        install.arg(&folder).arg(self.name).env("CARGO_TARGET_DIR", workspace.folder("tools/build")?);
        run_command(&mut install).with_context(|| format!("{} {} cannot be built", self.name, self.version))?;
        if !self.is(&binary) {
            bail!("{} is not {} {} though it was just built", binary.display(), self.name, self.version);
        }
        Ok(binary)
    }

    /// Whether a file is this tool in this version.
    fn is(&self, binary: &std::path::Path) -> bool {
        binary.is_file()
            && output(Command::new(binary).arg("--version"))
                .is_ok_and(|text| text.split_whitespace().any(|word| word == self.version))
    }
}
