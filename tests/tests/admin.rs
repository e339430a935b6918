//! What an administrator does beside a running server, and what the server says when it cannot start.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use commpool_harness::process::{Process, Stream};
use commpool_model::ids::Key128;
use commpool_store::ops::accounts::State;
use commpool_store::ops::directory::{Applied, Apply, Card, Change, LeaseKeep, LeaseTake, LeaseTaken, Stage};
use commpool_store::{SqliteOptions, Store, system_clock};
use commpool_tests::client::{Client, Device, Identity, PATIENCE, expect};
use commpool_tests::http;
use commpool_tests::link::Transport;
use commpool_tests::server::{self, Server, Setup, own_address};
use commpool_tests::watch::Notice;

/// How soon a change of an account takes effect, on open connections too.
const EFFECT: Duration = Duration::from_secs(10);

/// Exit codes as documented by `--help`.
const EXIT_USAGE: i32 = 2;
const EXIT_ADDRESS: i32 = 3;
const EXIT_DATA: i32 = 4;
const EXIT_CONFIG: i32 = 5;
const EXIT_NOT_DONE: i32 = 6;

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

fn good(output: &Output) -> Result<String> {
    ensure!(output.status.success(), "{}: {}{}", output.status, text(&output.stdout), text(&output.stderr));
    Ok(text(&output.stdout))
}

/// Exit code and what was said, demanded to hold some words.
fn fails(output: &Output, code: i32, words: &[&str]) -> Result<()> {
    let said = text(&output.stderr);
    ensure!(output.status.code() == Some(code), "{} and not {code}: {said}", output.status);
    let missing: Vec<_> = words.iter().filter(|word| !said.contains(**word)).collect();
    ensure!(missing.is_empty(), "{missing:?} is not said in: {said}");
    Ok(())
}

/// A command that reads a password from its standard input.
fn with_password(server: &Server, arguments: &[&str], password: &str) -> Result<Output> {
    let mut command = Command::new(server::binary(server.setup())?);
    command.args(arguments).arg("--password-stdin").arg("--config").arg(&server.ready().config);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("no standard input")?.write_all(format!("{password}\n").as_bytes())?;
    Ok(child.wait_with_output()?)
}

async fn connect(server: &Server, user: &str, password: &str, transport: Transport) -> Result<Client> {
    let identity =
        Identity { user: user.to_owned(), password: password.to_owned(), domain: server.ready().domain.clone() };
    Client::connect(&identity, &server.target(transport)?, Device::Plain, server.secrets()).await
}

