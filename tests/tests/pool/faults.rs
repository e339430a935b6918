//! Front ends die, stand still, and lose sight of the database or of each other; judged by what clients saw.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use commpool_harness::command::say;
use commpool_tests::client::{Client, PATIENCE, eventually, expect, unique};
use commpool_tests::link::{Arrival, Transport};
use commpool_tests::packet::Packet;
use commpool_tests::pool::{Pool, Setup};
use commpool_tests::proxy::{Mode, Proxy};
use commpool_tests::roamer::Roamer;
use commpool_tests::watch::{Notice, Watch};

/// Senders to whom nobody answers learn it within this. (The machine may be busy: the promise is 2 s.)
const HONEST: Duration = Duration::from_secs(4);
/// Longer than a lease and the wait of those who reap.
const LEASE_AND_REAPING: Duration = Duration::from_secs(25);
/// Grace of presence after a lost flow.
const GRACE: Duration = Duration::from_secs(15);

/// A watch that has shown the friend as reachable.
async fn watching(watcher: &Client, friend: &str) -> Result<Watch> {
    let mut watch = watcher.watch(friend).await?;
    watcher.notice(&mut watch, "the first state", PATIENCE, Notice::is_open).await?;
    Ok(watch)
}

/// Nothing said that the friend was away, from the first to the last.
fn never_offline(watcher: &Roamer, watch: &mut Watch) -> Result<()> {
    watcher.notices(watch)?;
    ensure!(watch.ends == 0, "{} was told {} times that the friend was away", watcher.aor(), watch.ends);
    Ok(())
}

/// Both hear each other, each once.
async fn converse(one: &Roamer, other: &Roamer) -> Result<()> {
    for (from, to) in [(one, other), (other, one)] {
        let text = unique("after all ");
        let (answer, _) = from.say(&to.aor(), &text).await?;
        expect(answer, 200)?;
        ensure!(to.times_heard(&text)? == 1, "{} heard it {} times", to.aor(), to.times_heard(&text)?);
    }
    Ok(())
}

/// A final answer that is no success, in time, with Retry-After where it is a 5xx.
fn honest(answer: &Packet, took: Duration) -> Result<()> {
    let status = answer.status().context("no status")?;
    ensure!((400..600).contains(&status) && status != 408, "not honest:\n{answer}");
    ensure!(status < 500 || answer.header("Retry-After").is_some(), "5xx without Retry-After:\n{answer}");
    ensure!(took < HONEST, "only after {took:?}:\n{answer}");
    Ok(())
}

