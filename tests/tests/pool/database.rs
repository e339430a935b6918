//! The database stands still, is slow, takes no writes, is full, is not the right one: answers stay honest, front ends
//! stay up, and all is well again by itself.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use commpool_harness::command::{is_root, output, say};
use commpool_harness::postgres::Settings;
use commpool_harness::skip::{Need, can_run};
use commpool_harness::wait;
use commpool_tests::client::{Client, Device, PATIENCE, eventually, expect, unique};
use commpool_tests::link::Transport;
use commpool_tests::packet::Packet;
use commpool_tests::pool::{Pool, Setup};
use commpool_tests::proxy::{Mode, Proxy};
use commpool_tests::watch::Notice;

/// What needs the store is answered within this. (The promise is 2 s; the machine may be busy.)
const HONEST: Duration = Duration::from_secs(4);
/// A first REGISTER is held for 6 s and then refused.
const HELD: Duration = Duration::from_secs(9);
/// Normal so soon after the database is.
const NORMAL: Duration = Duration::from_secs(8);

struct People {
    alice: Client,
    bob: Client,
}

async fn people(pool: &Pool) -> Result<People> {
    let alice = pool.signed_in("alice", 0, Transport::Tls).await?;
    let bob = pool.signed_in("bob", 1, Transport::Tls).await?;
    expect(alice.say(&bob.aor(), &unique("before ")).await?, 200)?;
    Ok(People { alice, bob })
}

/// A 5xx with Retry-After, in time.
fn refused(answer: &Packet, since: Instant, limit: Duration) -> Result<()> {
    ensure!(matches!(answer.status(), Some(500 | 503)), "not refused:\n{answer}");
    ensure!(answer.header("Retry-After").is_some(), "5xx without Retry-After:\n{answer}");
    ensure!(since.elapsed() < limit, "only after {:?}:\n{answer}", since.elapsed());
    Ok(())
}

/// With nobody to ask: whoever needs an answer of the database is refused in time, nobody is told what is not so.
async fn answers_without_the_database(pool: &Pool, people: &People) -> Result<()> {
    let start = Instant::now();
    refused(&people.alice.say(&people.bob.aor(), "into the void").await?, start, HONEST)?;
    let start = Instant::now();
    let document = commpool_tests::presence::published(&people.alice.aor(), "open", Some("busy"), None);
    let publication = people.alice.publication(Some(&document), None, 600);
    refused(&people.alice.exchange(publication).await?, start, HONEST)?;
    // A refresh on its own flow is told what is left of the binding, which is true.
    let start = Instant::now();
    let refreshed = expect(people.alice.exchange(people.alice.register(3600)).await?, 200)?;
    ensure!(start.elapsed() < HONEST, "only after {:?}", start.elapsed());
    let left: u32 = refreshed.need("Expires")?.parse()?;
    ensure!((30..600).contains(&left), "not what is left: {left} s\n{refreshed}");
    // Who is not known yet is held, and then refused: his client's first attempt is the precious one.
    let start = Instant::now();
    let carol = pool.device("carol", 2, Transport::Tcp, Device::Plain).await?;
    let answer = carol.exchange(carol.register(3600)).await?;
    refused(&answer, start, HELD)?;
    ensure!(start.elapsed() > Duration::from_secs(5), "refused at once: {answer}");
    Ok(())
}

/// All is well again: messages, presence, new devices.
async fn normal_again(pool: &Pool, people: &People) -> Result<Duration> {
    let start = Instant::now();
    let People { alice, bob } = people;
    eventually("a MESSAGE that passes", async || {
        Ok(alice.say(&bob.aor(), &unique("after ")).await?.status() == Some(200))
    })
    .await?;
    eventually("a MESSAGE back", async || Ok(bob.say(&alice.aor(), &unique("back ")).await?.status() == Some(200)))
        .await?;
    eventually("a PUBLISH that passes", async || {
        let document = commpool_tests::presence::published(&alice.aor(), "open", None, None);
        Ok(alice.exchange(alice.publication(Some(&document), None, 600)).await?.status() == Some(200))
    })
    .await?;
    let took = start.elapsed();
    let mut watch = bob.watch(&alice.aor()).await?;
    alice.publish("open", Some("meeting"), None, None).await?;
    bob.notice(&mut watch, "her state", PATIENCE, |notice| notice.is_doing("meeting")).await?;
    pool.signed_in("carol", 2, Transport::Tcp).await?;
    ensure!(!alice.link().is_closed() && !bob.link().is_closed(), "a connection was lost");
    bob.link().none("what was refused", Duration::from_millis(300), |a| a.packet.text() == "into the void").await?;
    Ok(took)
}

