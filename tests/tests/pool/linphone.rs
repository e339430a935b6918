//! Two Linphones, each on a front end of its own.

use anyhow::{Result, ensure};
use commpool_tests::link::Transport;
use commpool_tests::linphone::{Account, Linphone, talk_and_leave};
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
    let (alice, bob) = (phone(&pool, "alice", 0, transport).await?, phone(&pool, "bob", 1, transport).await?);
    let (her, him) = (pool.aor("alice"), pool.aor("bob"));
    talk_and_leave((alice, &her), (bob, &him)).await?;
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
