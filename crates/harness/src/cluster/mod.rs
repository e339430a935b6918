//! A real Kubernetes of one node on this machine, in namespaces of its own: nothing of it is seen outside them.

mod balancer;
mod client;
mod network;
mod node;
mod objects;
mod parts;
mod pki;
mod settings;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::command::{self, output, output_of, succeeds, which};
use crate::netns::Namespace;
use crate::{Workspace, images, wait};

pub use balancer::balance;
pub use client::Client;
pub use network::NODE;
use node::{Component, Holder, PATIENCE};
pub(crate) use settings::PAUSE_IMAGE;

pub use parts::{CONTAINERD, COREDNS, ETCD, HELM, KUBERNETES, PACKAGES, Parts, Priority, RUNC};

/// Name of the context in a cluster's kubeconfig.
pub const CONTEXT: &str = "commpool";

/// Longest name of a cluster: it goes into names of devices and folders.
const NAME_LENGTH: usize = 20;

/// Where control groups are.
const CGROUPS: &str = "/sys/fs/cgroup";

/// One cluster, running or not.
#[derive(Clone, Debug)]
pub struct Cluster {
    name: String,
    workspace: Workspace,
    parts: Parts,
    state: PathBuf,
}

impl Cluster {
    /// The cluster of a name: 1–20 characters of `a-z0-9-`.
    ///
    /// # Errors
    /// When the name is not of that form.
    pub fn new(workspace: &Workspace, name: &str) -> Result<Self> {
        let fits = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'-';
        if name.is_empty() || name.len() > NAME_LENGTH || !name.bytes().all(fits) {
            bail!("`{name}` cannot name a cluster: use 1 to {NAME_LENGTH} characters of a-z, 0-9 and -");
        }
        let state = workspace.cache().join("clusters").join(name);
        Ok(Self { name: name.to_owned(), workspace: workspace.clone(), parts: Parts::of(workspace), state })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The programs it is made of.
    #[must_use]
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// The kubeconfig of its administrator; the API server is reached from inside its network only.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.state.join("pki/admin.conf")
    }

