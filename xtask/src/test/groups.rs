//! The groups of tests: what each is for, what it needs, how it is run.

use std::path::Path;

use anyhow::{Context, Result};

/// One group, run as a whole.
pub(crate) struct Group {
    /// Name for `--only`.
    pub(crate) name: &'static str,
    /// What it shows, in a few words.
    pub(crate) about: &'static str,
    /// What the machine must offer.
    pub(crate) needs: &'static [Need],
    /// What is run, in this order.
    pub(crate) runs: &'static [Run],
    /// Real parts it drives, for the list at the end.
    pub(crate) parts: &'static [Part],
    /// Minutes it takes on two cores when everything is built.
    pub(crate) minutes: u32,
    /// Whether it must have the machine to itself, because it measures or fills it.
    pub(crate) alone: bool,
    /// Whether its tests wait for clocks more than they compute, so that many run at once.
    pub(crate) waits: bool,
}

/// Something a group cannot run without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Root: namespaces, the cluster.
    Root,
    /// A Debian package.
    Package(&'static str),
    /// The programs of a Kubernetes; the tests find them by `COMMPOOL_KUBE_BIN`.
    Kubernetes,
    /// A running cluster with the product's images and the operator on it; the tests find it by `COMMPOOL_CLUSTER`.
    Cluster,
}

/// One `cargo test`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Run {
    /// With these arguments.
    Arguments(&'static [&'static str]),
    /// Of the integration tests in `FOLDER/tests` whose file names begin with a prefix.
    Files {
        /// Package the tests belong to.
        package: &'static str,
        /// Folder of the package.
        folder: &'static str,
        /// What the file names begin with; empty: all of them.
        prefix: &'static str,
    },
}

/// Something real that tests drive, no stand-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// A Debian package, shown as the name given.
    Package(&'static str, &'static str),
    /// The SQLite compiled into the server.
    Sqlite,
    /// API server and database of a Kubernetes.
    ApiServer,
    /// All of a Kubernetes.
    Kubernetes,
}

/// Linphone's engine.
const LINPHONE: &str = "liblinphone10";
/// Grammars and certificates that the engine aborts without; the package does not depend on them.
const LINPHONE_DATA: &str = "linphone-common";
/// SIPp.
const SIPP: &str = "sip-tester";

/// All groups, in the order they start.
pub(crate) const GROUPS: &[Group] = &[
    Group {
        name: "unit",
        about: "pure cores, property and table tests, documentation examples",
        needs: &[],
        runs: &[
            Run::Arguments(&["--workspace", "--exclude", "commpool-tests", "--lib", "--bins"]),
            Run::Arguments(&["--workspace", "--exclude", "commpool-tests", "--doc"]),
            Run::Files { package: "commpool-model", folder: "crates/model", prefix: "" },
            Run::Files { package: "commpool-sip", folder: "crates/sip", prefix: "" },
            Run::Files { package: "commpool-rsip-compat", folder: "crates/rsip-compat", prefix: "" },
            Run::Files { package: "commpool-server", folder: "server", prefix: "" },
        ],
        parts: &[],
        minutes: 2,
        alone: false,
        waits: false,
    },
    Group {
        name: "contract",
        about: "every store operation on every backend",
        needs: &[],
        runs: &[Run::Files { package: "commpool-store", folder: "crates/store", prefix: "" }],
        parts: &[Part::Sqlite],
        minutes: 2,
        alone: false,
        waits: false,
    },
    Group {
        name: "platform",
        about: "the tests' own ground: namespaces, images, a registry",
        needs: &[
            Need::Root,
            Need::Package("iproute2"),
            Need::Package("python3"),
            Need::Package("skopeo"),
            Need::Package("docker-registry"),
        ],
        runs: &[Run::Files { package: "commpool-harness", folder: "crates/harness", prefix: "" }],
        parts: &[Part::Package("Docker registry", "docker-registry"), Part::Package("skopeo", "skopeo")],
        minutes: 1,
        alone: false,
        waits: false,
    },
    Group {
        name: "operator",
        about: "operator, CRD and charts against a real API server",
        needs: &[Need::Kubernetes],
        runs: &[Run::Files { package: "commpool-operator", folder: "operator", prefix: "" }],
        parts: &[Part::ApiServer],
        minutes: 2,
        alone: false,
        waits: false,
    },
    Group {
        name: "wire",
        about: "the running server over real sockets: flows, limits, the matrix of bad credentials, torture messages",
        needs: &[],
        runs: &[
            Run::Arguments(&["-p", "commpool-tests", "--lib"]),
            Run::Files { package: "commpool-tests", folder: "tests", prefix: "wire" },
            Run::Files { package: "commpool-tests", folder: "tests", prefix: "admin" },
        ],
        parts: &[Part::Sqlite],
        minutes: 3,
        alone: false,
        waits: true,
    },
    Group {
        name: "clients",
        about: "Linphone and SIPp against the running server over TLS, UDP and TCP",
        needs: &[Need::Package(LINPHONE), Need::Package(LINPHONE_DATA), Need::Package(SIPP), Need::Package("python3")],
        runs: &[Run::Files { package: "commpool-tests", folder: "tests", prefix: "clients" }],
        parts: &[Part::Package("Linphone", LINPHONE), Part::Package("SIPp", SIPP), Part::Sqlite],
        minutes: 4,
        alone: true,
        waits: true,
    },
    Group {
        name: "cluster",
        about: "kubectl apply to two Linphones that talk through the VIP; repair, deletion, kept data",
        needs: &[
            Need::Root,
            Need::Kubernetes,
            Need::Cluster,
            Need::Package(LINPHONE),
            Need::Package(LINPHONE_DATA),
            Need::Package("python3"),
        ],
        runs: &[Run::Files { package: "commpool-tests", folder: "tests", prefix: "cluster" }],
        parts: &[Part::Kubernetes, Part::Package("Linphone", LINPHONE), Part::Sqlite],
        minutes: 8,
        alone: true,
        waits: false,
    },
];