/// Waits until a client is challenged in vain, and demands that this comes soon after `since`.
async fn is_shut_out(client: &Client, since: Instant) -> Result<()> {
    while since.elapsed() < EFFECT {
        if client.link().is_closed() {
            return Ok(());
        }
        match client.exchange(client.register(600)).await {
            Ok(answer) if matches!(answer.status(), Some(401 | 403)) => return Ok(()),
            Ok(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(_) if client.link().is_closed() => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    anyhow::bail!("still let in {:?} after the change", since.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_added_and_listed_beside_a_running_server() -> Result<()> {
    let server = Server::start()?;
    good(&with_password(&server, &["user", "add", "erin"], "a-good-password-77")?)?;
    let erin = connect(&server, "erin", "a-good-password-77", Transport::Tls).await?;
    erin.sign_in().await?;
    let alice = server.client("alice", Transport::Tcp).await?;
    expect(alice.say(&erin.aor(), "welcome, erin").await?, 200)?;
    erin.hears("welcome, erin").await?;

    let made = good(&server.command(&["user", "add", "frank", "--display-name", "Frank N."])?)?;
    let password = made.trim().rsplit(' ').next().context("no password")?.to_owned();
    server.secrets().add("password", &password);
    connect(&server, "frank", &password, Transport::Udp).await?.sign_in().await?;

    let listed = good(&server.command(&["user", "list"])?)?;
    for user in ["alice", "bob", "erin", "frank"] {
        ensure!(listed.contains(&format!("{user}@{}", server.ready().domain)), "{user} is not in\n{listed}");
    }
    ensure!(!listed.contains(&password), "a password in the list");
    let json = good(&server.command(&["user", "list", "fran", "--json"])?)?;
    let row: serde_json::Value = serde_json::from_str(json.lines().next().context("no line")?)?;
    ensure!(row["displayName"] == "Frank N." && row["state"] == "on" && row["password"] == true, "{row}");
    ensure!(json.lines().count() == 1, "{json}");

    fails(&server.command(&["user", "add", "alice"])?, EXIT_NOT_DONE, &["alice@", "exists"])?;
    fails(&server.command(&["user", "passwd", "nobody"])?, EXIT_NOT_DONE, &["nobody@"])?;
    fails(&server.command(&["user", "add", "x@elsewhere.test"])?, EXIT_USAGE, &["elsewhere.test", "commpool.test"])?;
    fails(&with_password(&server, &["user", "add", "short"], "short")?, EXIT_USAGE, &["password"])?;
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_password_takes_effect_on_open_connections() -> Result<()> {
    let server = Server::start()?;
    for transport in Transport::ALL {
        let client = server.signed_in("alice", transport).await?;
        let changed = Instant::now();
        let fresh = format!("brand-new-password-{transport}");
        good(&with_password(&server, &["user", "passwd", "alice"], &fresh)?)?;
        is_shut_out(&client, changed).await.with_context(|| transport.to_string())?;
        let again = connect(&server, "alice", &fresh, transport).await?;
        again.sign_in().await?;
        again.sign_out().await?;
        good(&with_password(&server, &["user", "passwd", "alice"], &server.identity("alice")?.password)?)?;
        is_shut_out(&again, Instant::now()).await?;
    }
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disabled_user_is_out_within_seconds() -> Result<()> {
    let server = Server::start()?;
    let bob = server.signed_in("bob", Transport::Tcp).await?;
    let mut watch = bob.watch(&server.aor("alice")).await?;
    let alice = server.signed_in("alice", Transport::Tls).await?;
    bob.notice(&mut watch, "open", PATIENCE, Notice::is_open).await?;
    let mut of_bob = alice.watch(&bob.aor()).await?;
    alice.notice(&mut of_bob, "bob", PATIENCE, |_| true).await?;

    let changed = Instant::now();
    good(&server.command(&["user", "disable", "alice"])?)?;
    let gone = bob.notice(&mut watch, "closed", EFFECT, Notice::is_closed).await?;
    ensure!(gone.at - changed < EFFECT, "watchers saw it after {:?}", gone.at - changed);
    is_shut_out(&alice, changed).await?;
    expect(bob.say(&server.aor("alice"), "still reachable?").await?, 480)?;
    // What bob does is no longer hers to see.
    bob.publish("open", Some("busy"), None, None).await?;
    ensure!(alice.link().is_closed() || alice.no_notice(&of_bob, Duration::from_millis(500)).await.is_ok());

    good(&server.command(&["user", "enable", "alice"])?)?;
    let back = Instant::now();
    let alice = server.client("alice", Transport::Tls).await?;
    while alice.exchange(alice.register(600)).await?.status() != Some(200) {
        ensure!(back.elapsed() < EFFECT, "not let in again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bob.notice(&mut watch, "open again", PATIENCE, Notice::is_open).await?;
    server.finish()
}

/// Writes a user into the store as a replicator does, beside the server.
async fn replicate(server: &Server, change: Change, version: u64) -> Result<()> {
    let store = Store::open_sqlite(&server.data(), &SqliteOptions::beside(), system_clock())?;
    let source = || "directory".to_owned();
    let take = LeaseTake { name: source(), holder: "a test".to_owned(), ttl_ms: 10_000 };
    let LeaseTaken::Taken(token) = store.ask(take).await? else { anyhow::bail!("somebody holds the lease") };
    store.ask(Stage { source: source(), token, first: 0, rows: vec![change] }).await?;
    let applied = store.ask(Apply { source: source(), token, version, rows: 1, state: Vec::new() }).await?;
    ensure!(applied == Applied::Done { version: version + 1, refused: Vec::new() }, "{applied:?}");
    store.ask(LeaseKeep { name: source(), token, ttl_ms: 0 }).await?;
    store.close();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_from_the_directory_gets_his_password_here_and_all_else_there() -> Result<()> {
    let server = Server::start()?;
    let grace = |name: &str, state| Change::Put {
        key: Key128([7; 16]),
        address: Some(format!("{name}@{}", server.ready().domain)),
        state,
        display_name: "Grace H.".to_owned(),
        card: Card { phone: "+1 555 0100".to_owned(), office: "Büro 9".to_owned(), ..Card::default() },
        fingerprint: Key128([1; 16]),
    };
    replicate(&server, grace("grace", State::On), 0).await?;
    good(&with_password(&server, &["user", "passwd", "grace"], "a-good-password-88")?)?;
    let client = connect(&server, "grace", "a-good-password-88", Transport::Tls).await?;
    client.sign_in().await?;
    let listed = good(&server.command(&["user", "list", "grace", "--json"])?)?;
    let row: serde_json::Value = serde_json::from_str(listed.trim())?;
    ensure!(row["managed"] == true && row["phone"] == "+1 555 0100" && row["office"] == "Büro 9", "{row}");
    ensure!(row["password"] == true && row["displayName"] == "Grace H.", "{row}");
    let listed = good(&server.command(&["user", "list"])?)?;
    ensure!(listed.lines().filter(|line| line.contains("from the directory")).count() == 1, "{listed}");
    let mend = &["grace@", "comes from the directory", "change it there"];
    fails(&server.command(&["user", "disable", "grace"])?, EXIT_NOT_DONE, mend)?;
    fails(&server.command(&["user", "enable", "grace"])?, EXIT_NOT_DONE, mend)?;
    fails(&server.command(&["user", "add", "grace"])?, EXIT_NOT_DONE, mend)?;
    expect(client.exchange(client.register(600)).await?, 200)?;

    let changed = Instant::now();
    replicate(&server, grace("grace", State::Disabled), 1).await?;
    is_shut_out(&client, changed).await?;
    good(&with_password(&server, &["user", "passwd", "grace"], "another-password-99")?)?;
    replicate(&server, grace("grace", State::On), 2).await?;
    let back = Instant::now();
    let client = connect(&server, "grace", "another-password-99", Transport::Tls).await?;
    while client.exchange(client.register(600)).await?.status() != Some(200) {
        ensure!(back.elapsed() < EFFECT, "not let in again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Another name is another user to whoever signs in: his password was made for the old one.
    let changed = Instant::now();
    replicate(&server, grace("gracie", State::On), 3).await?;
    is_shut_out(&client, changed).await?;
    fails(&server.command(&["user", "passwd", "grace"])?, EXIT_NOT_DONE, &["grace@"])?;
    let listed = good(&server.command(&["user", "list", "gracie"])?)?;
    ensure!(listed.contains("no password"), "{listed}");
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_signed_in_from_where_since_when() -> Result<()> {
    let server = Server::start()?;
    ensure!(good(&server.command(&["endpoints", "list"])?)?.trim().is_empty());
    let (udp, tls) = (server.signed_in("alice", Transport::Udp).await?, server.signed_in("bob", Transport::Tls).await?);
    let listed = good(&server.command(&["endpoints", "list", "--json"])?)?;
    let rows: Vec<serde_json::Value> = listed.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(rows.len() == 2, "{listed}");
    for (user, transport, client) in [("alice", "udp", &udp), ("bob", "tls", &tls)] {
        let row = rows.iter().find(|row| row["address"] == format!("{user}@commpool.test")).context("no row")?;
        ensure!(row["transport"] == transport && row["contact"] == client.contact_uri(), "{row}");
        ensure!(row["remote"].to_string().contains(&client.link().local().port().to_string()), "{row}");
        ensure!(row["signedInSeconds"].as_u64().is_some_and(|seconds| seconds < 60), "{row}");
    }
    let one = good(&server.command(&["endpoints", "list", "bob"])?)?;
    ensure!(one.lines().count() == 1 && one.contains("bob@") && one.contains("tls"), "{one}");
    tls.sign_out().await?;
    ensure!(good(&server.command(&["endpoints", "list", "bob"])?)?.trim().is_empty());
    server.finish()
}

#[test]
fn a_taken_port_names_its_holder() -> Result<()> {
    let address = own_address();
    let holder = std::net::TcpListener::bind((address, 5061))?;
    let folder = tempfile::tempdir()?;
    let setup = Setup { listen: address, ..Setup::default() };
    let output = server::run_command(&setup, folder.path())?.output()?;
    let pid = std::process::id().to_string();
    fails(&output, EXIT_ADDRESS, &[&format!("{address}:5061"), "taken", &pid, "--listen"])?;
    drop(holder);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_in_use_or_not_writable_is_said() -> Result<()> {
    let mut server = Server::start()?;
    let pid = server.process().pid().to_string();
    let other = Setup { data: Some(server.data()), ..Setup::default() };
    let output = server::run_command(&other, server.folder())?.output()?;
    fails(&output, EXIT_DATA, &[&pid, "--data"])?;
    server.client("alice", Transport::Tcp).await?.sign_in().await?;
    // /proc takes no files, whoever asks: root is held back by no mode.
    let nowhere = Setup { data: Some("/proc/commpool".into()), ..Setup::default() };
    let output = server::run_command(&nowhere, server.folder())?.output()?;
    fails(&output, EXIT_DATA, &["/proc/commpool", "--data"])?;
    server.finish()
}

#[test]
fn wrong_flags_and_configurations_are_refused_with_the_mend() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let run = |arguments: &[&str]| -> Result<Output> {
        let mut command = Command::new(server::binary(&Setup::default())?);
        Ok(command.args(arguments).stdin(Stdio::null()).output()?)
    };
    let data = folder.path().join("data");
    let data = data.to_str().context("path")?;
    fails(&run(&["run", "--data", data, "--digest", "SHA-1"])?, EXIT_USAGE, &["SHA-1", "SHA-256"])?;
    fails(&run(&["run", "--data", data, "--user", "alice"])?, EXIT_USAGE, &["NAME:PASSWORD"])?;
    fails(&run(&["run", "--data", data, "--listen", "nowhere"])?, EXIT_USAGE, &["--listen", "nowhere"])?;
    fails(&run(&["run", "--unheard-of"])?, EXIT_USAGE, &["--unheard-of"])?;

    let file = folder.path().join("config.yaml");
    let path = file.to_str().context("path")?;
    fails(&run(&["config", "check", path])?, EXIT_CONFIG, &[path])?;
    let key = folder.path().join("pool.key");
    let good_config = format!(
        "pool: p\nsipDomains: [x.test]\nlisteners: {{udp: ['127.0.0.1:5060']}}\nkeyFile: {}\nstore: {{sqlite: {{folder: /d}}}}\n",
        key.display()
    );
    std::fs::write(&file, &good_config)?;
    fails(&run(&["config", "check", path])?, EXIT_CONFIG, &["keyFile", "pool.key"]).context("no key")?;
    std::fs::write(&key, "too short")?;
    fails(&run(&["config", "check", path])?, EXIT_CONFIG, &["keyFile", "pool.key", "32"]).context("a short key")?;
    std::fs::write(&key, "k".repeat(32))?;
    good(&run(&["config", "check", path])?)?;
    for (wrong, words) in [
        (good_config.replace("pool: p", "pool: p\nsurprise: 1"), "surprise"),
        (good_config.replace("x.test", "not a domain"), "sipDomains"),
        (good_config.replace("store: {sqlite: {folder: /d}}\n", ""), "store"),
        (good_config.replace("listeners: {udp: ['127.0.0.1:5060']}\n", ""), "listeners"),
        (good_config.replace("udp:", "tls:"), "tls"),
        (format!("{good_config}policy: {{maxMessageBytes: 1}}\n"), "maxMessageBytes"),
        (format!("{good_config}authentication: {{digest: []}}\n"), "digest"),
    ] {
        std::fs::write(&file, &wrong)?;
        fails(&run(&["config", "check", path])?, EXIT_CONFIG, &[words]).with_context(|| wrong.clone())?;
    }
    Ok(())
}

#[test]
fn the_version_names_its_commit() -> Result<()> {
    let output = Command::new(server::binary(&Setup::default())?).arg("--version").output()?;
    let said = good(&output)?;
    ensure!(said.contains(commpool_harness::workspace::VERSION), "{said}");
    let commit = said.split(|c: char| !c.is_ascii_hexdigit()).any(|word| word.len() >= 7);
    ensure!(commit || said.contains("unknown"), "no commit in {said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_readiness_and_metrics() -> Result<()> {
    let server = Server::start()?;
    let address = *server.ready().addresses.get("management").context("no management address")?;
    for path in ["/healthz", "/readyz"] {
        let (status, body) = http::get(address, path)?;
        ensure!(status == 200, "{path}: {status} {body}");
    }
    let (alice, bob) =
        (server.signed_in("alice", Transport::Tcp).await?, server.signed_in("bob", Transport::Tcp).await?);
    expect(alice.say(&bob.aor(), "count this one, please").await?, 200)?;
    let (status, metrics) = http::get(address, "/metrics")?;
    ensure!(status == 200, "{metrics}");
    ensure!(metrics.lines().any(|line| line.contains("MESSAGE")), "no count of messages in\n{metrics}");
    // Labels are bounded: no user, no Call-ID, nothing a stranger can invent.
    let odd = alice.request("INVENTED-BY-A-STRANGER", &bob.aor());
    alice.transact(&odd).await?;
    let (_, metrics) = http::get(address, "/metrics")?;
    for name in ["INVENTED", "alice", "commpool.test"] {
        ensure!(!metrics.contains(name), "{name} became a label:\n{metrics}");
    }
    let (status, _) = http::get(address, "/nothing")?;
    ensure!(status == 404, "{status}");
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo_users_keep_their_passwords() -> Result<()> {
    let mut server = Server::with(Setup { users: Vec::new(), ..Setup::default() })?;
    let first: Vec<_> = server.ready().users.iter().map(|user| (user.user.clone(), user.password.clone())).collect();
    ensure!(first.len() == 2 && first[0].0 == "alice" && first[1].0 == "bob", "{first:?}");
    for transport in Transport::ALL {
        server.signed_in("alice", transport).await?;
    }
    let file = server.data().join("demo-users");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file)?.permissions());
    ensure!(mode & 0o777 == 0o600, "{} has mode {mode:o}", file.display());
    server.restart()?;
    let second: Vec<_> = server.ready().users.iter().map(|user| (user.user.clone(), user.password.clone())).collect();
    ensure!(first == second, "other passwords after a restart");
    server.signed_in("bob", Transport::Tls).await?;
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_administrator_changed_of_demo_users_outlives_a_restart() -> Result<()> {
    let mut server = Server::with(Setup { users: Vec::new(), ..Setup::default() })?;
    server.secrets().add("password", "alice-has-her-own-31");
    good(&with_password(&server, &["user", "passwd", "alice"], "alice-has-her-own-31")?)?;
    good(&server.command(&["user", "disable", "bob"])?)?;
    server.restart()?;
    let [alice, bob] = server.ready().users.as_slice() else { anyhow::bail!("{:?}", server.ready().users) };
    ensure!(alice.password.is_none() && !alice.disabled, "{alice:?}: a password that is not hers is shown");
    ensure!(bob.password.is_some() && bob.disabled, "{bob:?}");
    connect(&server, "alice", "alice-has-her-own-31", Transport::Tls).await?.sign_in().await?;
    let bob = server.client("bob", Transport::Tcp).await?;
    expect(bob.exchange(bob.register(600)).await?, 401)?;
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_on_the_command_line_is_the_users_from_then_on() -> Result<()> {
    let mut server = Server::start()?;
    good(&with_password(&server, &["user", "passwd", "alice"], "alice-has-her-own-31")?)?;
    server.restart()?;
    server.signed_in("alice", Transport::Tcp).await?;
    server.finish()
}

#[test]
fn the_next_step_that_is_printed_can_be_typed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(server::binary(&Setup::default())?);
    command.args(["run", "--domain", server::DOMAIN, "--listen", &own_address().to_string()]);
    command.arg("--data").arg(folder.path().join("a folder"));
    let mut process = Process::start("server", folder.path(), &mut command)?;
    let line = process.wait_for_line(Stream::Out, Duration::from_secs(60), |line| line.starts_with("More users: "))?;
    let typed = line.trim_start_matches("More users: ").replace("NAME", "zoe");
    let added = Command::new("sh").args(["-c", &typed]).env("PATH", "/usr/bin:/bin").output()?;
    ensure!(good(&added)?.contains("zoe@"), "{typed}");
    let (status, _) = process.stop(Duration::from_secs(5))?;
    ensure!(status.success(), "{status}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_domain_or_address_gets_another_certificate() -> Result<()> {
    let keep = tempfile::tempdir()?;
    let data = Some(keep.path().join("data"));
    let first = Server::with(Setup { data: data.clone(), ..Setup::default() })?;
    let ca = std::fs::read(&first.ready().ca)?;
    first.signed_in("alice", Transport::Tls).await?;
    first.finish()?;
    let second = Server::with(Setup { data, domain: "other.test".to_owned(), ..Setup::default() })?;
    ensure!(std::fs::read(&second.ready().ca)? == ca, "the authority changed: clients would have to trust anew");
    let client = second.signed_in("alice", Transport::Tls).await?;
    ensure!(client.aor() == "sip:alice@other.test");
    second.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_finishes_what_is_under_way() -> Result<()> {
    let server = Server::start()?;
    let (alice, bob) =
        (server.signed_in("alice", Transport::Tcp).await?, server.signed_in("bob", Transport::Tcp).await?);
    bob.link().reply("MESSAGE", commpool_tests::link::Reply::Late(Duration::from_secs(1), 200));
    let request = alice.message(&bob.aor(), "on its way when the end came");
    let challenged = alice.transact(&request).await?;
    let request = alice.answered(request, &challenged)?;
    alice.link().send(&request.octets()).await?;
    bob.hears("on its way when the end came").await?;
    let end = tokio::task::spawn_blocking(move || server.finish());
    expect(alice.final_answer(&request, PATIENCE).await?.packet, 200)?;
    alice.link().closed(PATIENCE).await?;
    end.await?
}
