//! Names the commit that is built.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=COMMPOOL_COMMIT");
    let given = std::env::var("COMMPOOL_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(|| git(&["rev-parse", "--short=12", "HEAD"]));
    println!("cargo:rustc-env=COMMPOOL_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    let Some(folder) = git(&["rev-parse", "--absolute-git-dir"]) else { return };
    for file in [Some("HEAD".to_owned()), git(&["symbolic-ref", "-q", "HEAD"])].into_iter().flatten() {
        println!("cargo:rerun-if-changed={folder}/{file}");
    }
}

/// What git says, if there is one and it is content.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
