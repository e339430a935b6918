//! `cargo xtask run`: builds the server and becomes it.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use commpool_harness::Workspace;
use commpool_harness::command::{run as run_command, say, which};

/// The server's package and program.
const SERVER: &str = "commpool-server";

/// Shown below the options.
pub(crate) const AFTER_HELP: &str = "Exit codes: those of commpool-server (0 ended as asked, 2 usage, 3 address or port, 4 data \
                          folder, 5 configuration), and 1 when it cannot be built.";

/// Options of `cargo xtask run`: the server's own, and how it is built.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Options {
    /// Address to listen on, with or without a port: UDP and TCP there, TLS on the next port, health and metrics on the
    /// one after [default: 127.0.0.1:5060, and ::1 where it exists]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// SIP domain of the users [default: localhost]
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
    /// Folder for database, certificates and keys [default: in the user's data folder commpool, for a pool
    /// commpool-pool; for a pool of root's /var/lib/commpool-pool]
    #[arg(long, value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    pub(crate) data: Option<PathBuf>,
    /// A user instead of the demo users; as often as wanted
    #[arg(long = "user", value_name = "NAME:PASSWORD")]
    users: Vec<String>,
    /// Digest algorithms offered, strongest first [default: SHA-256,MD5]
    #[arg(long, value_name = "LIST")]
    digest: Option<String>,
    /// Print one line of JSON on standard output once it serves
    #[arg(long)]
    json: bool,
    /// Build with optimisation: slower to start the first time, faster from then on
    #[arg(long)]
    pub(crate) release: bool,
}

/// Builds the server, then replaces this process by it, so that signals and exit codes are the server's own.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let program = build(workspace, options.release)?;
    become_server(&program, &options.arguments(options.data.as_deref()))
}

/// Builds the server and tells where it is.
pub(crate) fn build(workspace: &Workspace, release: bool) -> Result<PathBuf> {
    let compiler = c_compiler()?;
    let program = workspace.target().join(if release { "release" } else { "debug" }).join(SERVER);
    if !program.is_file() {
        let minutes = if release { "3 to 5" } else { "1 to 2" };
        say(&format!("building {SERVER}, the first time {minutes} minutes (C compiler: {compiler})"));
    }
    let start = Instant::now();
    let mut build = workspace.cargo();
    build.args(["build", "--locked", "-p", SERVER, "--bin", SERVER]).args(release.then_some("--release"));
    run_command(&mut build).with_context(|| format!("{SERVER} cannot be built"))?;
    say(&format!("{SERVER} is built, {:.0} s", start.elapsed().as_secs_f64()));
    Ok(program)
}

/// Replaces this process by the server; comes back only when that fails.
pub(crate) fn become_server(program: &Path, arguments: &[String]) -> Result<()> {
    let error = Command::new(program).arg("run").args(arguments).exec();
    Err(error).with_context(|| format!("{} cannot be started", program.display()))
}

impl Options {
    /// The server's arguments, with this data folder.
    pub(crate) fn arguments(&self, data: Option<&Path>) -> Vec<String> {
        let data = data.map(|folder| folder.display().to_string());
        let single =
            [("--listen", &self.listen), ("--domain", &self.domain), ("--data", &data), ("--digest", &self.digest)];
        let single = single.into_iter().filter_map(|(name, value)| Some([name.to_owned(), value.clone()?]));
        let users = self.users.iter().map(|user| ["--user".to_owned(), user.clone()]);
        let mut arguments: Vec<String> = single.chain(users).flatten().collect();
        arguments.extend(self.json.then(|| "--json".to_owned()));
        arguments
    }
}

/// The C compiler that SQLite and the cryptography are built with: `CC`, else `cc`.
fn c_compiler() -> Result<String> {
    let named = std::env::var("CC").ok().filter(|name| !name.trim().is_empty());
    let compiler = named.clone().unwrap_or_else(|| "cc".to_owned());
    let program = compiler.split_whitespace().next().unwrap_or("cc");
    if which(program).is_some() || Path::new(program).is_file() {
        return Ok(compiler);
    }
    match named {
        Some(_) => bail!("no C compiler: CC names `{program}`, which is not there; unset CC or name one that is"),
        None => bail!(
            "no C compiler: SQLite is built from its source, and there is no `cc`. Install one \
             (Debian, Ubuntu: `apt-get install gcc libc6-dev`; Fedora: `dnf install gcc`), or set CC"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_flags_are_passed_on() {
        let options = Options {
            listen: Some("127.0.0.2:6000".to_owned()),
            domain: None,
            data: Some(PathBuf::from("/tmp/a b")),
            users: vec!["a:1".to_owned(), "b:2".to_owned()],
            digest: Some("MD5".to_owned()),
            json: true,
            release: false,
        };
        let expected = "--listen|127.0.0.2:6000|--data|/tmp/a b|--digest|MD5|--user|a:1|--user|b:2|--json";
        assert_eq!(options.arguments(options.data.as_deref()).join("|"), expected);
    }
}