/// The group of a name.
pub(crate) fn named(name: &str) -> Option<&'static Group> {
    GROUPS.iter().find(|group| group.name == name)
}

impl Run {
    /// Arguments of `cargo test`; none when there is no test of that kind.
    ///
    /// # Errors
    /// When the folder of the tests cannot be read.
    pub(crate) fn arguments(&self, root: &Path) -> Result<Option<Vec<String>>> {
        match self {
            Self::Arguments(arguments) => Ok(Some(arguments.iter().map(|word| (*word).to_owned()).collect())),
            Self::Files { package, folder, prefix } => {
                let mut names = integration_tests(&root.join(folder))?;
                names.retain(|name| name.starts_with(prefix));
                let tests = names.into_iter().flat_map(|name| ["--test".to_owned(), name]);
                let arguments: Vec<String> =
                    ["-p".to_owned(), (*package).to_owned()].into_iter().chain(tests).collect();
                Ok((arguments.len() > 2).then_some(arguments))
            }
        }
    }
}

/// Names of a package's integration tests as cargo finds them: `tests/NAME.rs` and `tests/NAME/main.rs`, in order.
fn integration_tests(package: &Path) -> Result<Vec<String>> {
    let folder = package.join("tests");
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let is_test = path.extension().is_some_and(|kind| kind == "rs") || path.join("main.rs").is_file();
        if let (true, Some(name)) = (is_test, path.file_stem().and_then(|name| name.to_str())) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use commpool_harness::Workspace;

    use super::*;

    #[test]
    fn every_integration_test_belongs_to_exactly_one_group() {
        let workspace = Workspace::find().unwrap();
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for folder in ["crates/model", "crates/sip", "crates/store", "crates/rsip-compat", "crates/harness"]
            .into_iter()
            .chain(["server", "operator", "tests", "xtask"])
        {
            for name in integration_tests(&workspace.root().join(folder)).unwrap() {
                seen.insert(format!("{folder}/{name}"), 0);
            }
        }
        for run in GROUPS.iter().flat_map(|group| group.runs) {
            if let Run::Files { folder, .. } = run {
                for name in run.arguments(workspace.root()).unwrap().unwrap_or_default().iter().skip(3).step_by(2) {
                    *seen.get_mut(&format!("{folder}/{name}")).unwrap() += 1;
                }
            }
        }
        let wrong: Vec<_> = seen.iter().filter(|(_, groups)| **groups != 1).collect();
        assert!(wrong.is_empty(), "in no group or in several: {wrong:?}");
    }

    #[test]
    fn no_test_file_means_no_run() {
        let run = Run::Files { package: "xtask", folder: "xtask", prefix: "no-such-test" };
        assert_eq!(run.arguments(Workspace::find().unwrap().root()).unwrap(), None);
    }
}
