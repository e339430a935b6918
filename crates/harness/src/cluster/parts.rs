//! The programs of the cluster: built once from Go modules into the cache folder, and built anew when their recipe
//! changes.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::command::{TAIL, output, run, say, tail, which};
use crate::{Workspace, wait};

/// Version of Kubernetes.
pub const KUBERNETES: &str = "1.36.3";
/// Version of etcd.
pub const ETCD: &str = "3.7.3";
/// Version of CoreDNS.
pub const COREDNS: &str = "1.15.0";
/// Version of containerd.
pub const CONTAINERD: &str = "2.4.2";
/// Version of runc.
pub const RUNC: &str = "1.5.2";
/// Version of helm.
pub const HELM: &str = "4.3.1";

/// Debian packages that the cluster needs to be built and to run.
pub const PACKAGES: &[&str] = &[
    "conntrack",
    "containernetworking-plugins",
    "gcc",
    "iproute2",
    "libc6-dev",
    "libseccomp-dev",
    "mount",
    "nftables",
    "openssl",
    "pkg-config",
    "util-linux",
];

/// Names by which the one program of Kubernetes is called.
const KUBERNETES_NAMES: &[&str] =
    &["kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet"];

/// Go release that the modules ask for.
const GO: (u32, u32) = (1, 26);

/// How a program comes to be.
struct Part {
    name: &'static str,
    version: &'static str,
    from: Source,
    /// Minutes on two quiet cores, shown before the build.
    minutes: f32,
}

/// Where a program's code is.
enum Source {
    /// A folder of the checkout with `main.go`, `go.mod` and `go.sum`; the linker's extra flags.
    Folder(&'static str, String),
    /// A command of a published module, by its path; build tags, and whether C is linked in.
    Module { path: &'static str, tags: &'static str, c: bool },
}

/// All programs, the longest first.
fn parts() -> [Part; 8] {
    let containerd = |name, path, minutes| Part {
        name,
        version: CONTAINERD,
        from: Source::Module { path, tags: "no_btrfs no_zfs no_devmapper", c: false },
        minutes,
    };
    let folder = |name, version, minutes, flags| Part { name, version, from: Source::Folder(name, flags), minutes };
    [
        folder("kube", KUBERNETES, 4.5, kubernetes_version_flags()),
        Part {
            name: "helm",
            version: HELM,
            from: Source::Module { path: "helm.sh/helm/v4/cmd/helm", tags: "", c: false },
            minutes: 1.5,
        },
        folder("coredns", COREDNS, 1.2, String::new()),
        folder("etcd", ETCD, 0.3, String::new()),
        containerd("containerd", "github.com/containerd/containerd/v2/cmd/containerd", 0.7),
        containerd("containerd-shim-runc-v2", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", 0.1),
        containerd("ctr", "github.com/containerd/containerd/v2/cmd/ctr", 0.1),
        Part {
            name: "runc",
            version: RUNC,
            from: Source::Module { path: "github.com/opencontainers/runc", tags: "seccomp", c: true },
            minutes: 0.2,
        },
    ]
}

/// Linker flags without which the API server and kubectl tell clients that they are version 0.0.0.
fn kubernetes_version_flags() -> String {
    let numbers: Vec<&str> = KUBERNETES.split('.').collect();
    let named =
        [("gitVersion", format!("v{KUBERNETES}")), ("gitMajor", numbers[0].into()), ("gitMinor", numbers[1].into())];
    named.map(|(name, value)| format!("-X k8s.io/component-base/version.{name}={value}")).join(" ")
}

/// The folder of the cluster's programs, and what builds them.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Folder with one entry per program.
    pub bin: PathBuf,
    folder: PathBuf,
    sources: PathBuf,
}

/// How eagerly a build takes the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// As everything else.
    Normal,
    /// Only what others leave.
    Low,
}

impl Parts {
    /// The parts in the cache folder.
    #[must_use]
    pub fn of(workspace: &Workspace) -> Self {
        Self::in_folder(workspace, &workspace.cache().join("kubernetes"))
    }

    /// The parts in another folder.
    #[must_use]
    pub fn in_folder(workspace: &Workspace, folder: &Path) -> Self {
        Self { bin: folder.join("bin"), folder: folder.to_owned(), sources: workspace.root().join("xtask/cluster") }
    }

