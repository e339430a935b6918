//! The database's image at work, without a cluster: its files unpacked, its entrypoint in a root of its own. Needs root
//! and Debian's packages.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use commpool_harness::command::{output, run, which};
use commpool_harness::process::{Process, Stream};
use commpool_harness::skip::{Need, can_run};
use commpool_harness::{Workspace, images, wait};
use rustix::process::Signal;
use serde_json::Value;

const USER: &str = "5432:5432";
const DATABASE: &str = "the \"pool\"";
/// For `initdb`, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// The image's file system in a folder.
struct Root {
    folder: tempfile::TempDir,
    logs: tempfile::TempDir,
    environment: Vec<(String, String)>,
    port: u16,
}

impl Root {
    fn unpack(archive: &Path) -> Result<Self> {
        let blob = |path: &str| -> Result<Vec<u8>> {
            let mut archive = tar::Archive::new(File::open(archive)?);
            for entry in archive.entries()? {
                let mut entry = entry?;
                if entry.path()?.to_str() == Some(path) {
                    let mut content = Vec::new();
                    entry.read_to_end(&mut content)?;
                    return Ok(content);
                }
            }
            anyhow::bail!("the archive has no {path}")
        };
        let parsed = |path: &str| -> Result<Value> { Ok(serde_json::from_slice(&blob(path)?)?) };
        let manifest = parsed("manifest.json")?[0].clone();
        let config = parsed(manifest["Config"].as_str().unwrap())?["config"].clone();
        let variables = config["Env"].as_array().unwrap().iter().filter_map(|it| it.as_str()?.split_once('='));
        let folder = tempfile::tempdir()?;
        let layer = blob(manifest["Layers"][0].as_str().unwrap())?;
        let mut layer = tar::Archive::new(layer.as_slice());
        layer.set_preserve_permissions(true);
        layer.set_preserve_ownerships(true);
        layer.unpack(folder.path())?;
        let root = Self {
            environment: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            folder,
            logs: tempfile::tempdir()?,
            port: wait::free_port()?,
        };
        run(Command::new("chmod").arg("755").arg(root.folder.path()))?;
        fs::create_dir(root.path("dev"))?;
        for (name, minor) in [("null", "3"), ("zero", "5"), ("urandom", "9")] {
            run(Command::new("mknod").args(["-m", "666"]).arg(root.path("dev").join(name)).args(["c", "1", minor]))?;
        }
        Ok(root)
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.folder.path().join(path)
    }

    /// A command inside, as the image's user and in its environment.
    fn inside(&self, words: &[&str]) -> Command {
        let mut command = Command::new(which("chroot").expect("root has it"));
        command.arg(format!("--userspec={USER}")).arg(self.folder.path()).args(words);
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts the entrypoint with this password, and waits until it takes connections.
    fn start(&self, password: &str) -> Result<Process> {
        fs::write(self.path("password"), format!("{password}\n"))?;
        let port = format!("port={}", self.port);
        let mut command = self.inside(&["/bin/commpool-database", "-c", "listen_addresses=127.0.0.1", "-c", &port]);
        command.env("POSTGRES_PASSWORD_FILE", "/password").env("POSTGRES_DB", DATABASE);
        command.env("POSTGRES_INITDB_ARGS", "--encoding=UTF8 --locale=C.UTF-8 --data-checksums --no-sync");
        let mut server = Process::start("database", self.logs.path(), &mut command)?;
        server.wait_for_line(Stream::Err, PATIENCE, |line| line.contains("database system is ready to accept"))?;
        wait::for_port(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)), PATIENCE)?;
        Ok(server)
    }

    /// What a client with this password is told.
    fn ask(&self, password: &str, question: &str) -> Result<String> {
        let port = self.port.to_string();
        let words = ["psql", "-XAtq", "-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-d", DATABASE, "-c", question];
        output(self.inside(&words).env("PGPASSWORD", password))
    }
}

#[test]
fn the_database_is_made_kept_and_opened_by_the_newest_password() {
    let needs = [Need::Root, Need::Program("apt-get"), Need::Program("dpkg-deb")];
    if !can_run("the_database_is_made_kept_and_opened_by_the_newest_password", &needs) {
        return;
    }
    let archives = images::build(&Workspace::find().unwrap(), &[images::DATABASE]).unwrap();
    let root = Root::unpack(&archives[0]).unwrap();
    let (first, second) = ("it's \"one\" \\ $PATH", "another");
    // what a start that was killed half way left
    fs::create_dir(root.path("var/lib/postgresql/data/pgdata.new")).unwrap();
    fs::write(root.path("var/lib/postgresql/data/pgdata.new/PG_VERSION"), "15\n").unwrap();
    run(Command::new("chown").args(["-R", USER]).arg(root.path("var/lib/postgresql/data"))).unwrap();

    let mut server = root.start(first).unwrap();
    let settings = "select current_setting('server_encoding'), current_setting('data_checksums'), \
                    current_setting('TimeZone'), datcollate from pg_database where datname = current_database()";
    assert_eq!(root.ask(first, settings).unwrap(), "UTF8|on|UTC|C.UTF-8");
    root.ask(first, "create table kept as select 7 as number; create extension pg_stat_statements").unwrap();
    assert!(root.ask(second, "select 1").unwrap_err().to_string().contains("password authentication failed"));
    server.signal(Signal::INT).unwrap();
    assert!(server.wait(Duration::from_secs(20)).unwrap().success());

    let server = root.start(second).unwrap();
    assert_eq!(root.ask(second, "select number from kept").unwrap(), "7");
    assert!(root.ask(first, "select 1").unwrap_err().to_string().contains("password authentication failed"));
    root.ask(second, "insert into kept values (8)").unwrap();
    drop(server);

    // its workers need a moment to see that it is gone; in a container they go with it
    let _server = wait::until("the database again", PATIENCE, || Ok(root.start(second).ok())).unwrap();
    assert_eq!(root.ask(second, "select sum(number) from kept").unwrap(), "15");
}
