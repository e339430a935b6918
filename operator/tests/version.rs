//! The program tells which build it is.

use std::process::Command;

#[test]
fn the_version_names_its_commit() {
    let output = Command::new(env!("CARGO_BIN_EXE_commpool-operator")).arg("--version").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let commit = said.trim().strip_prefix(concat!("commpool-operator ", env!("CARGO_PKG_VERSION"), " ("));
    let commit = commit.and_then(|rest| rest.strip_suffix(')')).unwrap_or_else(|| panic!("{said}"));
    assert!(commit == "unknown" || commit.len() >= 7 && commit.chars().all(|c| c.is_ascii_hexdigit()), "{said}");
}
