//! Building the static programs and putting each into its image.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::oci::{Image, ImageFile, write};
use crate::Workspace;
use crate::cluster::PAUSE_IMAGE;
use crate::command::{output, run};
use crate::workspace::VERSION;

/// Programs that have an image, each named as its package.
pub const PARTS: &[&str] = &["commpool-server", "commpool-operator"];

/// User and group of the processes: an ordinary number without a name.
const USER: &str = "65532:65532";

/// Name of a part's image on this machine.
#[must_use]
pub fn reference(part: &str) -> String {
    format!("localhost/{part}:{VERSION}")
}

/// Where a part's archive is once built.
#[must_use]
pub fn archive(workspace: &Workspace, part: &str) -> PathBuf {
    workspace.target().join("images").join(format!("{part}-{VERSION}.oci.tar"))
}

/// Rust's name of this machine's platform.
///
/// # Errors
/// When rustc cannot be run.
pub fn triple() -> Result<String> {
    let text = output(Command::new("rustc").arg("-vV"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    line.map(str::to_owned).context("rustc does not name its host")
}

/// Builds these parts static and released, and writes their archives to `images` below cargo's target folder. Gives
/// the archives in the order of the parts.
///
/// # Errors
/// When something does not build, or turns out to need a loader.
pub fn build(workspace: &Workspace, parts: &[&str]) -> Result<Vec<PathBuf>> {
    let triple = triple()?;
    // A folder of its own: other flags in cargo's would make every change of verb build everything anew.
    let target = workspace.target().join("static");
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--locked", "--release", "--target", &triple]);
    for part in parts {
        cargo.args(["-p", part, "--bin", part]);
    }
    cargo.env("CARGO_TARGET_DIR", &target).env("CARGO_ENCODED_RUSTFLAGS", flags(workspace, &target).join("\x1f"));
    // For the dates that C sources put in; the time of the commit would build all of them anew with every commit.
    cargo.env("SOURCE_DATE_EPOCH", "0");
    run(&mut cargo)?;
    let programs = target.join(&triple).join("release");
    parts.iter().map(|part| pack(workspace, &triple, part, &programs.join(part))).collect()
}

/// Flags of the static build: one file without loader, and no path of this machine inside it.
fn flags(workspace: &Workspace, target: &Path) -> Vec<String> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cargo")));
    let remap = |path: &Path, name: &str| format!("--remap-path-prefix={}={name}", path.display());
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    flags.extend(home.map(|home| remap(&home, "/cargo")));
    flags.push(remap(workspace.root(), "/commpool"));
    flags.push(remap(target, "/target"));
    flags
}

/// Writes the archive of a part's program.
fn pack(workspace: &Workspace, triple: &str, part: &str, program: &Path) -> Result<PathBuf> {
    let content = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    if needs_loader(&content) {
        bail!("{} is not static: it asks for a loader, and the image has none", program.display());
    }
    let mut labels = BTreeMap::from([
        ("org.opencontainers.image.title".to_owned(), part.to_owned()),
        ("org.opencontainers.image.version".to_owned(), VERSION.to_owned()),
        ("org.opencontainers.image.licenses".to_owned(), "Apache-2.0".to_owned()),
    ]);
    if let Some(commit) = git(workspace, &["rev-parse", "HEAD"]) {
        labels.insert("org.opencontainers.image.revision".to_owned(), commit);
    }
    let image = Image {
        reference: reference(part),
        architecture: architecture(triple)?.to_owned(),
        files: vec![ImageFile { path: part.to_owned(), mode: 0o755, content }],
        entrypoint: vec![format!("/{part}")],
        user: USER.to_owned(),
        labels,
    };
    let file = archive(workspace, part);
    fs::create_dir_all(file.parent().unwrap_or(Path::new("/")))?;
    write(&image, &file)?;
    Ok(file)
}

/// The image that holds a pod's namespaces, built by the compiler alone in a second.
///
/// # Errors
/// When it does not build.
pub fn pause(workspace: &Workspace) -> Result<PathBuf> {
    let triple = triple()?;
    let folder = workspace.folder("kubernetes/pause")?;
    let (program, archive) = (folder.join("pause"), folder.join("pause.oci.tar"));
    // Clusters and tests may want it at the same time.
    let lock = fs::File::create(folder.join("lock"))?;
    lock.lock()?;
    let source = workspace.root().join("xtask/cluster/pause/main.rs");
    let mut rustc = Command::new("rustc");
    rustc.current_dir(workspace.root()).args(["--edition", "2024", "--crate-name", "pause", "--target", &triple]);
    rustc.args(["-Copt-level=s", "-Cpanic=abort", "-Cstrip=symbols", "-Ctarget-feature=+crt-static", "-o"]);
    run(rustc.arg(&program).arg(&source))?;
    let content = fs::read(&program)?;
    let image = Image {
        reference: PAUSE_IMAGE.to_owned(),
        architecture: architecture(&triple)?.to_owned(),
        files: vec![ImageFile { path: "pause".to_owned(), mode: 0o755, content }],
        entrypoint: vec!["/pause".to_owned()],
        user: USER.to_owned(),
        labels: BTreeMap::new(),
    };
    // Whoever reads it meanwhile goes on with the file it opened.
    let new = folder.join("pause.new");
    write(&image, &new)?;
    fs::rename(&new, &archive)?;
    Ok(archive)
}

/// A processor's name in image manifests.
fn architecture(triple: &str) -> Result<&'static str> {
    match triple.split('-').next() {
        Some("x86_64") => Ok("amd64"),
        Some("aarch64") => Ok("arm64"),
        _ => bail!("no images are made for {triple}; x86_64 and aarch64 are known"),
    }
}

/// What git says about the checkout; nothing when it is not one, or git is missing.
fn git(workspace: &Workspace, arguments: &[&str]) -> Option<String> {
    output(Command::new("git").arg("-C").arg(workspace.root()).args(arguments)).ok().filter(|text| !text.is_empty())
}

/// Whether a 64-bit little-endian ELF file has a program header of type `PT_INTERP`: it then needs a loader.
fn needs_loader(elf: &[u8]) -> bool {
    const INTERP: u32 = 3;
    let number = |at: usize, length: usize| -> Option<usize> {
        let octets = elf.get(at..at.checked_add(length)?)?;
        Some(octets.iter().rev().fold(0, |value, octet| value << 8 | usize::from(*octet)))
    };
    let headers = || -> Option<bool> {
        let (start, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        let kinds = (0..count).map(|index| number(start + index * size, 4));
        Some(kinds.into_iter().any(|kind| kind == Some(INTERP as usize)))
    };
    headers().unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_needs_a_loader_and_nonsense_counts_as_such() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(needs_loader(&own));
        assert!(needs_loader(b"\x7fELF"));
    }

    #[test]
    fn the_pause_program_is_static() {
        let workspace = Workspace::find().unwrap();
        pause(&workspace).unwrap();
        assert!(!needs_loader(&fs::read(workspace.cache().join("kubernetes/pause/pause")).unwrap()));
    }
}
