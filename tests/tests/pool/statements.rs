//! What requests cost the database: calls of functions only, and at most one for each request.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use commpool_harness::command::say;
use commpool_harness::postgres::Settings;
use commpool_tests::client::expect;
use commpool_tests::link::Transport;
use commpool_tests::pool::{Pool, Setup};

/// Requests of each kind.
const REQUESTS: u64 = 100;

/// What the front ends' login has asked so far: function and calls.
fn asked(pool: &Pool) -> Result<BTreeMap<String, u64>> {
    let rows = pool.sql(
        "select regexp_replace(s.query, '[\\n|]', ' ', 'g') || '|' || s.calls from pg_stat_statements s \
         join pg_roles r on r.oid = s.userid where r.rolname = 'pool_server'",
    )?;
    let mut asked = BTreeMap::new();
    for row in rows.lines() {
        let (query, calls) = row.rsplit_once('|').context("no row of two columns")?;
        let (_, after) = query.split_once(" commpool_api_1.").with_context(|| format!("no function call: {query}"))?;
        ensure!(query.starts_with("select "), "no function call: {query}");
        let function = after.split('(').next().unwrap_or_default();
        *asked.entry(function.to_owned()).or_default() += calls.parse::<u64>()?;
    }
    Ok(asked)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_one_call_of_a_function() -> Result<()> {
    let lines = ["shared_preload_libraries = 'pg_stat_statements'", "pg_stat_statements.track = top"];
    let database = Settings { lines: lines.map(str::to_owned).to_vec(), ..Settings::default() };
    let pool = Pool::with(Setup { database, ..Setup::default() })?;
    let alice = pool.signed_in("alice", 0, Transport::Tcp).await?;
    let bob = pool.signed_in("bob", 1, Transport::Tcp).await?;
    pool.sql("create extension pg_stat_statements; select pg_stat_statements_reset()")?;
    for n in 0..REQUESTS {
        expect(alice.exchange(alice.register(3600)).await?, 200)?;
        expect(alice.say(&bob.aor(), &format!("number {n}")).await?, 200)?;
        alice.publish("open", Some(if n % 2 == 0 { "busy" } else { "away" }), None, None).await?;
    }
    let asked = asked(&pool)?;
    say(&format!("{asked:?}"));
    let of = |function: &str| asked.get(function).copied().unwrap_or_default();
    for function in ["register", "route", "publish"] {
        let calls = of(function);
        ensure!((1..=REQUESTS).contains(&calls), "{function} was called {calls} times for {REQUESTS} requests");
    }
    // The rest is not of requests: leases and pulls by the clock, and credentials, which were known.
    let by_the_clock = ["renew", "pull", "accounts_changed", "sweep_lost", "flush", "hello"];
    let other: Vec<_> = asked
        .iter()
        .filter(|(name, _)| !["register", "route", "publish"].contains(&name.as_str()))
        .filter(|(name, _)| !by_the_clock.contains(&name.as_str()))
        .collect();
    ensure!(other.is_empty(), "further calls: {other:?}");
    pool.finish()
}
