//! The image of the Back-End Database: PostgreSQL from Debian's packages with the libraries that it asks for, a shell, and
//! little else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::build::{architecture, archive, named, reference, triple};
use super::debian::{self, Package, Tree};
use super::elf::Elf;
use super::oci::{Image, ImageFile, ImageFolder, write};
use crate::Workspace;

/// Name of the image's part.
pub const DATABASE: &str = "commpool-database";

/// User and group of the server. The data on a volume are theirs, so they never change.
const USER: u32 = 5_432;

/// Major version of PostgreSQL. The data on a volume are of this version: another one could not read them.
const MAJOR: &str = "15";

/// All packages that files are taken from.
const PACKAGES: &[&str] = &[
    "postgresql-15",
    "postgresql-client-15",
    "coreutils",
    "dash",
    "tzdata",
    "libacl1",
    "libattr1",
    "libaudit1",
    "libc-bin",
    "libc6",
    "libcap-ng0",
    "libcap2",
    "libcom-err2",
    "libffi8",
    "libgcc-s1",
    "libgcrypt20",
    "libgmp10",
    "libgnutls30",
    "libgpg-error0",
    "libgssapi-krb5-2",
    "libhogweed6",
    "libicu72",
    "libidn2-0",
    "libk5crypto3",
    "libkeyutils1",
    "libkrb5-3",
    "libkrb5support0",
    "libldap-2.5-0",
    "liblz4-1",
    "liblzma5",
    "libnettle8",
    "libp11-kit0",
    "libpam0g",
    "libpcre2-8-0",
    "libpq5",
    "libreadline8",
    "libsasl2-2",
    "libselinux1",
    "libssl3",
    "libstdc++6",
    "libsystemd0",
    "libtasn1-6",
    "libtinfo6",
    "libunistring2",
    "libuuid1",
    "libxml2",
    "libxslt1.1",
    "libzstd1",
    "zlib1g",
];

/// Programs of the server and its tools, for the image's own use and for an administrator's inside it.
const PROGRAMS: &[&str] = &[
    "initdb",
    "pg_basebackup",
    "pg_checksums",
    "pg_controldata",
    "pg_ctl",
    "pg_dump",
    "pg_dumpall",
    "pg_isready",
    "pg_resetwal",
    "pg_restore",
    "postgres",
    "psql",
];

/// Programs that the entrypoint and `initdb` call, as Debian names them and as the image does.
const TOOLS: &[(&str, &str)] = &[
    ("bin/dash", "bin/sh"),
    ("bin/mv", "bin/mv"),
    ("bin/rm", "bin/rm"),
    ("bin/sync", "bin/sync"),
    ("usr/bin/locale", "bin/locale"),
];

/// Texts and data: what begins with the first, without what begins with one of the others.
const DATA: &[(&str, &[&str])] = &[
    ("usr/share/postgresql/15/", &["usr/share/postgresql/15/man/", "usr/share/postgresql/15/contrib/"]),
    (
        "usr/share/zoneinfo/",
        &["usr/share/zoneinfo/posix/", "usr/share/zoneinfo/right/", "usr/share/zoneinfo/localtime"],
    ),
    ("usr/lib/locale/C.utf8/", &[]),
];

/// The entrypoint.
const SCRIPT: &str = include_str!("database.sh");
/// There is no pager in the image.
const PSQLRC: &str = "\\set QUIET on\n\\pset pager off\n\\unset QUIET\n";

/// Writes the archive of the database's image.
///
/// # Errors
/// When Debian's packages cannot be had, or lack something.
pub(super) fn pack(workspace: &Workspace) -> Result<PathBuf> {
    let triple = triple()?;
    let packages = debian::packages(PACKAGES)?;
    let file = archive(workspace, DATABASE);
    // Without the commit: the same packages make the same image, and a database is not restarted for nothing.
    let mut labels = named(DATABASE);
    labels.extend(packages.iter().filter(|package| package.name == PACKAGES[0]).map(version));
    let tree = debian::read(&packages, &workspace.folder("debian")?)?;
    let image = Image {
        reference: reference(DATABASE),
        architecture: architecture(&triple)?.to_owned(),
        folders: folders(),
        files: files(&tree, &triple)?,
        entrypoint: vec!["/bin/commpool-database".to_owned()],
        command: vec!["postgres".to_owned()],
        environment: vec![
            format!("PATH=/usr/lib/postgresql/{MAJOR}/bin:/usr/bin:/bin"),
            "LANG=C.UTF-8".to_owned(),
            format!("PG_MAJOR={MAJOR}"),
        ],
        // Fast: clients are sent away. The usual signal would wait for them to go.
        stop_signal: Some("SIGINT".to_owned()),
        user: format!("{USER}:{USER}"),
        labels,
    };
    fs::create_dir_all(file.parent().context("an archive lies in a folder")?)?;
    write(&image, &file)?;
    Ok(file)
}

