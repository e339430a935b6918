//! Files of Debian packages, taken from the packages themselves: nothing need be installed, and what somebody changed on
//! this machine does not matter.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command::{is_root, output, say, which};

/// Links that are followed before a path counts as a circle.
const MOST_LINKS: usize = 16;

/// A package as apt would fetch it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Package {
    /// Its name.
    pub(super) name: String,
    /// Its version.
    pub(super) version: String,
    file: String,
}

/// What a package puts at a path.
#[derive(Clone, Debug)]
enum Node {
    File { mode: u32, content: Vec<u8> },
    Link(String),
}

/// A file of a package.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    /// Permissions.
    pub(super) mode: u32,
    /// Content.
    pub(super) content: &'a [u8],
}

/// All files of several packages, by path without leading slash.
#[derive(Debug, Default)]
pub(super) struct Tree(BTreeMap<String, Node>);

/// The newest versions of these packages that apt knows, in this order.
///
/// # Errors
/// When this is not Debian, or apt does not know one of them.
pub(super) fn packages(names: &[&str]) -> Result<Vec<Package>> {
    if which("apt-get").is_none() || which("dpkg-deb").is_none() {
        bail!("the image of the database is made of Debian's packages, and this machine has no apt-get or no dpkg-deb");
    }
    let known = output(download(names).arg("--print-uris")).with_context(|| {
        "apt does not know all packages of the database's image: Debian 12 is needed, and fresh lists (`apt-get update`)"
    })?;
    let all: Vec<Package> = known.lines().filter_map(package).collect();
    let find = |name: &&str| {
        let found = all.iter().find(|package| package.name == **name).cloned();
        found.with_context(|| format!("apt does not say where the package {name} is"))
    };
    names.iter().map(find).collect()
}

/// A package from a line such as `'http://…' NAME_VERSION_ARCHITECTURE.deb SIZE HASH`; a colon of the version is `%3a`.
fn package(line: &str) -> Option<Package> {
    let file = line.split_whitespace().nth(1)?;
    let mut parts = file.strip_suffix(".deb")?.split('_');
    let (name, version) = (parts.next()?.to_owned(), parts.next()?.replace("%3a", ":"));
    Some(Package { name, version, file: file.to_owned() })
}

fn download(names: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(["-q", "-o", "Dpkg::Use-Pty=0"]);
    if is_root() {
        // Otherwise it complains that its own user may not write here.
        command.args(["-o", "APT::Sandbox::User=root"]);
    }
    command.arg("download").args(names);
    command
}

/// Reads all files of packages, which are fetched into `folder` unless they are there.
///
/// # Errors
/// When one cannot be fetched or read.
pub(super) fn read(packages: &[Package], folder: &Path) -> Result<Tree> {
    fetch(packages, folder)?;
    let mut tree = Tree::default();
    for package in packages {
        let file = folder.join(&package.file);
        tree.add(&file).with_context(|| format!("{} cannot be read; delete it to fetch it anew", file.display()))?;
    }
    Ok(tree)
}