    /// A program of the cluster, whether it is built or not.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// Names of the programs that are not built, or by another recipe than today's.
    ///
    /// # Errors
    /// When the recipes in the checkout cannot be read.
    pub fn missing(&self) -> Result<Vec<&'static str>> {
        let mut missing = Vec::new();
        for part in parts() {
            if !self.is_built(&part)? {
                missing.push(part.name);
            }
        }
        Ok(missing)
    }

    /// Builds what is missing; another process that does the same is waited for.
    ///
    /// # Errors
    /// Without Go or a C compiler, or when a build fails; the message names the log.
    pub fn build(&self, priority: Priority) -> Result<()> {
        fs::create_dir_all(&self.bin).with_context(|| format!("cannot make {}", self.bin.display()))?;
        let lock = File::create(self.folder.join("lock"))?;
        lock.lock().context("cannot lock the folder of the cluster's parts")?;
        let mut missing = Vec::new();
        for part in parts() {
            if !self.is_built(&part)? {
                missing.push(part);
            }
        }
        if !missing.is_empty() {
            self.build_all(&missing, priority)?;
        }
        self.link_names()
    }

    /// Removes the programs and everything kept for building them.
    ///
    /// # Errors
    /// When files cannot be removed.
    pub fn purge(&self) -> Result<()> {
        self.drop_caches()?;
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.folder.display()))
            }
            _ => Ok(()),
        }
    }

    /// Builds these parts and lets the compiler's caches go.
    fn build_all(&self, missing: &[Part], priority: Priority) -> Result<()> {
        go_is_new_enough()?;
        let minutes: f32 = missing.iter().map(|part| part.minutes).sum();
        say(&format!(
            "building {} Kubernetes parts once into {}: about {minutes:.0} minutes on two quiet cores, \
             up to 9 GB on the way, 0.4 GB kept",
            missing.len(),
            self.bin.display()
        ));
        for (index, part) in missing.iter().enumerate() {
            say(&format!("[{}/{}] {} {}", index + 1, missing.len(), part.name, part.version));
            let start = Instant::now();
            self.build_one(part, priority)?;
            let took = start.elapsed().as_secs_f64();
            say(&format!("[{}/{}] {}: {took:.0} s", index + 1, missing.len(), part.name));
        }
        self.drop_caches()
    }

    /// Builds one part; it takes its place, with a stamp of its recipe, only when it is whole.
    fn build_one(&self, part: &Part, priority: Priority) -> Result<()> {
        let work = self.folder.join("work");
        fs::create_dir_all(&work)?;
        let log = self.folder.join(format!("{}.log", part.name));
        let mut go = self.go(priority);
        match &part.from {
            Source::Folder(folder, flags) => {
                go.env("CGO_ENABLED", "0").args(["build", "-C"]).arg(self.sources.join(folder));
                go.args(["-mod=readonly", "-trimpath", "-ldflags"]).arg(format!("-s -w {flags}"));
                go.arg("-o").arg(work.join(part.name)).arg(".");
            }
            Source::Module { path, tags, c } => {
                go.env("CGO_ENABLED", if *c { "1" } else { "0" }).env("GOBIN", &work).current_dir(&work);
                go.args(["install", "-trimpath", "-ldflags", "-s -w", "-tags", tags]);
                go.arg(format!("{path}@v{}", part.version));
            }
        }
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let go = go.stdout(file.try_clone()?).stderr(file);
        let built = wait::with_signs_of_life(part.name, || run(go));
        built.with_context(|| {
            let said = fs::read_to_string(&log).unwrap_or_default();
            format!("{} {} does not build ({}):\n{}", part.name, part.version, log.display(), tail(&said, TAIL))
        })?;
        fs::rename(work.join(part.name), self.program(part.name))?;
        fs::write(self.stamp(part), self.recipe(part)?)?;
        Ok(())
    }

    /// Go with caches of its own, unless the caller's environment names some.
    fn go(&self, priority: Priority) -> Command {
        let mut go = Command::new("nice");
        go.args(["-n", if priority == Priority::Low { "19" } else { "0" }, "go"]);
        // Module files are read-only by default, and a folder of them cannot be removed.
        go.env("GOFLAGS", "-modcacherw -buildvcs=false").env("GOWORK", "off");
        for (variable, folder) in self.caches() {
            if std::env::var_os(variable).is_none() {
                go.env(variable, folder);
            }
        }
        go
    }

    /// Environment variables of Go's caches and our folders for them.
    fn caches(&self) -> [(&'static str, PathBuf); 2] {
        [("GOCACHE", self.folder.join("go-build")), ("GOMODCACHE", self.folder.join("go-modules"))]
    }

    /// Removes our own caches of Go: only needed for building, and twenty times as large as the programs.
    fn drop_caches(&self) -> Result<()> {
        for (_, folder) in self.caches() {
            if folder.is_dir() {
                fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
            }
        }
        Ok(())
    }

    /// Whether a part is there by today's recipe.
    fn is_built(&self, part: &Part) -> Result<bool> {
        let stamp = fs::read_to_string(self.stamp(part)).unwrap_or_default();
        Ok(self.program(part.name).is_file() && stamp == self.recipe(part)?)
    }

    /// File that says by which recipe a part was built.
    fn stamp(&self, part: &Part) -> PathBuf {
        self.bin.join(format!(".{}.recipe", part.name))
    }

    /// Everything that decides what a part is: version, flags, and a digest of our sources.
    fn recipe(&self, part: &Part) -> Result<String> {
        Ok(match &part.from {
            Source::Module { path, tags, c } => format!("{path}@v{} tags={tags} c={c}\n", part.version),
            Source::Folder(folder, flags) => {
                let mut hash = Sha256::new();
                for name in ["main.go", "go.mod", "go.sum"] {
                    let path = self.sources.join(folder).join(name);
                    let octets = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                    hash.update((octets.len() as u64).to_be_bytes());
                    hash.update(octets);
                }
                let digest: String = hash.finalize().iter().map(|octet| format!("{octet:02x}")).collect();
                format!("{folder} {} {flags} sources={digest}\n", part.version)
            }
        })
    }

    /// Gives the one program of Kubernetes its names.
    fn link_names(&self) -> Result<()> {
        for name in KUBERNETES_NAMES {
            let link = self.program(name);
            if fs::read_link(&link).is_ok_and(|target| target == Path::new("kube")) {
                continue;
            }
            if link.symlink_metadata().is_ok() {
                fs::remove_file(&link)?;
            }
            symlink("kube", &link).with_context(|| format!("cannot make {}", link.display()))?;
        }
        Ok(())
    }
}

