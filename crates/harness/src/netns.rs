//! Network namespaces: a machine's own network for a cluster or a client, joined by virtual cables. Needs root.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{is_root, output, say};

/// Where `ip netns` keeps its namespaces.
const FOLDER: &str = "/run/netns";

/// A named network namespace.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    owned: bool,
}

impl Namespace {
    /// Makes a namespace with its loopback up. It is removed when the value is dropped, unless [`Namespace::keep`] is
    /// called.
    ///
    /// # Errors
    /// Without root, or when the name is taken.
    pub fn create(name: &str) -> Result<Self> {
        if !is_root() {
            bail!("network namespaces need root");
        }
        if Self::exists(name) {
            bail!("the network namespace {name} exists already; `ip netns del {name}` removes it");
        }
        output(Command::new("ip").args(["netns", "add", name]))?;
        let namespace = Self { name: name.to_owned(), owned: true };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// A namespace that is there already; dropping the value leaves it.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn attach(name: &str) -> Result<Self> {
        if !Self::exists(name) {
            bail!("there is no network namespace {name}");
        }
        Ok(Self { name: name.to_owned(), owned: false })
    }

    /// Whether there is a namespace of that name.
    #[must_use]
    pub fn exists(name: &str) -> bool {
        Path::new(FOLDER).join(name).exists()
    }

    /// Names of all namespaces that begin with `prefix`, in order.
    #[must_use]
    pub fn with_prefix(prefix: &str) -> Vec<String> {
        let entries = std::fs::read_dir(FOLDER).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| name.starts_with(prefix)).collect();
        names.sort();
        names
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.name)
    }

    /// Leaves the namespace when this value is dropped.
    pub fn keep(&mut self) {
        self.owned = false;
    }

    /// Removes the namespace; processes in it go on without a name for it.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn remove(mut self) -> Result<()> {
        self.owned = false;
        output(Command::new("ip").args(["netns", "del", &self.name])).map(drop)
    }

    /// Runs `ip` on the namespace.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        output(Command::new("ip").args(["-n", &self.name]).args(arguments))
    }

    /// A command that runs `program` in the namespace and sees the rest of the machine as it is.
    // `ip netns exec` would mount /sys anew, which hides the control groups.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// A command that runs `program` in the namespace with files of its own in place of the machine's: pairs of
    /// (file to show, where).
    #[must_use]
    pub fn command_with_files(&self, files: &[(PathBuf, &str)], program: &str) -> Command {
        const SCRIPT: &str =
            r#"while [ "$1" != -- ]; do mount --bind "$1" "$2" || exit 1; shift 2; done; shift; exec "$@""#;
        let mut command = self.command("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh"]);
        for (file, place) in files {
            command.arg(file).arg(place);
        }
        command.arg("--").arg(program);
        command
    }

    /// Lays a virtual cable between `device` here and `other_device` there, each with its address (`A.B.C.D/N`), up.
    ///
    /// # Errors
    /// When a device name is taken or longer than 15 characters, or an address is wrong.
    pub fn connect(&self, device: (&str, &str), other: &Self, other_device: (&str, &str)) -> Result<()> {
        let (near, near_address) = device;
        let (far, far_address) = other_device;
        let cable =
            ["link", "add", near, "netns", &self.name, "type", "veth", "peer", "name", far, "netns", &other.name];
        output(Command::new("ip").args(cable))
            .with_context(|| format!("no cable from {} to {}", self.name, other.name))?;
        for (namespace, device, address) in [(self, near, near_address), (other, far, far_address)] {
            namespace.ip(&["addr", "add", address, "dev", device])?;
            namespace.ip(&["link", "set", device, "up"])?;
        }
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.owned
            && let Err(error) = output(Command::new("ip").args(["netns", "del", &self.name]))
        {
            say(&format!("the network namespace {} is left behind: {error:#}", self.name));
        }
    }
}