async fn timed(from: &Client, to: &str, text: &str) -> Result<(Packet, Duration)> {
    let start = Instant::now();
    Ok((from.say(to, text).await?, start.elapsed()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f1_a_front_end_is_killed() -> Result<()> {
    const DEVICES: usize = 8;
    let users: Vec<(String, String)> = (0..DEVICES).map(|n| (format!("user{n}"), unique("password"))).collect();
    let mut pool = Pool::with(Setup { users, ..Setup::default() })?;
    let alice = pool.roamer("alice", 0, Transport::Tls).await?;
    let stays_away = pool.signed_in("dave", 1, Transport::Tcp).await?;
    let (mut crowd, mut watches) = (Vec::new(), Vec::new());
    for n in 0..DEVICES {
        let roamer = pool.roamer(&format!("user{n}"), 1, [Transport::Tls, Transport::Tcp][n % 2]).await?;
        watches.push(watching(&alice.now(), &roamer.aor()).await?);
        crowd.push((watching(&roamer.now(), &alice.aor()).await?, roamer));
    }
    let mut lost = watching(&alice.now(), &stays_away.aor()).await?;

    let killed = Instant::now();
    pool.front_end_mut(1).kill()?;
    stays_away.link().closed(Duration::from_secs(1)).await?;
    let (answer, took) = timed(&alice.now(), &stays_away.aor(), "are you there?").await?;
    honest(&answer, took)?;
    for (_, roamer) in &crowd {
        roamer.came_back(1, Duration::from_secs(10)).await?;
    }
    let slowest = crowd.iter().filter_map(|(_, roamer)| roamer.returns().first().map(|back| back.took)).max();
    say(&format!("F1: {DEVICES} devices back, the slowest after {slowest:?}"));
    for (_, roamer) in &crowd {
        converse(&alice, roamer).await?;
    }
    // What they watch followed them, and nobody was told anything false.
    alice.now().publish("open", Some("meeting"), None, None).await?;
    for (watch, roamer) in &mut crowd {
        let told = roamer.sees(watch, "alice's change", PATIENCE, |notice| notice.is_doing("meeting")).await;
        told.with_context(|| format!("{} does not see alice any more", roamer.aor()))?;
        never_offline(roamer, watch)?;
    }
    for watch in &mut watches {
        never_offline(&alice, watch)?;
    }
    // Who stays away is away, but not before the grace is over.
    let gone = alice.sees(&mut lost, "dave's end", LEASE_AND_REAPING + GRACE, Notice::is_closed).await?;
    let after = gone.at.duration_since(killed);
    ensure!(after > GRACE - Duration::from_secs(1), "dave was gone after {after:?}, within the grace");
    say(&format!("F1: the one who stayed away was seen to be gone after {after:?}"));
    ensure!(pool.where_is("dave")?.is_empty(), "dave is still listed");
    for (_, roamer) in &crowd {
        ensure!(roamer.returns().len() == 1, "{} came back {:?}", roamer.aor(), roamer.returns());
    }
    pool.front_end_mut(1).start()?;
    let back = pool.signed_in("dave", 1, Transport::Tcp).await?;
    expect(alice.now().say(&back.aor(), "welcome back").await?, 200)?;
    back.hears("welcome back").await?;
    pool.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f2_a_front_end_stands_still() -> Result<()> {
    let mut pool = Pool::start()?;
    let alice = pool.roamer("alice", 0, Transport::Tls).await?;
    let bob = pool.roamer("bob", 1, Transport::Tls).await?;
    let carol = pool.signed_in("carol", 2, Transport::Tcp).await?;
    let mut watch = watching(&alice.now(), &bob.aor()).await?;
    let before = pool.incarnation(1)?;
    pool.front_end_mut(1).freeze()?;
    let frozen = Instant::now();
    let (answer, took) = timed(&alice.now(), &bob.aor(), "said into the ice").await?;
    honest(&answer, took)?;
    // What waits in its buffers is too old when it wakes up.
    let late = bob.now().message(&carol.aor(), "from the ice");
    bob.now().link().send(&late.octets()).await?;
    expect(alice.now().say(&carol.aor(), "the others go on").await?, 200)?;
    carol.hears("the others go on").await?;
    // Its lease ends, another reaps it, and the grace of presence ends.
    alice.sees(&mut watch, "bob's absence", LEASE_AND_REAPING + GRACE + PATIENCE, Notice::is_closed).await?;
    say(&format!("F2: bob is seen gone after {:?}", frozen.elapsed()));
    ensure!(pool.where_is("bob")?.is_empty(), "bob's endpoint outlived the lease");
    pool.front_end_mut(1).thaw()?;
    bob.came_back(1, PATIENCE).await?;
    eventually("a new incarnation", async || Ok(pool.incarnation(1).is_ok_and(|now| now != before))).await?;
    converse(&alice, &bob).await?;
    for text in ["said into the ice", "from the ice"] {
        ensure!(bob.times_heard(text)? == 0, "a zombie's delivery");
    }
    carol.link().none("a zombie's request", Duration::from_secs(1), |a| a.packet.text() == "from the ice").await?;
    alice.sees(&mut watch, "bob's return", PATIENCE, Notice::is_open).await?;
    pool.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f6_the_database_is_killed() -> Result<()> {
    let mut pool = Pool::start()?;
    let alice = pool.roamer("alice", 0, Transport::Tls).await?;
    let bob = pool.roamer("bob", 1, Transport::Tls).await?;
    let (mut hers, mut his) = (watching(&alice.now(), &bob.aor()).await?, watching(&bob.now(), &alice.aor()).await?);
    pool.database.kill9()?;
    for text in ["first into the void", "second into the void"] {
        let (answer, took) = timed(&alice.now(), &bob.aor(), text).await?;
        ensure!(answer.status() >= Some(500), "nobody is known to be away:\n{answer}");
        honest(&answer, took)?;
    }
    pool.database.start_again()?;
    let back = Instant::now();
    for (from, to) in [(&alice, &bob), (&bob, &alice)] {
        eventually("a MESSAGE that passes", async || {
            Ok(from.now().say(&to.aor(), &unique("again ")).await?.status() == Some(200))
        })
        .await?;
    }
    say(&format!("F6: normal {:?} after the database took connections", back.elapsed()));
    ensure!(back.elapsed() < Duration::from_secs(6), "normal only after {:?}", back.elapsed());
    converse(&alice, &bob).await?;
    // The crash lost soft rows; the front ends have said them again.
    eventually("rows of both", async || {
        let (a, b) = (pool.where_is("alice")?, pool.where_is("bob")?);
        Ok(a == [pool.incarnation(0)?] && b == [pool.incarnation(1)?])
    })
    .await?;
    bob.now().publish("open", Some("busy"), None, None).await?;
    alice.sees(&mut hers, "bob's change", PATIENCE, |notice| notice.is_doing("busy")).await?;
    never_offline(&alice, &mut hers)?;
    never_offline(&bob, &mut his)?;
    for roamer in [&alice, &bob] {
        ensure!(roamer.returns().is_empty(), "{} lost its connection", roamer.aor());
        ensure!(roamer.times_heard("first into the void")? == 0);
    }
    pool.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f9_one_front_end_is_cut_off_from_the_database() -> Result<()> {
    let mut pool = Pool::prepare(Setup::default())?;
    let database = format!("{}:{}", pool.database.host(), pool.database.port());
    let proxy = Proxy::to(database.parse()?).await?;
    let (real, hindered) = (pool.database.port(), proxy.address().port());
    pool.front_end(0).edit(&format!("port: {real}"), &format!("port: {hindered}"))?;
    pool.launch()?;
    let alice = pool.roamer("alice", 0, Transport::Tls).await?;
    let bob = pool.roamer("bob", 1, Transport::Tls).await?;
    let carol = pool.signed_in("carol", 2, Transport::Tcp).await?;
    let (mut hers, mut his) = (watching(&alice.now(), &bob.aor()).await?, watching(&bob.now(), &alice.aor()).await?);
    proxy.set(Mode::Hold);
    let cut = Instant::now();
    let (answer, took) = timed(&alice.now(), &bob.aor(), "with nobody to ask").await?;
    honest(&answer, took)?;
    ensure!(answer.status() == Some(500), "the others would not say so:\n{answer}");
    // She is still reached on her flow, by those who can ask.
    expect(bob.now().say(&alice.aor(), "can you hear me?").await?, 200)?;
    let (answer, took) = timed(&bob.now(), &carol.aor(), "the others go on").await?;
    expect(answer, 200)?;
    ensure!(took < Duration::from_secs(2), "the others are slow: {took:?}");
    alice.came_back(1, Duration::from_secs(40)).await?;
    let back = alice.returns()[0];
    say(&format!(
        "F9: shed {:?} after the cut, back {:?} later, attempts {}",
        back.lost - cut,
        back.took,
        back.attempts
    ));
    ensure!(back.lost - cut > Duration::from_secs(8), "shed too early: {:?}", back.lost - cut);
    converse(&alice, &bob).await?;
    ensure!(!pool.where_is("alice")?.contains(&pool.incarnation(0)?), "she came back where nothing can be asked");
    ensure!(!pool.front_end(0).is_ready(), "the VIP sends clients where nothing can be asked");
    never_offline(&alice, &mut hers)?;
    never_offline(&bob, &mut his)?;
    proxy.set(Mode::Pass);
    eventually("the front end being one of them again", async || {
        Ok(pool.device("dave", 0, Transport::Tcp, Default::default()).await?.sign_in().await.is_ok())
    })
    .await?;
    eventually("it being welcome to new clients", async || Ok(pool.front_end(0).is_ready())).await?;
    pool.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f10_two_front_ends_are_cut_off_from_each_other() -> Result<()> {
    let mut pool = Pool::prepare(Setup::default())?;
    let mut proxies = Vec::new();
    for n in 0..3 {
        let proxy = Proxy::to(pool.front_end(n).peers()).await?;
        let (dialled, real) = (proxy.address(), pool.front_end(n).peers());
        pool.front_end(n).edit(&format!("advertise: {real}"), &format!("advertise: {dialled}"))?;
        proxies.push(proxy);
    }
    pool.launch()?;
    let alice = pool.roamer("alice", 0, Transport::Tls).await?;
    let bob = pool.roamer("bob", 1, Transport::Tls).await?;
    let carol = pool.roamer("carol", 2, Transport::Tls).await?;
    let (mut hers, mut his) = (watching(&alice.now(), &bob.aor()).await?, watching(&bob.now(), &alice.aor()).await?);
    converse(&alice, &bob).await?;
    proxies[1].set_for(pool.front_end(0).pid()?, Mode::Hold);
    proxies[0].set_for(pool.front_end(1).pid()?, Mode::Hold);
    for (from, to) in [(&alice, &bob), (&bob, &alice), (&alice, &bob)] {
        let (answer, took) = timed(&from.now(), &to.aor(), "across the cut").await?;
        honest(&answer, took)?;
    }
    converse(&alice, &carol).await?;
    converse(&bob, &carol).await?;
    // Presence takes the way through the database.
    let changed = Instant::now();
    bob.now().publish("open", Some("busy"), None, None).await?;
    alice.sees(&mut hers, "bob's change", PATIENCE, |notice| notice.is_doing("busy")).await?;
    say(&format!("F10: presence was pulled after {:?}", changed.elapsed()));
    proxies.iter().for_each(|proxy| proxy.set(Mode::Pass));
    let healed = Instant::now();
    eventually("a MESSAGE that passes", async || {
        Ok(alice.now().say(&bob.aor(), &unique("healed ")).await?.status() == Some(200))
    })
    .await?;
    say(&format!("F10: healed after {:?}", healed.elapsed()));
    ensure!(healed.elapsed() < Duration::from_secs(6), "healed only after {:?}", healed.elapsed());
    converse(&alice, &bob).await?;
    never_offline(&alice, &mut hers)?;
    never_offline(&bob, &mut his)?;
    for roamer in [&alice, &bob, &carol] {
        ensure!(roamer.returns().is_empty(), "{} lost its connection", roamer.aor());
        let twice = |a: &Arrival| a.packet.text() == "across the cut";
        ensure!(roamer.history()?.iter().filter(|a| twice(a)).count() <= 1, "shown more than once");
    }
    pool.finish()
}
