//! Building the images: static programs each in its own, and the database's.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::database::{self, DATABASE};
use super::elf::Elf;
use super::oci::{Image, ImageFile, write};
use crate::Workspace;
use crate::cluster::PAUSE_IMAGE;
use crate::command::{output, run};
use crate::workspace::VERSION;

/// Parts of the product that have an image: three programs, each named as its package, and the database.
pub const PARTS: &[&str] = &["commpool-server", "commpool-operator", "commpool-replicator", DATABASE];

/// Those of [`PARTS`] that are enough for Standard Edition; they come first there.
pub const PARTS_OF_STANDARD: &[&str] = &["commpool-server", "commpool-operator"];

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

/// Builds the images of these parts, and writes their archives to `images` below cargo's target folder. Gives the
/// archives in the order of the parts.
///
/// # Errors
/// When something does not build, or turns out to need a loader; for the database, when its packages cannot be had.
pub fn build(workspace: &Workspace, parts: &[&str]) -> Result<Vec<PathBuf>> {
    let programs: Vec<&str> = parts.iter().copied().filter(|part| *part != DATABASE).collect();
    if !programs.is_empty() {
        build_programs(workspace, &programs)?;
    }
    if parts.contains(&DATABASE) {
        database::pack(workspace)?;
    }
    Ok(parts.iter().map(|part| archive(workspace, part)).collect())
}

/// Builds programs static and released, and packs each.
fn build_programs(workspace: &Workspace, parts: &[&str]) -> Result<()> {
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
    parts.iter().try_for_each(|part| pack(workspace, &triple, part, &programs.join(part)))
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
fn pack(workspace: &Workspace, triple: &str, part: &str, program: &Path) -> Result<()> {
    let content = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    if !is_static(&content) {
        bail!("{} is not static: it asks for a loader, and the image has none", program.display());
    }
    let file = archive(workspace, part);
    fs::create_dir_all(file.parent().unwrap_or(Path::new("/")))?;
    write(&image(reference(part), triple, part, content, labels(workspace, part))?, &file)
}

/// An image of one static program.
fn image(
    reference: String,
    triple: &str,
    program: &str,
    content: Vec<u8>,
    labels: BTreeMap<String, String>,
) -> Result<Image> {
    Ok(Image {
        reference,
        architecture: architecture(triple)?.to_owned(),
        folders: Vec::new(),
        files: vec![ImageFile { path: program.to_owned(), mode: 0o755, content }],
        entrypoint: vec![format!("/{program}")],
        command: Vec::new(),
        environment: Vec::new(),
        stop_signal: None,
        user: USER.to_owned(),
        labels,
    })
}

/// Labels of every part's image.
pub(super) fn named(part: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("org.opencontainers.image.title".to_owned(), part.to_owned()),
        ("org.opencontainers.image.version".to_owned(), VERSION.to_owned()),
    ])
}

/// Labels of a program's image.
fn labels(workspace: &Workspace, part: &str) -> BTreeMap<String, String> {
    let mut labels = named(part);
    labels.insert("org.opencontainers.image.licenses".to_owned(), "Apache-2.0".to_owned());
    if let Some(commit) = git(workspace, &["rev-parse", "HEAD"]) {
        labels.insert("org.opencontainers.image.revision".to_owned(), commit);
    }
    labels
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
    let image = image(PAUSE_IMAGE.to_owned(), &triple, "pause", content, BTreeMap::new())?;
    // Whoever reads it meanwhile goes on with the file it opened.
    let new = folder.join("pause.new");
    write(&image, &new)?;
    fs::rename(&new, &archive)?;
    Ok(archive)
}

/// A processor's name in image manifests.
pub(super) fn architecture(triple: &str) -> Result<&'static str> {
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

/// Whether a program runs without a loader.
fn is_static(program: &[u8]) -> bool {
    Elf::read(program).is_some_and(Elf::is_static)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_standard_edition_come_first() {
        assert!(PARTS.starts_with(PARTS_OF_STANDARD));
    }

    #[test]
    fn the_pause_program_is_static() {
        let workspace = Workspace::find().unwrap();
        pause(&workspace).unwrap();
        assert!(is_static(&fs::read(workspace.cache().join("kubernetes/pause/pause")).unwrap()));
    }
}
