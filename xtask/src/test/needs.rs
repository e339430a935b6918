//! What groups need beside cargo: packages, the Kubernetes programs, the tests' own cluster.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::thread::{self, JoinHandle};

use anyhow::{Result, bail};
use commpool_harness::Workspace;
use commpool_harness::cluster::{self, Cluster, Parts, Priority};
use commpool_harness::command::{is_root, output, say, tail};
use commpool_harness::deploy::{OPERATOR_NAMESPACE, Target};
use commpool_harness::directory;
use commpool_harness::images::PARTS;
use commpool_harness::packages::{self, Consent};

use super::groups::{Group, Need};
use crate::images;
use crate::steps::Steps;

/// Name of the tests' own cluster.
const CLUSTER: &str = "test";

/// Keeps track of what is there, so that nothing is made twice, and gives back what was made.
pub(super) struct Needs<'a> {
    workspace: &'a Workspace,
    keep_cluster: bool,
    /// Why packages are missing, when they are.
    packages_refused: String,
    /// The build of the Kubernetes programs, running beside cargo.
    building: Option<JoinHandle<Result<()>>>,
    /// Outcome of that build, once it has ended: why there are none.
    kubernetes: Option<Result<(), String>>,
    /// Outcome of bringing up the tests' cluster, once asked for: why there is none.
    cluster: Option<Result<(), String>>,
    /// The tests' cluster.
    target: Option<Target>,
    /// Keeps other runs from the cluster: there is one of its name on a machine.
    lock: Option<File>,
}

impl<'a> Needs<'a> {
    pub(super) fn new(workspace: &'a Workspace, keep_cluster: bool) -> Self {
        let packages_refused = "they could not be installed".to_owned();
        Self {
            workspace,
            keep_cluster,
            packages_refused,
            building: None,
            kubernetes: None,
            cluster: None,
            target: None,
            lock: None,
        }
    }

    pub(super) fn workspace(&self) -> &Workspace {
        self.workspace
    }

    /// Installs the packages that the groups lack, if that is allowed; says what it installs.
    pub(super) fn install_packages(&mut self, groups: &[&Group], consent: Consent) {
        let needed: BTreeSet<&str> = groups.iter().flat_map(|group| packages_of(group)).collect();
        let missing = packages::missing(&needed.into_iter().collect::<Vec<_>>());
        if missing.is_empty() {
            return;
        }
        if !is_root() {
            self.packages_refused = format!("only root can install them: apt-get install {}", missing.join(" "));
            return;
        }
        let what = format!("Debian packages to be installed (no service of theirs is started): {}", missing.join(" "));
        if !consent.allows(&what) {
            self.packages_refused = "they were not to be installed".to_owned();
        } else if let Err(error) = packages::install(&missing) {
            self.packages_refused = format!("{error:#}");
        }
    }

    /// Starts the build of the Kubernetes programs beside everything else, if a group needs them.
    pub(super) fn start_building(&mut self, groups: &[&Group]) {
        let wanted = groups.iter().any(|group| group.needs.contains(&Need::Kubernetes));
        if wanted && packages::missing(cluster::PACKAGES).is_empty() {
            let parts = Parts::of(self.workspace);
            self.building = Some(thread::spawn(move || parts.build(Priority::Low)));
        }
    }

    /// What a group lacks, if anything. Makes what can be made: waits for the build, brings up the cluster.
    pub(super) fn lacking(&mut self, steps: &Steps, group: &Group) -> Option<String> {
        if group.needs.contains(&Need::Root) && !is_root() {
            return Some("it needs root (namespaces, the cluster)".to_owned());
        }
        let missing = packages::missing(&packages_of(group));
        if !missing.is_empty() {
            return Some(format!("it needs the packages {}: {}", missing.join(" "), self.packages_refused));
        }
        if group.needs.contains(&Need::Kubernetes)
            && let Err(reason) = self.kubernetes(steps)
        {
            return Some(reason);
        }
        if group.needs.contains(&Need::Cluster)
            && let Err(reason) = self.cluster(steps)
        {
            return Some(reason);
        }
        None
    }

    /// Environment by which a group's tests find what was made for them.
    pub(super) fn environment(&self, group: &Group) -> Vec<(&'static str, OsString)> {
        // Snapshots are compared, never written; and no test may take our cargo's answers for its own.
        let mut variables = vec![("INSTA_UPDATE", OsString::from("no"))];
        if group.needs.contains(&Need::Kubernetes) {
            variables.push(("COMMPOOL_KUBE_BIN", Parts::of(self.workspace).bin.into_os_string()));
        }
        if group.needs.contains(&Need::Cluster) {
            variables.push(("COMMPOOL_CLUSTER", CLUSTER.into()));
        }
        variables
    }

