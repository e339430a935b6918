//! The product on a cluster: charts, images, a sample pool. On our own cluster, or on one that is there already.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::Workspace;
use crate::cluster::{Cluster, Parts};
use crate::command::{output, output_of, which};
use crate::images;
use crate::workspace::VERSION;

/// Namespace of the operator.
pub const OPERATOR_NAMESPACE: &str = "commpool-system";

/// Time for something to become ready, as kubectl and helm read it.
const PATIENCE: &str = "120s";

/// A cluster to put the product on.
#[derive(Debug)]
pub enum Target {
    /// One of ours; images are loaded into its node.
    Own(Cluster),
    /// One of the user's kubeconfig; images come from a registry.
    Context {
        /// Name of the context.
        name: String,
        /// Registry that the cluster's nodes pull from.
        registry: String,
        /// Where kubectl and helm are looked for when `PATH` has none.
        parts: Parts,
    },
}

impl Target {
    /// A kubectl command with these arguments.
    ///
    /// # Errors
    /// When the cluster is not up, or there is no kubectl.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<Command> {
        self.tool("kubectl", "--context", arguments)
    }

    /// A helm command with these arguments.
    ///
    /// # Errors
    /// When the cluster is not up, or there is no helm.
    pub fn helm(&self, arguments: &[&str]) -> Result<Command> {
        self.tool("helm", "--kube-context", arguments)
    }

    /// A tool that is told the context by an option of its own.
    fn tool(&self, program: &str, context: &str, arguments: &[&str]) -> Result<Command> {
        let mut command = match self {
            Self::Own(cluster) => cluster.command(program)?,
            Self::Context { name, parts, .. } => {
                let built = Some(parts.program(program)).filter(|path| path.exists());
                let path = which(program).or(built).with_context(|| format!("{program} is not in PATH"))?;
                let mut command = Command::new(path);
                command.arg(context).arg(name);
                command
            }
        };
        command.args(arguments);
        Ok(command)
    }

    /// Name of a part's image without tag, as the cluster's nodes know it.
    fn repository(&self, part: &str) -> String {
        match self {
            Self::Own(_) => format!("localhost/{part}"),
            Self::Context { registry, .. } => format!("{}/{part}", registry.trim_end_matches('/')),
        }
    }

    /// Brings the archives of the first of [`images::PARTS`] to where the nodes get them from.
    ///
    /// # Errors
    /// When they cannot be loaded or pushed.
    pub fn bring_images(&self, archives: &[PathBuf]) -> Result<()> {
        match self {
            Self::Own(cluster) => cluster.load(archives),
            Self::Context { registry, .. } => {
                let named = images::PARTS.iter().zip(archives);
                named
                    .map(|(part, archive)| images::push(archive, registry, &format!("{part}:{VERSION}")))
                    .try_for_each(|pushed| pushed.map(drop))
            }
        }
    }

    /// Installs or upgrades the definition of the resource and the operator, and waits for the operator. `stamp` stands
    /// for the operator's image: another stamp restarts it, since its tag does not change between two builds.
    ///
    /// # Errors
    /// When helm fails, or the operator is not ready in two minutes.
    pub fn install(&self, workspace: &Workspace, stamp: &str) -> Result<()> {
        let chart = |name: &str| workspace.root().join("charts").join(name).display().to_string();
        let crds = ["upgrade", "--install", "commpool-crds", &chart("commpool-crds"), "--wait", "--timeout", PATIENCE];
        output(&mut self.helm(&crds)?)?;
        let repository = format!("image.repository={}", self.repository("commpool-operator"));
        let stamp = format!("podAnnotations.commpool\\.dev/build={stamp}");
        let operator = chart("commpool-operator");
        let install = ["upgrade", "--install", "commpool-operator", &operator, "--namespace", OPERATOR_NAMESPACE];
        let values = ["--create-namespace", "--set", &repository, "--set-string", &stamp];
        let wait = ["--wait", "--timeout", PATIENCE];
        output(&mut self.helm(&[&install[..], &values, &wait].concat())?).map(drop)
    }

    /// Applies a file of pools, with the registry of this cluster put in, and waits until all of them are ready.
    ///
    /// # Errors
    /// When the API server refuses it, or a pool is not ready in two minutes; the message shows its conditions.
    pub fn apply_pool(&self, file: &Path) -> Result<()> {
        let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let registry = match self {
            Self::Own(_) => None,
            Self::Context { registry, .. } => Some(registry),
        };
        let text = match registry {
            None => text,
            Some(registry) => {
                let patch = serde_json::json!({"spec": {"image": {"registry": registry}}}).to_string();
                let local = ["patch", "--local", "-f", "-", "--type=merge", "-p", &patch, "-o", "json"];
                output_of(&mut self.kubectl(&local)?, &text)?.into_bytes()
            }
        };
        output_of(&mut self.kubectl(&["apply", "-f", "-"])?, &text)?;
        let timeout = format!("--timeout={PATIENCE}");
        let wait = output_of(&mut self.kubectl(&["wait", "--for=condition=Ready", &timeout, "-f", "-"])?, &text);
        let Err(error) = wait else { return Ok(()) };
        let conditions = output_of(&mut self.kubectl(&["describe", "-f", "-"])?, &text).unwrap_or_default();
        bail!("the pool of {} is not ready: {error:#}\n{conditions}", file.display())
    }

    /// Makes all pools take up an image of this part that was loaded anew under the same tag: the pods that run it end,
    /// and new ones take their places. A new server may have another schema, so its migrations are made again too.
    ///
    /// # Errors
    /// When the API server refuses.
    pub fn take_up(&self, part: &str) -> Result<()> {
        let end = |kind: &str, component: &str| {
            let label = format!("app.kubernetes.io/component={component}");
            output(&mut self.kubectl(&["delete", kind, "-A", "-l", &label, "--wait=false"])?).map(drop)
        };
        match part {
            "commpool-server" => end("jobs", "migration").and_then(|()| end("pods", "front-end")),
            images::DATABASE => end("pods", "database"),
            _ => Ok(()),
        }
    }
}