fn version(package: &Package) -> (String, String) {
    ("dev.commpool.postgresql".to_owned(), package.version.clone())
}

/// Places for the server to write to, where no volume is put over them.
fn folders() -> Vec<ImageFolder> {
    let own = ["var/lib/postgresql", "var/lib/postgresql/data", "var/run/postgresql"];
    let own = own.map(|path| ImageFolder { path: path.to_owned(), mode: 0o700, owner: USER });
    own.into_iter().chain([ImageFolder { path: "tmp".to_owned(), mode: 0o1777, owner: 0 }]).collect()
}

/// All files of the image, by path.
fn files(tree: &Tree, triple: &str) -> Result<Vec<ImageFile>> {
    let mut picked = Picked { tree, files: BTreeMap::new(), open: Vec::new() };
    let (programs, modules) = (format!("usr/lib/postgresql/{MAJOR}/bin"), format!("usr/lib/postgresql/{MAJOR}/lib"));
    for program in PROGRAMS {
        let path = format!("{programs}/{program}");
        picked.take(&path, &path)?;
    }
    for (from, to) in TOOLS {
        picked.take(from, to)?;
    }
    // Compiling queries would need a compiler of a hundred megabytes; the pool's are too short for it to pay off.
    let is_module = |path: &&str| path.ends_with(".so") && !path.contains("llvmjit");
    for path in tree.below(&format!("{modules}/")).filter(is_module) {
        picked.take(path, path)?;
    }
    for (folder, but) in DATA {
        for path in tree.below(folder).filter(|path| !but.iter().any(|but| path.starts_with(but))) {
            picked.take(path, path)?;
        }
    }
    picked.take_libraries(&libraries(triple))?;
    for package in PACKAGES {
        let licence = format!("usr/share/doc/{package}/copyright");
        if tree.find(&licence).is_some() {
            picked.take(&licence, &licence)?;
        }
    }
    let text = |path: &str, mode: u32, text: &str| ImageFile { path: path.to_owned(), mode, content: text.into() };
    let own = [
        text("bin/commpool-database", 0o755, SCRIPT),
        text("etc/passwd", 0o644, &format!("postgres:x:{USER}:{USER}::/var/lib/postgresql:/bin/sh\n")),
        text("etc/group", 0o644, &format!("postgres:x:{USER}:\n")),
        text("etc/postgresql-common/psqlrc", 0o644, PSQLRC),
    ];
    Ok(picked.files.into_values().chain(own).collect())
}

/// Where the loader looks for libraries.
fn libraries(triple: &str) -> [String; 2] {
    let processor = triple.split('-').next().unwrap_or_default();
    [format!("usr/lib/{processor}-linux-gnu"), format!("lib/{processor}-linux-gnu")]
}

/// Files that were taken, and those whose libraries were not looked at yet.
struct Picked<'a> {
    tree: &'a Tree,
    files: BTreeMap<String, ImageFile>,
    open: Vec<&'a [u8]>,
}

impl Picked<'_> {
    /// Takes a file, to lie at `to` in the image.
    fn take(&mut self, from: &str, to: &str) -> Result<()> {
        let found = self.tree.find(from).with_context(|| format!("Debian's packages have no {from}"))?;
        self.open.push(found.content);
        let file = ImageFile { path: to.to_owned(), mode: found.mode, content: found.content.to_vec() };
        self.files.insert(to.to_owned(), file);
        Ok(())
    }

    /// Takes all libraries that what was taken asks for, and their own, and the loader.
    fn take_libraries(&mut self, folders: &[String]) -> Result<()> {
        let mut known = BTreeSet::new();
        while let Some(content) = self.open.pop() {
            let Some(elf) = Elf::read(content) else { continue };
            if let Some(loader) = elf.loader().filter(|loader| known.insert((*loader).to_owned())) {
                self.take(loader, loader.trim_start_matches('/'))?;
            }
            for name in elf.libraries().context("a program of Debian's packages is damaged")? {
                if known.insert(name.to_owned()) {
                    self.take_library(name, folders)?;
                }
            }
        }
        Ok(())
    }

    fn take_library(&mut self, name: &str, folders: &[String]) -> Result<()> {
        for folder in folders {
            let path = format!("{folder}/{name}");
            if self.tree.find(&path).is_some() {
                return self.take(&path, &path);
            }
        }
        bail!("none of the packages of the database's image has the library {name}")
    }
}
