//! etcd and kube-apiserver on loopback, in a folder of their own, ended with the test.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use rcgen::KeyPair;
use tempfile::TempDir;

/// A running API server.
pub(crate) struct ApiServer {
    port: u16,
    processes: Vec<Child>,
    folder: TempDir,
}

impl ApiServer {
    /// Starts one; `None` where no binaries are named and none are required.
    pub(crate) async fn start() -> Option<Self> {
        let Some(bin) = std::env::var_os("COMMPOOL_KUBE_BIN").map(PathBuf::from) else {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "CI=true: COMMPOOL_KUBE_BIN must name the folder of etcd and kube-apiserver"
            );
            tell("not run: COMMPOOL_KUBE_BIN does not name a folder with etcd and kube-apiserver");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let [client, peer, port] = free_ports();
        let mut server = Self { port, processes: Vec::new(), folder };
        let path = |name: &str| server.folder.path().join(name).to_str().unwrap().to_owned();
        let key = KeyPair::generate().unwrap();
        std::fs::write(path("sa.key"), key.serialize_pem()).unwrap();
        std::fs::write(path("sa.pub"), key.public_key_pem()).unwrap();
        let tokens =
            "admin,admin,1,\"system:masters\"\noperator,system:serviceaccount:commpool-system:commpool-operator,2\n";
        std::fs::write(path("tokens"), tokens).unwrap();
        let etcd = [
            format!("--data-dir={}", path("etcd")),
            format!("--listen-client-urls=http://127.0.0.1:{client}"),
            format!("--advertise-client-urls=http://127.0.0.1:{client}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
            "--unsafe-no-fsync".into(),
            "--log-level=warn".into(),
        ];
        let apiserver = [
            format!("--etcd-servers=http://127.0.0.1:{client}"),
            "--bind-address=127.0.0.1".into(),
            format!("--secure-port={port}"),
            format!("--cert-dir={}", path("certificates")),
            "--endpoint-reconciler-type=none".into(),
            "--service-cluster-ip-range=10.96.0.0/16".into(),
            "--authorization-mode=RBAC".into(),
            format!("--token-auth-file={}", path("tokens")),
            "--disable-admission-plugins=ServiceAccount".into(),
            "--service-account-issuer=https://kubernetes.default.svc".into(),
            format!("--service-account-signing-key-file={}", path("sa.key")),
            format!("--service-account-key-file={}", path("sa.pub")),
        ];
        server.spawn(&bin, "etcd", &etcd);
        server.spawn(&bin, "kube-apiserver", &apiserver);
        server.wait_until_ready().await;
        Some(server)
    }

    fn spawn(&mut self, bin: &Path, name: &str, args: &[String]) {
        // one file may hold several Kubernetes programs and look at its name to know which to be
        let own = bin.join(name);
        let program = if own.exists() { own } else { bin.join("kube") };
        let log = std::fs::File::create(self.log(name)).unwrap();
        let mut command = Command::new(&program);
        command.arg0(name).args(args).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
        self.processes.push(child);
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    async fn wait_until_ready(&mut self) {
        let client = self.client("admin").await;
        let end = Instant::now() + Duration::from_secs(90);
        loop {
            let request = http::Request::get("/readyz").body(Vec::new()).unwrap();
            if client.request_text(request).await.is_ok_and(|text| text == "ok") {
                return;
            }
            let ended = self.processes.iter_mut().any(|process| process.try_wait().unwrap().is_some());
            if ended || Instant::now() > end {
                let tail = |name: &str| {
                    let log = std::fs::read_to_string(self.log(name)).unwrap_or_default();
                    log.lines().rev().take(15).map(|line| format!("{name}: {line}\n")).collect::<String>()
                };
                panic!("the API server did not start:\n{}{}", tail("etcd"), tail("kube-apiserver"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A kubeconfig file for the user with this token.
    pub(crate) fn kubeconfig(&self, token: &str) -> PathBuf {
        let text = format!(
            "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}], \
             clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:{}', insecure-skip-tls-verify: true}}}}], \
             users: [{{name: u, user: {{token: {token}}}}}]}}",
            self.port
        );
        let file = self.folder.path().join(format!("{token}.conf"));
        std::fs::write(&file, text).unwrap();
        file
    }

    /// A client of the user with this token.
    pub(crate) async fn client(&self, token: &str) -> Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig(token)).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        Client::try_from(config).unwrap()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

#[expect(clippy::print_stdout, reason = "a test that is not run must not look like one that passed")]
fn tell(line: &str) {
    println!("{line}");
}

/// A port that nobody listens on now.
pub(crate) fn free_port() -> u16 {
    let [port] = free_ports();
    port
}

fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
