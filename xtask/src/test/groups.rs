//! The groups of tests: what each is for, what it needs, how it is run.

use std::path::Path;

use commpool_harness::directory::Kind as Directory;

use super::programs::{Kind, Program};

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
    /// The packages of Samba and OpenLDAP.
    Directories,
    /// The programs of a Kubernetes; the tests find them by `COMMPOOL_KUBE_BIN`.
    Kubernetes,
    /// A running cluster with the product's images and the operator on it; the tests find it by `COMMPOOL_CLUSTER`.
    Cluster,
}

/// Which test programs are run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Run {
    /// The unit tests of all packages but that of the whole-system tests.
    Units,
    /// The unit tests of the package in a folder.
    UnitsOf(&'static str),
    /// The examples in the documentation.
    Documentation,
    /// The integration tests of the package in a folder whose names begin with a prefix; empty: all of them.
    Files(&'static str, &'static str),
}

/// Folder of the whole-system tests.
const WHOLE_SYSTEM: &str = "tests";

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
/// The Back-End Database.
const POSTGRESQL: &str = commpool_harness::postgres::PACKAGE;
/// SIPp.
const SIPP: &str = "sip-tester";

/// An Active Directory.
const SAMBA: Part = Part::Package("Samba (Active Directory)", Directory::Samba.package());
/// Another directory.
const OPENLDAP: Part = Part::Package("OpenLDAP", Directory::OpenLdap.package());

/// All groups, in the order they start: of those that run side by side the longest first.
pub(crate) const GROUPS: &[Group] = &[
    Group {
        name: "wire",
        about: "the running server over real sockets: flows, limits, the matrix of bad credentials, torture messages",
        needs: &[],
        runs: &[Run::UnitsOf(WHOLE_SYSTEM), Run::Files(WHOLE_SYSTEM, "wire"), Run::Files(WHOLE_SYSTEM, "admin")],
        parts: &[Part::Sqlite],
        minutes: 3,
        alone: false,
        waits: true,
    },
    Group {
        name: "operator",
        about: "operator, CRD and charts against a real API server",
        needs: &[Need::Kubernetes],
        runs: &[Run::Files("operator", "")],
        parts: &[Part::ApiServer],
        minutes: 2,
        alone: false,
        waits: false,
    },
    Group {
        name: "unit",
        about: "pure cores, property and table tests, documentation examples",
        needs: &[],
        runs: &[
            Run::Units,
            Run::Documentation,
            Run::Files("crates/model", ""),
            Run::Files("crates/sip", ""),
            Run::Files("crates/rsip-compat", ""),
            Run::Files("replicator", ""),
            Run::Files("server", ""),
        ],
        parts: &[],
        minutes: 2,
        alone: false,
        waits: false,
    },
    Group {
        name: "contract",
        about: "every store operation on every backend; faults of the database",
        needs: &[Need::Package(POSTGRESQL)],
        runs: &[Run::Files("crates/store", "")],
        parts: &[Part::Sqlite, Part::Package("PostgreSQL", POSTGRESQL)],
        minutes: 2,
        alone: true,
        waits: false,
    },
    Group {
        name: "sim",
        about: "five hundred worlds of front ends, clients and faults, each from its seed",
        needs: &[],
        runs: &[Run::Files("tests/sim", "")],
        parts: &[],
        minutes: 3,
        alone: false,
        waits: false,
    },
    Group {
        name: "platform",
        about: "the tests' own ground: namespaces, images, a registry, a PostgreSQL, directories",
        needs: &[
            Need::Root,
            Need::Package(POSTGRESQL),
            Need::Package("iproute2"),
            Need::Package("python3"),
            Need::Package("skopeo"),
            Need::Package("docker-registry"),
            Need::Directories,
        ],
        runs: &[Run::Files("crates/harness", "")],
        parts: &[
            Part::Package("Docker registry", "docker-registry"),
            Part::Package("skopeo", "skopeo"),
            SAMBA,
            OPENLDAP,
        ],
        minutes: 1,
        alone: false,
        waits: false,
    },
    Group {
        name: "clients",
        about: "Linphone and SIPp against the running server over TLS, UDP and TCP",
        needs: &[Need::Package(LINPHONE), Need::Package(LINPHONE_DATA), Need::Package(SIPP), Need::Package("python3")],
        runs: &[Run::Files(WHOLE_SYSTEM, "clients")],
        parts: &[Part::Package("Linphone", LINPHONE), Part::Package("SIPp", SIPP), Part::Sqlite],
        minutes: 4,
        alone: true,
        waits: true,
    },
    Group {
        name: "pool",
        about: "three front ends and a PostgreSQL: flows across front ends, faults, rollouts, Linphones on different ones",
        needs: &[
            Need::Package(POSTGRESQL),
            Need::Package(LINPHONE),
            Need::Package(LINPHONE_DATA),
            Need::Package("python3"),
            Need::Package("openssl"),
        ],
        runs: &[Run::Files(WHOLE_SYSTEM, "pool")],
        parts: &[Part::Package("PostgreSQL", POSTGRESQL), Part::Package("Linphone", LINPHONE)],
        minutes: 4,
        alone: true,
        waits: false,
    },
    Group {
        name: "directory",
        about: "users from an Active Directory and an OpenLDAP into PostgreSQL and SQLite; both sides fail at any moment",
        needs: &[Need::Root, Need::Directories, Need::Package(POSTGRESQL)],
        runs: &[Run::Files(WHOLE_SYSTEM, "directory")],
        parts: &[SAMBA, OPENLDAP, Part::Package("PostgreSQL", POSTGRESQL), Part::Sqlite],
        minutes: 3,
        alone: true,
        waits: false,
    },
    Group {
        name: "cluster",
        about: "kubectl apply to Linphones that talk through the VIP; parts of the pool come and go under load; repair",
        needs: &[
            Need::Root,
            Need::Kubernetes,
            Need::Cluster,
            Need::Directories,
            Need::Package(LINPHONE),
            Need::Package(LINPHONE_DATA),
            Need::Package("python3"),
            Need::Package("skopeo"),
            Need::Package("docker-registry"),
        ],
        // The verbs install the operator anew: not while others test it.
        runs: &[Run::Files(WHOLE_SYSTEM, "cluster"), Run::Files(WHOLE_SYSTEM, "verbs")],
        parts: &[Part::Kubernetes, Part::Package("Linphone", LINPHONE), Part::Sqlite],
        minutes: 9,
        alone: true,
        waits: false,
    },
];

/// The group of a name.
pub(crate) fn named(name: &str) -> Option<&'static Group> {
    GROUPS.iter().find(|group| group.name == name)
}

impl Run {
    /// Whether a test program is among those to be run.
    pub(super) fn chooses(&self, program: &Program) -> bool {
        match self {
            Self::Units => program.kind == Kind::Unit && program.folder != Path::new(WHOLE_SYSTEM),
            Self::UnitsOf(folder) => program.kind == Kind::Unit && program.folder == Path::new(folder),
            Self::Documentation => false,
            Self::Files(folder, prefix) => {
                let here = program.kind == Kind::Integration && program.folder == Path::new(folder);
                here && program.name.starts_with(prefix)
            }
        }
    }
}

/// How many groups run a test program.
pub(super) fn groups_of(program: &Program) -> usize {
    GROUPS.iter().filter(|group| group.runs.iter().any(|run| run.chooses(program))).count()
}