/// A pool all of whose front ends reach the database by a proxy.
async fn behind_a_proxy(setup: Setup) -> Result<(Pool, Proxy)> {
    let mut pool = Pool::prepare(setup)?;
    let proxy = Proxy::to(format!("{}:{}", pool.database.host(), pool.database.port()).parse()?).await?;
    for n in 0..3 {
        pool.front_end(n)
            .edit(&format!("port: {}", pool.database.port()), &format!("port: {}", proxy.address().port()))?;
    }
    pool.launch()?;
    Ok((pool, proxy))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_away() -> Result<()> {
    let mut pool = Pool::start()?;
    let people = people(&pool).await?;
    pool.database.stop()?;
    answers_without_the_database(&pool, &people).await?;
    pool.database.start_again()?;
    let took = normal_again(&pool, &people).await?;
    say(&format!("away: normal after {took:?}"));
    ensure!(took < NORMAL, "normal only after {took:?}");
    pool.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_stands_still() -> Result<()> {
    let pool = Pool::start()?;
    let people = people(&pool).await?;
    pool.database.pause();
    let answers = answers_without_the_database(&pool, &people).await;
    pool.database.resume();
    answers?;
    let took = normal_again(&pool, &people).await?;
    say(&format!("stands still: normal after {took:?}"));
    ensure!(took < NORMAL, "normal only after {took:?}");
    pool.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_slow() -> Result<()> {
    let (pool, proxy) = behind_a_proxy(Setup::default()).await?;
    let people = people(&pool).await?;
    // Slow and good: everything goes on.
    proxy.set(Mode::Late(Duration::from_millis(200)));
    for n in 0..5 {
        let start = Instant::now();
        expect(people.alice.say(&people.bob.aor(), &format!("slowly {n}")).await?, 200)?;
        ensure!(start.elapsed() < Duration::from_secs(2), "one delay became {:?}", start.elapsed());
        people.bob.hears(&format!("slowly {n}")).await?;
    }
    people.alice.publish("open", Some("busy"), None, None).await?;
    // Too slow: refused in time, and a client's retransmissions do not make it worse.
    proxy.set(Mode::Late(Duration::from_millis(2500)));
    for _ in 0..3 {
        let start = Instant::now();
        refused(&people.alice.say(&people.bob.aor(), "into the void").await?, start, HONEST)?;
    }
    proxy.set(Mode::Pass);
    let took = normal_again(&pool, &people).await?;
    say(&format!("slow: normal after {took:?}"));
    ensure!(took < NORMAL, "normal only after {took:?}");
    pool.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_takes_no_writes() -> Result<()> {
    let pool = Pool::start()?;
    let people = people(&pool).await?;
    let mut watch = people.bob.watch(&people.alice.aor()).await?;
    people.bob.notice(&mut watch, "her state", PATIENCE, Notice::is_open).await?;
    pool.sql(
        "alter system set default_transaction_read_only = on; select pg_reload_conf();
         select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'commpool%'",
    )?;
    let start = Instant::now();
    let document = commpool_tests::presence::published(&people.alice.aor(), "open", Some("busy"), None);
    refused(&people.alice.exchange(people.alice.publication(Some(&document), None, 600)).await?, start, HONEST)?;
    // What only reads goes on as long as leases last.
    eventually("a MESSAGE that passes", async || {
        Ok(people.alice.say(&people.bob.aor(), &unique("read ")).await?.status() == Some(200))
    })
    .await?;
    pool.sql(
        "begin read write; select set_config('transaction_read_only', 'off', true); end;
         alter system reset default_transaction_read_only; select pg_reload_conf()",
    )?;
    let took = normal_again(&pool, &people).await?;
    say(&format!("no writes: normal after {took:?}"));
    pool.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_disk_is_full() -> Result<()> {
    if !can_run("a database whose disk is full", &[Need::Root, Need::Program("mount")]) {
        return Ok(());
    }
    let disk = Disk::make(160)?;
    let database = Settings {
        folder: Some(disk.folder.join("database")),
        // No room held back for the log of writes: it is to be full when the disk is.
        lines: ["wal_recycle = off", "min_wal_size = 32MB", "max_wal_size = 48MB"].map(str::to_owned).to_vec(),
        ..Settings::default()
    };
    let pool = Pool::with(Setup { database, ..Setup::default() })?;
    let people = people(&pool).await?;
    disk.fill()?;
    let mut refusals = 0;
    let start = Instant::now();
    // Pages that are there already take some more.
    while refusals < 3 && start.elapsed() < Duration::from_secs(60) {
        let asked = Instant::now();
        let document =
            commpool_tests::presence::published(&people.alice.aor(), "open", None, Some(&unique(&"x".repeat(900))));
        let answer = people.alice.exchange(people.alice.publication(Some(&document), None, 600)).await?;
        if answer.status() != Some(200) {
            refused(&answer, asked, HONEST)?;
            refusals += 1;
        }
    }
    say(&format!("full disk: {refusals} refusals after {:?}", start.elapsed()));
    ensure!(refusals > 0, "a full disk hindered nothing");
    disk.free()?;
    let took = normal_again(&pool, &people).await?;
    say(&format!("full disk: normal after {took:?}"));
    ensure!(took < NORMAL * 2, "normal only after {took:?}");
    pool.finish()
}

/// A small file system of its own.
struct Disk {
    folder: PathBuf,
}

impl Disk {
    fn make(mebibytes: u32) -> Result<Self> {
        ensure!(is_root(), "only root can mount");
        let folder = std::env::temp_dir().join(unique("commpool-disk-"));
        std::fs::create_dir(&folder)?;
        let disk = Self { folder };
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m,mode=0755"), "tmpfs"]).arg(&disk.folder);
        output(&mut mount)?;
        Ok(disk)
    }

    fn fill(&self) -> Result<()> {
        let mut file = std::fs::File::create(self.folder.join("filling"))?;
        let chunk = vec![0_u8; 1 << 16];
        while std::io::Write::write_all(&mut file, &chunk).is_ok() {}
        // What is left is less than a chunk.
        while std::io::Write::write_all(&mut file, &[0; 512]).is_ok() {}
        Ok(())
    }

    fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.folder.join("filling"))?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.folder).status();
        if unmounted.is_ok_and(|status| status.success()) {
            let _ = std::fs::remove_dir(&self.folder);
        }
    }
}

/// What the front end says while it does not serve.
fn why_not_ready(pool: &mut Pool, words: &[&str]) -> Result<()> {
    let reason = wait::until("the reason why it is not ready", Duration::from_secs(30), || {
        let Ok((status, text)) = pool.front_end(0).ask("/readyz") else { return Ok(None) };
        ensure!(status == 503, "ready: {text}");
        Ok(words.iter().all(|word| text.contains(word)).then_some(text))
    });
    let said = || format!("{:?}\n{}", pool.front_end(0).ask("/readyz"), pool.front_end(0).log());
    let reason = reason.with_context(said)?;
    say(&format!("not ready, and why: {reason}"));
    ensure!(pool.front_end(0).ask("/healthz")?.0 == 200, "it is not well");
    ensure!(pool.front_end_mut(0).lives()?, "it has ended");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_schema_is_not_ours() -> Result<()> {
    let mut pool = Pool::prepare(Setup { front_ends: 1, ..Setup::default() })?;
    pool.sql("alter schema commpool_api_1 rename to away")?;
    pool.front_end_mut(0).launch()?;
    why_not_ready(&mut pool, &["migrate"])?;
    pool.sql("alter schema away rename to commpool_api_1")?;
    pool.front_end_mut(0).until_ready()?;
    people_of_one(&pool).await?;
    pool.finish()
}

/// As a migration does that takes back what the build before needs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_floor_rises_while_front_ends_run() -> Result<()> {
    let mut pool = Pool::with(Setup { front_ends: 1, ..Setup::default() })?;
    people_of_one(&pool).await?;
    let leave = "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'commpool%'";
    pool.sql(&format!("update commpool.pool set floor = floor + 1; {leave}"))?;
    let gone =
        |pool: &mut Pool| wait::until("readiness to go", NORMAL, || Ok((!pool.front_end(0).is_ready()).then_some(())));
    gone(&mut pool)?;
    why_not_ready(&mut pool, &["schema", "use a build at least as new"])?;
    pool.sql("update commpool.pool set floor = floor - 1")?;
    pool.front_end_mut(0).until_ready()?;
    served_again(&pool).await?;
    // So it is when the functions themselves have gone.
    pool.sql("alter schema commpool_api_1 rename to away")?;
    gone(&mut pool)?;
    why_not_ready(&mut pool, &["run `commpool-server migrate`"])?;
    pool.sql("alter schema away rename to commpool_api_1")?;
    pool.front_end_mut(0).until_ready()?;
    served_again(&pool).await?;
    pool.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_not_there_at_the_start() -> Result<()> {
    let mut pool = Pool::prepare(Setup { front_ends: 1, ..Setup::default() })?;
    pool.database.stop()?;
    pool.front_end_mut(0).launch()?;
    why_not_ready(&mut pool, &["database", "refused"])?;
    pool.database.start_again()?;
    pool.front_end_mut(0).until_ready()?;
    people_of_one(&pool).await?;
    pool.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_is_tried_again_is_still_one_front_end() -> Result<()> {
    let mut pool = Pool::prepare(Setup { front_ends: 1, ..Setup::default() })?;
    // The incarnation is there when its start fails.
    let right = "execute on function commpool_api_1.accounts_changed";
    pool.sql(&format!("revoke {right} from commpool_server"))?;
    pool.front_end_mut(0).launch()?;
    wait::until("a third attempt", Duration::from_secs(30), || {
        let attempts = pool.front_end(0).log().matches("does not serve yet").count();
        Ok((attempts >= 3).then_some(()))
    })?;
    pool.sql(&format!("grant {right} to commpool_server"))?;
    pool.front_end_mut(0).until_ready()?;
    let alive = pool.sql("select count(*) from commpool.front_end where dead_since is null")?;
    ensure!(alive.trim() == "1", "front ends that nobody runs: {alive}");
    people_of_one(&pool).await?;
    pool.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_certificate_is_not_of_our_authority() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::make(folder.path())?;
    let database = Settings { tls: Some(authority.leaf("IP:127.0.0.1")?), ..Settings::default() };
    let mut pool = Pool::prepare(Setup { front_ends: 1, database, ..Setup::default() })?;
    let trusted = pool.folder().join("database-ca.crt");
    std::fs::copy(pool.data().join("ca.crt"), &trusted)?;
    pool.front_end(0).edit("mode: off", &format!("mode: verify-full\n      caFile: {}", trusted.display()))?;
    pool.front_end_mut(0).launch()?;
    why_not_ready(&mut pool, &["certificate"])?;
    // The mend needs no restart.
    std::fs::copy(folder.path().join("ca.crt"), &trusted)?;
    pool.front_end_mut(0).until_ready()?;
    people_of_one(&pool).await?;
    pool.finish()
}

/// An authority for the database's certificate, made by openssl.
struct Authority<'a>(&'a Path);

impl<'a> Authority<'a> {
    fn make(folder: &'a Path) -> Result<Self> {
        let this = Self(folder);
        let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
        this.openssl(
            &[&new[..], &["-subj", "/CN=database authority", "-keyout", "ca.key", "-out", "ca.crt"]].concat(),
        )?;
        Ok(this)
    }

    /// Certificate and key for a name.
    fn leaf(&self, name: &str) -> Result<(String, String)> {
        let new =
            ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=database"];
        self.openssl(&[&new[..], &["-keyout", "leaf.key", "-out", "leaf.csr"]].concat())?;
        std::fs::write(self.0.join("names"), format!("subjectAltName={name}\nextendedKeyUsage=serverAuth\n"))?;
        let sign = ["x509", "-req", "-in", "leaf.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-days", "2"];
        self.openssl(&[&sign[..], &["-CAcreateserial", "-extfile", "names", "-out", "leaf.crt"]].concat())?;
        let read = |name: &str| std::fs::read_to_string(self.0.join(name));
        Ok((read("leaf.crt")?, read("leaf.key")?))
    }

    fn openssl(&self, arguments: &[&str]) -> Result<()> {
        output(Command::new("openssl").current_dir(self.0).args(arguments)).map(drop)
    }
}

async fn people_of_one(pool: &Pool) -> Result<()> {
    let alice = pool.signed_in("alice", 0, Transport::Tls).await?;
    expect(alice.say(&alice.aor(), "served after all").await?, 200)?;
    alice.hears("served after all").await.map(drop)
}

/// Each connection to the database looks again by itself, ten seconds after it found another schema.
async fn served_again(pool: &Pool) -> Result<()> {
    eventually("everything being served", async || Ok(people_of_one(pool).await.is_ok())).await
}