    /// Folder of its programs' logs.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.state.join("log")
    }

    /// File in which may be noted what was loaded into the node; it goes with the cluster.
    #[must_use]
    pub fn loaded_file(&self) -> PathBuf {
        self.state.join("loaded.json")
    }

    /// All clusters of this cache folder that run.
    #[must_use]
    pub fn running(workspace: &Workspace) -> Vec<Self> {
        let folder = workspace.cache().join("clusters");
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let clusters = names.filter_map(|name| Self::new(workspace, &name).ok());
        clusters.filter(|cluster| Holder::find(&cluster.state).is_some()).collect()
    }

    /// Whether it runs and has been started whole.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.state.join("up").exists() && Holder::find(&self.state).is_some()
    }

    /// Name of its network namespace.
    #[must_use]
    pub fn namespace(&self) -> String {
        format!("commpool-{}", self.name)
    }

    /// A command that runs `program` in the cluster's network with kubectl, helm and `KUBECONFIG` at hand.
    ///
    /// # Errors
    /// When the cluster is not up.
    pub fn command(&self, program: &str) -> Result<Command> {
        let namespace = Namespace::attach(&self.namespace()).with_context(|| self.not_up())?;
        let mut command = namespace.command(program);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}:/usr/sbin:/sbin", self.parts.bin.display()));
        command.env("KUBECONFIG", self.kubeconfig());
        Ok(command)
    }

    /// A kubectl command with these arguments.
    ///
    /// # Errors
    /// When the cluster is not up.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.command("kubectl")?;
        command.args(arguments);
        Ok(command)
    }

    /// Starts the cluster, or nothing when it is up: the node is ready, names, volumes and load balancer work.
    ///
    /// # Errors
    /// Without root, when the machine lacks something, or when a part does not start; the message shows its last words.
    pub fn up(&self) -> Result<()> {
        let _lock = self.lock()?;
        if self.is_up() {
            return Ok(());
        }
        self.check_machine()?;
        self.parts.build(Priority::Normal)?;
        self.end()?;
        let started = self.start();
        if started.is_err() {
            // What failed is told; what is left of the attempt goes.
            let _ = self.end();
        }
        started
    }

    /// Ends the cluster with everything in it: programs, pods, volumes, clients' namespaces, state.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn down(&self) -> Result<()> {
        let _lock = self.lock()?;
        self.end()
    }

    /// Waits until no other process starts or ends this cluster, and keeps others from it.
    fn lock(&self) -> Result<fs::File> {
        let path = self.workspace.folder("clusters")?.join(format!("{}.lock", self.name));
        let file = fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(file)
    }

    /// Ends the cluster; the caller has the lock.
    fn end(&self) -> Result<()> {
        if let Some(holder) = Holder::find(&self.state) {
            holder.kill()?;
        }
        self.remove_cgroups()?;
        for name in Namespace::with_prefix(&format!("{}.", self.namespace())) {
            Namespace::attach(&name)?.remove()?;
        }
        if Namespace::exists(&self.namespace()) {
            Namespace::attach(&self.namespace())?.remove()?;
        }
        match fs::remove_dir_all(&self.state) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.state.display()))
            }
            _ => Ok(()),
        }
    }

    /// Loads OCI archives into the node.
    ///
    /// # Errors
    /// When the cluster is not up, or a file is no archive of images.
    pub fn load(&self, archives: &[PathBuf]) -> Result<()> {
        let holder = Holder::find(&self.state).with_context(|| self.not_up())?;
        for archive in archives {
            let archive = fs::canonicalize(archive).with_context(|| format!("no file {}", archive.display()))?;
            let mut import = holder.command(&self.parts.program("ctr"));
            import.args(["-n", "k8s.io", "images", "import"]).arg(&archive);
            output(&mut import).with_context(|| format!("{} cannot be loaded", archive.display()))?;
        }
        Ok(())
    }

    /// A client's own network, routed to the cluster; made when it is not there yet.
    ///
    /// # Errors
    /// When the cluster is not up, or has as many clients as it can.
    pub fn client(&self, name: &str) -> Result<Client> {
        Client::open(self, name)
    }

    /// Message for what needs a running cluster.
    fn not_up(&self) -> String {
        format!("the cluster {} is not up; `cargo xtask cluster up` starts it", self.name)
    }

    /// Checks what cannot be had by building.
    fn check_machine(&self) -> Result<()> {
        if !command::is_root() {
            bail!("a cluster needs root: it makes namespaces, mounts and network rules");
        }
        let programs = ["conntrack", "ip", "iptables", "mount", "nft", "nsenter", "openssl", "setsid", "unshare"];
        let mut missing: Vec<&str> = programs.into_iter().filter(|program| which(program).is_none()).collect();
        if !Path::new(settings::CNI_PLUGINS).join("ptp").is_file() {
            missing.push("container network plugins");
        }
        if !missing.is_empty() {
            bail!("missing: {}; the Debian packages for all: {}", missing.join(", "), PACKAGES.join(" "));
        }
        Ok(())
    }

    /// Starts everything, in an order in which nothing gives up because another part is not there yet.
    fn start(&self) -> Result<()> {
        fs::create_dir_all(&self.state).with_context(|| format!("cannot make {}", self.state.display()))?;
        settings::write(&self.state, &self.cgroup())?;
        pki::make(&self.state.join("pki"))?;
        self.make_cgroups()?;
        let mut network = self.make_network()?;
        let holder = Holder::start(&self.state, &network)?;
        network.keep();
        let start = |name, arguments: Vec<String>| {
            let mut program = holder.command(&self.parts.program(name));
            Component::start(&self.state, name, program.args(arguments))
        };
        let mut components = vec![
            start("etcd", self.etcd())?,
            start("containerd", vec!["--config".into(), self.path("containerd.toml")])?,
            start("kube-apiserver", self.api_server())?,
        ];
        let pause = images::pause(&self.workspace)?;
        self.until(&mut components, "containerd", || {
            Ok(succeeds(holder.command(&self.parts.program("ctr")).arg("version")))
        })?;
        self.load(&[pause])?;
        // The controller manager ends when the roles it needs are not there yet.
        self.until(&mut components, "the API server", || {
            Ok(succeeds(&mut self.kubectl(&["get", "--raw", "/readyz"])?))
        })?;
        components.push(start("kube-controller-manager", self.controller_manager())?);
        components.push(start("kube-scheduler", self.signs_in("scheduler"))?);
        components.push(start("kubelet", self.kubelet())?);
        components.push(start("kube-proxy", vec!["--config".into(), self.path("proxy.json")])?);
        output_of(&mut self.kubectl(&["apply", "-f", "-"])?, objects::list(&self.state)?.as_bytes())?;
        let may = ["auth", "can-i", "list", "endpointslices.discovery.k8s.io", "--as", "commpool:coredns"];
        self.until(&mut components, "the rights of CoreDNS", || Ok(succeeds(&mut self.kubectl(&may)?)))?;
        components.push(start("coredns", vec!["-conf".into(), self.path("Corefile")])?);
        let mut balancer = holder.command_beside(&self.workspace.binary("xtask")?);
        balancer.args(["cluster", "--name", &self.name, "balance"]);
        // It may be started from anywhere and finds the checkout by this.
        balancer.env("CARGO_MANIFEST_DIR", self.workspace.root());
        components.push(Component::start(&self.state, "balancer", &balancer)?);
        self.until(&mut components, "the node", || {
            let ready = "-o=jsonpath={.status.conditions[?(@.type=='Ready')].status}";
            Ok(output(&mut self.kubectl(&["get", "node", "node", ready])?).is_ok_and(|answer| answer == "True"))
        })?;
        // A pod made before its namespace has this account is refused.
        let account = ["get", "serviceaccount", "default"];
        self.until(&mut components, "the default account", || Ok(succeeds(&mut self.kubectl(&account)?)))?;
        fs::write(self.state.join("up"), "").context("cannot note that the cluster is up")
    }

    /// Waits for a condition while all programs run.
    fn until(&self, components: &mut [Component], what: &str, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
        let look = || {
            components.iter_mut().try_for_each(Component::check)?;
            Ok(ready()?.then_some(()))
        };
        let logs = self.logs();
        wait::until(what, PATIENCE, look).with_context(|| format!("logs are in {}", logs.display()))
    }

    /// The node's network: its address on a device of its own, the default route over it, and forwarding.
    fn make_network(&self) -> Result<Namespace> {
        let network = Namespace::create(&self.namespace())?;
        let device = network::NODE_DEVICE;
        network.ip(&["link", "add", device, "type", "bridge"])?;
        network.ip(&["addr", "add", network::NODE_NETWORK, "dev", device])?;
        network.ip(&["link", "set", device, "up"])?;
        network.ip(&["route", "add", "default", "dev", device])?;
        output(network.command("sysctl").args(["-q", "-w", "net.ipv4.ip_forward=1"]))?;
        Ok(network)
    }

    /// Name of the control group under which all pods are.
    fn cgroup(&self) -> String {
        self.namespace()
    }

    /// Folders of our control group: one per hierarchy in version 1, one in version 2.
    fn cgroup_folders(&self) -> Vec<PathBuf> {
        let root = Path::new(CGROUPS);
        if root.join("cgroup.controllers").exists() {
            return vec![root.join(self.cgroup())];
        }
        let entries = fs::read_dir(root).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).map(|path| path.join(self.cgroup())).collect()
    }

    /// Makes our control group; the kubelet refuses to start without.
    fn make_cgroups(&self) -> Result<()> {
        for folder in self.cgroup_folders() {
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make the control group {}", folder.display()))?;
        }
        Ok(())
    }

    /// Removes our control groups, which are empty once the node has ended; the kernel may need a moment to see that.
    fn remove_cgroups(&self) -> Result<()> {
        for folder in self.cgroup_folders() {
            let what = format!("the removal of {}", folder.display());
            wait::until(&what, Duration::from_secs(10), || {
                Ok((!folder.exists() || remove_tree_of_folders(&folder).is_ok()).then_some(()))
            })?;
        }
        Ok(())
    }

    /// A file of the state folder as an argument.
    fn path(&self, name: &str) -> String {
        self.state.join(name).display().to_string()
    }

    fn etcd(&self) -> Vec<String> {
        let (clients, peers) = ("http://127.0.0.1:2379", "http://127.0.0.1:2380");
        // The state goes with the cluster: nothing is gained by waiting for the disk.
        words(&format!(
            "--data-dir {} --listen-client-urls {clients} --advertise-client-urls {clients} \
             --listen-peer-urls {peers} --unsafe-no-fsync --log-level warn",
            self.path("etcd")
        ))
    }

    fn api_server(&self) -> Vec<String> {
        let pki = self.path("pki");
        words(&format!(
            "--etcd-servers=http://127.0.0.1:2379 --advertise-address={node} --bind-address=0.0.0.0 \
             --service-cluster-ip-range={services} --authorization-mode=Node,RBAC \
             --enable-admission-plugins=NodeRestriction --allow-privileged=true --client-ca-file={pki}/ca.crt \
             --tls-cert-file={pki}/apiserver.crt --tls-private-key-file={pki}/apiserver.key \
             --service-account-issuer=https://kubernetes.default.svc \
             --service-account-key-file={pki}/accounts.pub --service-account-signing-key-file={pki}/accounts.key \
             --kubelet-client-certificate={pki}/admin.crt --kubelet-client-key={pki}/admin.key \
             --kubelet-certificate-authority={pki}/ca.crt --kubelet-preferred-address-types=InternalIP \
             --requestheader-client-ca-file={pki}/front-ca.crt --requestheader-allowed-names=front-proxy \
             --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group \
             --requestheader-extra-headers-prefix=X-Remote-Extra- --enable-aggregator-routing=true \
             --proxy-client-cert-file={pki}/front.crt --proxy-client-key-file={pki}/front.key",
            node = network::NODE,
            services = network::SERVICES,
        ))
    }

    fn controller_manager(&self) -> Vec<String> {
        let pki = self.path("pki");
        let own = format!(
            "--service-account-private-key-file={pki}/accounts.key --root-ca-file={pki}/ca.crt \
             --cluster-signing-cert-file={pki}/ca.crt --cluster-signing-key-file={pki}/ca.key \
             --use-service-account-credentials=true"
        );
        [self.signs_in("controller-manager"), words(&own)].concat()
    }

    fn kubelet(&self) -> Vec<String> {
        words(&format!(
            "--config={} --kubeconfig={} --node-ip={} --hostname-override=node",
            self.path("kubelet.json"),
            self.path("pki/kubelet.conf"),
            network::NODE
        ))
    }

    /// Arguments of a controller that signs in, and lets others sign in, with a kubeconfig of its own.
    fn signs_in(&self, name: &str) -> Vec<String> {
        let file = self.path(&format!("pki/{name}.conf"));
        words(&format!(
            "--kubeconfig={file} --authentication-kubeconfig={file} --authorization-kubeconfig={file} \
             --leader-elect=false"
        ))
    }
}

/// Arguments from a text; none of ours holds a space.
fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Removes a tree of folders, the lowest first; files in it are the kernel's and go along.
fn remove_tree_of_folders(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_tree_of_folders(&path)?;
        }
    }
    fs::remove_dir(folder)
}