/// Checks that Go is there and new enough.
fn go_is_new_enough() -> Result<()> {
    let (major, minor) = GO;
    if which("go").is_none() {
        bail!("the cluster's parts are built with Go {major}.{minor} or later, and there is no `go` in PATH");
    }
    let version = output(Command::new("go").args(["env", "GOVERSION"]))?;
    let numbers: Vec<u32> =
        version.trim_start_matches("go").split(['.', '-', ' ']).map_while(|number| number.parse().ok()).collect();
    if numbers.len() < 2 || (numbers[0], numbers[1]) < GO {
        bail!("the cluster's parts are built with Go {major}.{minor} or later; this is {version}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modules_name_the_versions_told() {
        let sources = Parts::of(&Workspace::find().unwrap()).sources;
        let wanted = [
            ("kube", format!("k8s.io/kubernetes v{KUBERNETES}")),
            ("etcd", format!("go.etcd.io/etcd/server/v3 v{ETCD}")),
            ("coredns", format!("github.com/coredns/coredns v{COREDNS}")),
        ];
        for (folder, line) in wanted {
            let text = fs::read_to_string(sources.join(folder).join("go.mod")).unwrap();
            assert!(text.contains(&line), "{folder}/go.mod does not ask for {line}");
        }
    }

    #[test]
    fn a_part_counts_only_with_the_stamp_of_its_recipe() {
        let folder = tempfile::tempdir().unwrap();
        let parts = Parts::in_folder(&Workspace::find().unwrap(), folder.path());
        fs::create_dir_all(&parts.bin).unwrap();
        let etcd = self::parts().into_iter().find(|part| part.name == "etcd").unwrap();
        fs::write(parts.program("etcd"), "").unwrap();
        assert!(parts.missing().unwrap().contains(&"etcd"));
        fs::write(parts.stamp(&etcd), parts.recipe(&etcd).unwrap()).unwrap();
        assert!(!parts.missing().unwrap().contains(&"etcd"));
        fs::write(parts.stamp(&etcd), "etcd of another version").unwrap();
        assert!(parts.missing().unwrap().contains(&"etcd"));
    }
}
