//! Two Linphones, each on a front end of its own.

use anyhow::{Result, ensure};
use commpool_tests::link::Transport;
use commpool_tests::linphone::{Account, Linphone, PATIENCE};
use commpool_tests::pool::Pool;

async fn phone(pool: &Pool, user: &str, at: usize, transport: Transport) -> Result<Linphone> {
    let folder = pool.folder().join(format!("{user}-{transport}"));
    let account = Account::new(&pool.identity(user)?, &pool.target(at, transport), &folder)?;
    let mut phone = Linphone::start(&account, &[]).await?;
    phone.sign_in().await?;
    let (is, expected) = (pool.where_is(user)?, pool.incarnation(at)?);
    ensure!(is == [expected], "{user} is at {is:?} and not at {expected}");
    Ok(phone)
}

async fn conversation(transport: Transport) -> Result<()> {
    let pool = Pool::start()?;
    let (mut alice, mut bob) = (phone(&pool, "alice", 0, transport).await?, phone(&pool, "bob", 1, transport).await?);
    let (her, him) = (pool.aor("alice"), pool.aor("bob"));
    alice.watch(&him).await?;
    bob.watch(&her).await?;
    alice.sees(&him, "open", None, PATIENCE).await?;
    bob.sees(&her, "open", None, PATIENCE).await?;
    alice.say(&him, "hello over there", "a1").await?;
    bob.hears(&her, "hello over there").await?;
    bob.say(&her, "hello yourself", "b1").await?;
    alice.hears(&him, "hello yourself").await?;
    ensure!(alice.outcome("a1").await?.starts_with("delivered"), "alice was not told");
    ensure!(bob.outcome("b1").await?.starts_with("delivered"), "bob was not told");
    alice.publish("open", "busy", Some("in a meeting")).await?;
    bob.sees(&her, "open", Some("busy"), PATIENCE).await?;
    bob.publish("open", "away", None).await?;
    alice.sees(&him, "open", Some("away"), PATIENCE).await?;
    alice.quit(false).await?;
    bob.sees(&her, "closed", None, PATIENCE).await?;
    bob.quit(false).await?;
    pool.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_talk_and_see_each_other_over_tls() -> Result<()> {
    conversation(Transport::Tls).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_talk_and_see_each_other_over_tcp() -> Result<()> {
    conversation(Transport::Tcp).await
}