/// Fetched beside and moved into place: what is there is whole.
fn fetch(packages: &[Package], folder: &Path) -> Result<()> {
    let missing: Vec<&Package> = packages.iter().filter(|package| !folder.join(&package.file).exists()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    say(&format!("fetching {} packages of Debian for the database's image", missing.len()));
    let beside = folder.join(format!("new-{}", std::process::id()));
    fs::create_dir_all(&beside).with_context(|| format!("cannot make {}", beside.display()))?;
    let exact: Vec<String> = missing.iter().map(|package| format!("{}={}", package.name, package.version)).collect();
    let exact: Vec<&str> = exact.iter().map(String::as_str).collect();
    let fetched = output(download(&exact).current_dir(&beside)).with_context(
        || "packages of the database's image could not be fetched; if they are not found, `apt-get update` helps",
    );
    let moved = fetched.and_then(|_| {
        missing.iter().try_for_each(|package| Ok(fs::rename(beside.join(&package.file), folder.join(&package.file))?))
    });
    let _ = fs::remove_dir_all(&beside);
    moved
}

impl Tree {
    /// Adds the files of a package's archive.
    fn add(&mut self, file: &Path) -> Result<()> {
        let mut command = Command::new("dpkg-deb");
        let mut child = command.arg("--fsys-tarfile").arg(file).stdout(Stdio::piped()).spawn()?;
        let archive = child.stdout.take().context("dpkg-deb has no output")?;
        let mut archive = tar::Archive::new(archive);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = plain(&entry.path()?);
            let kind = entry.header().entry_type();
            let target = entry.link_name()?.map(|target| target.display().to_string());
            let node = match target {
                Some(target) if kind.is_symlink() => Node::Link(target),
                Some(target) if kind.is_hard_link() => Node::Link(format!("/{}", plain(Path::new(&target)))),
                _ if kind.is_file() => {
                    let mut content = Vec::new();
                    entry.read_to_end(&mut content)?;
                    Node::File { mode: entry.header().mode()? & 0o755, content }
                }
                _ => continue,
            };
            self.0.insert(path, node);
        }
        let ended = child.wait()?;
        if !ended.success() {
            bail!("dpkg-deb: {ended}");
        }
        Ok(())
    }

    /// The file at a path, with links followed.
    pub(super) fn find(&self, path: &str) -> Option<Found<'_>> {
        let mut path = PathBuf::from(plain(Path::new(path)));
        for _ in 0..MOST_LINKS {
            match self.0.get(path.to_str()?)? {
                Node::File { mode, content } => return Some(Found { mode: *mode, content }),
                Node::Link(target) => path = plain(&path.parent()?.join(target)).into(),
            }
        }
        None
    }

    /// Paths that begin with `folder`.
    pub(super) fn below(&self, folder: &str) -> impl Iterator<Item = &str> {
        let paths = self.0.range(folder.to_owned()..).map(|(path, _)| path.as_str());
        paths.take_while(move |path| path.starts_with(folder))
    }
}

/// A path without leading slash, `.` and `..`.
fn plain(path: &Path) -> String {
    use std::path::Component;
    let mut parts: Vec<String> = Vec::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(parts.pop()),
            Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            Component::RootDir => parts.clear(),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_read_from_what_apt_says() {
        let line = "'http://mirror/pool/l/libx_1.0.deb' libx_1%3a1.0-2+deb12u1_amd64.deb 17091392 SHA256:00";
        let wanted = Package {
            name: "libx".to_owned(),
            version: "1:1.0-2+deb12u1".to_owned(),
            file: "libx_1%3a1.0-2+deb12u1_amd64.deb".to_owned(),
        };
        assert_eq!(package(line), Some(wanted));
        assert_eq!(package("Reading package lists..."), None);
    }

    #[test]
    fn links_are_followed_and_circles_left() {
        let file = |content: &str| Node::File { mode: 0o644, content: content.as_bytes().to_vec() };
        let link = |target: &str| Node::Link(target.to_owned());
        let tree = Tree(BTreeMap::from(
            [
                ("usr/lib/a.so.1.2", file("a")),
                ("usr/lib/a.so.1", link("a.so.1.2")),
                ("lib64/loader", link("/usr/lib/a.so.1")),
                ("usr/share/b", link("../lib/a.so.1")),
                ("circle", link("circle")),
            ]
            .map(|(path, node)| (path.to_owned(), node)),
        ));
        for path in ["usr/lib/a.so.1", "/lib64/loader", "usr/share/b", "./usr/lib/../lib/a.so.1.2"] {
            assert_eq!(tree.find(path).unwrap().content, b"a", "{path}");
        }
        assert!(tree.find("circle").is_none() && tree.find("usr/lib").is_none());
        assert_eq!(tree.below("usr/lib/").count(), 2);
    }
}
