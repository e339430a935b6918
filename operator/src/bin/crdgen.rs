//! Writes the files that are generated from the operator's types, or checks that they are up to date.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use commpool_operator::generate::files;

/// Writes or checks the generated files: CRD, its chart, roles, deploy/install.yaml and the tables of the documentation.
#[derive(Debug, Parser)]
struct Flags {
    /// Write the files
    #[arg(long, conflicts_with = "check", required_unless_present = "check")]
    write: bool,
    /// Change nothing; fail if a file is not as it would be written
    #[arg(long)]
    check: bool,
    /// Root of the repository
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/.."))]
    root: PathBuf,
}

fn main() -> ExitCode {
    match run(&Flags::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            tell("generated files are out of date: cargo run -p commpool-operator --bin crdgen -- --write");
            ExitCode::FAILURE
        }
        Err(error) => {
            tell(&format!("{error:#}"));
            ExitCode::from(2)
        }
    }
}

/// Whether all files are as they should be now.
fn run(flags: &Flags) -> anyhow::Result<bool> {
    let mut good = true;
    for file in files(&flags.root)? {
        let path = flags.root.join(&file.path);
        if std::fs::read_to_string(&path).is_ok_and(|present| present == file.content) {
            continue;
        }
        if flags.write {
            write(&path, &file.content).with_context(|| format!("cannot write {}", path.display()))?;
            tell(&format!("wrote {}", file.path.display()));
        } else {
            tell(&format!("{} differs", file.path.display()));
            good = false;
        }
    }
    Ok(good)
}

fn write(path: &Path, content: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, content)
}

#[expect(clippy::print_stderr, reason = "this is a tool for a terminal")]
fn tell(line: &str) {
    eprintln!("{line}");
}