    /// What the cluster says about itself, for a group that failed.
    pub(super) fn diagnosis(&self) -> String {
        let Some(target) = &self.target else { return String::new() };
        let mut text = "-- state of the cluster\n".to_owned();
        let kubectl = |arguments: &[&str]| target.kubectl(arguments).and_then(|mut kubectl| output(&mut kubectl));
        let mut show = |arguments: &[&str]| {
            let said = kubectl(arguments).unwrap_or_else(|error| format!("{error:#}"));
            // Writing to a string does not fail.
            let _ = writeln!(text, "$ kubectl {}\n{}", arguments.join(" "), tail(&said, 60));
        };
        show(&["get", "pods,services,persistentvolumeclaims", "-A", "-o", "wide"]);
        show(&["describe", "communicationspools", "-A"]);
        show(&["get", "events", "-A", "--sort-by=.lastTimestamp"]);
        show(&["-n", OPERATOR_NAMESPACE, "logs", "deployment/commpool-operator"]);
        let front_ends = "app.kubernetes.io/component=front-end";
        let place = "-o=jsonpath={range .items[*]}{.metadata.namespace} {.metadata.name}{'\\n'}{end}";
        let pods = kubectl(&["get", "pods", "-A", "-l", front_ends, place]).unwrap_or_default();
        for (namespace, pod) in pods.lines().filter_map(|line| line.split_once(' ')) {
            show(&["-n", namespace, "logs", pod]);
        }
        text
    }

    /// Ends the cluster, if one was made, and waits for a build that nobody waited for.
    pub(super) fn finish(self) -> Result<()> {
        if let Some(Ok(Err(error))) = self.building.map(JoinHandle::join) {
            say(&format!("{error:#}"));
        }
        match self.target {
            Some(Target::Own(cluster)) if !self.keep_cluster => cluster.down(),
            _ => Ok(()),
        }
    }

    /// Waits for the Kubernetes programs.
    fn kubernetes(&mut self, steps: &Steps) -> Result<(), String> {
        if let Some(building) = self.building.take() {
            let mut outcome = Ok(());
            steps.run("Kubernetes parts", || {
                let built = building.join().unwrap_or_else(|_| bail!("the build panicked"));
                outcome = built.as_ref().copied().map_err(|error| format!("{error:#}"));
                built
            });
            self.kubernetes = Some(outcome);
        }
        self.kubernetes.clone().unwrap_or_else(|| Err("the Kubernetes programs were not asked for".to_owned()))
    }

    /// Brings up the tests' cluster with the operator on it; no pool is made.
    fn cluster(&mut self, steps: &Steps) -> Result<(), String> {
        if self.cluster.is_none() {
            let mut made = Err("it was not started".to_owned());
            self.lock = lock(self.workspace).map_err(|error| say(&format!("{error:#}"))).ok();
            steps.run("images", || images::build(self.workspace, PARTS).map(drop));
            steps.run("cluster up", || {
                let target = bring_up(self.workspace);
                made = target.as_ref().map(drop).map_err(|error| format!("{error:#}"));
                self.target = Some(target?);
                Ok(())
            });
            self.cluster = Some(made);
        }
        match &self.cluster {
            Some(Err(reason)) => Err(format!("there is no cluster: {reason}")),
            _ => Ok(()),
        }
    }
}

/// Waits until no other run uses the tests' cluster.
fn lock(workspace: &Workspace) -> Result<File> {
    let file = File::create(workspace.folder("clusters")?.join("tests.lock"))?;
    if file.try_lock().is_err() {
        say("another run of the tests uses the cluster; waiting for its end");
        file.lock()?;
    }
    Ok(file)
}

/// Starts a fresh cluster with images and operator.
fn bring_up(workspace: &Workspace) -> Result<Target> {
    let cluster = Cluster::new(workspace, CLUSTER)?;
    cluster.down()?;
    cluster.up()?;
    let target = Target::Own(cluster);
    let archives = images::archives(workspace);
    target.bring_images(&archives)?;
    target.install(workspace, "test")?;
    Ok(target)
}

/// The packages of a group, those of the cluster and of the directories among them.
fn packages_of(group: &Group) -> Vec<&'static str> {
    let named = group.needs.iter().filter_map(|need| match need {
        Need::Package(name) => Some(*name),
        _ => None,
    });
    let of_need = |need, packages: &'static [&'static str]| {
        group.needs.contains(&need).then_some(packages).into_iter().flatten().copied()
    };
    named
        .chain(of_need(Need::Kubernetes, cluster::PACKAGES))
        .chain(of_need(Need::Directories, directory::PACKAGES))
        .collect()
}
