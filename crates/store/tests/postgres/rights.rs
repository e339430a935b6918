//! Who may do what: front end and replicator call their functions and nothing else.

use std::collections::BTreeSet;

use commpool_harness::postgres::Settings;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, Row, raw_sql};

use crate::pool::{NAME, superuser, with_cluster};

async fn texts(connection: &mut PgConnection, query: &'static str) -> BTreeSet<String> {
    let rows = sqlx::query(query).fetch_all(connection).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Functions that a front end calls.
const CALLED: &[&str] = &[
    "account_put",
    "accounts_changed",
    "accounts_page",
    "adopt",
    "assert",
    "credential_put",
    "credential_revoke",
    "credentials",
    "endpoints_find",
    "expire",
    "flows_lost",
    "flush",
    "front_end_start",
    "front_end_stop",
    "front_ends",
    "health",
    "hello",
    "presence_of",
    "publish",
    "pull",
    "reap",
    "register",
    "renew",
    "replan",
    "route",
    "subscribe",
    "sweep_lost",
    "timers",
    "unregister",
    "unsubscribe",
    "unwatch",
];

/// Functions that a replicator calls.
const REPLICATED: &[&str] = &[
    "address_holders",
    "apply",
    "health",
    "hello",
    "lease_keep",
    "lease_take",
    "replan",
    "source_get",
    "source_users",
    "stage",
];

#[test]
fn the_catalogue_says_who_may_call_what() {
    with_cluster("the catalogue", &Settings::default(), |cluster| async move {
        let mut connection = superuser(&cluster).await;
        let by_front_ends = "select proname::text from pg_proc where pronamespace = 'commpool_api_1'::regnamespace
                             and has_function_privilege('commpool_server', oid, 'execute')";
        let by_replicators = "select proname::text from pg_proc where pronamespace = 'commpool_api_1'::regnamespace
                              and has_function_privilege('commpool_replicator', oid, 'execute')";
        for (callable, names) in [(by_front_ends, CALLED), (by_replicators, REPLICATED)] {
            let expected: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(texts(&mut connection, callable).await, expected);
        }
        let wrong = [
            // What others call runs as the owner, and finds nothing but what it names.
            "select proname::text from pg_proc where pronamespace = 'commpool_api_1'::regnamespace
             and (has_function_privilege('commpool_server', oid, 'execute')
                  or has_function_privilege('commpool_replicator', oid, 'execute'))
             and not (prosecdef and proconfig = '{\"search_path=pg_catalog, pg_temp\"}')",
            // Nobody else calls anything.
            "select p.proname::text from pg_proc p, lateral aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
             where p.pronamespace = 'commpool_api_1'::regnamespace
             and a.grantee not in ('commpool_owner'::regrole, 'commpool_server'::regrole, 'commpool_replicator'::regrole)",
            "select proname::text from pg_proc where pronamespace = 'commpool_api_1'::regnamespace
             and proowner <> 'commpool_owner'::regrole",
            // Two of one name would be called by chance.
            "select proname::text from pg_proc where pronamespace = 'commpool_api_1'::regnamespace
             group by proname having count(*) > 1",
            // Tables and views are the owner's alone.
            "select c.relname::text from pg_class c, lateral aclexplode(c.relacl) a
             where c.relnamespace in ('commpool'::regnamespace, 'commpool_api_1'::regnamespace)
             and a.grantee <> 'commpool_owner'::regrole",
            "select relname::text from pg_class
             where relnamespace in ('commpool'::regnamespace, 'commpool_api_1'::regnamespace)
             and relowner <> 'commpool_owner'::regrole",
            // Schemas are not for everybody.
            "select nspname::text from pg_namespace, lateral aclexplode(nspacl) a
             where nspname like 'commpool%' and a.grantee not in
                 ('commpool_owner'::regrole, 'commpool_server'::regrole, 'commpool_replicator'::regrole)",
            "select nspname::text from pg_namespace, lateral aclexplode(nspacl) a
             where nspname like 'commpool%' and a.grantee <> 'commpool_owner'::regrole
             and (a.privilege_type <> 'USAGE' or nspname <> 'commpool_api_1')",
            // Whose rows are kept or not, by their tables.
            "select relname::text from pg_class where relnamespace = 'commpool'::regnamespace and relkind = 'r'
             and (relpersistence = 'u') <> (relname in ('boot', 'incoming'))",
        ];
        for query in wrong {
            assert_eq!(texts(&mut connection, query).await, BTreeSet::new(), "{query}");
        }
    });
}

#[test]
fn a_login_reaches_no_table_and_nothing_of_the_others() {
    with_cluster("rights of logins", &Settings::default(), |cluster| async move {
        let mut owner = superuser(&cluster).await;
        let things = "select quote_ident(nspname) || '.' || quote_ident(relname) from pg_class c
                      join pg_namespace n on n.oid = c.relnamespace
                      where nspname like 'commpool%' and relkind in ('r', 'v', 'S')";
        let things = texts(&mut owner, things).await;
        assert!(things.len() > 12, "{things:?}");
        for (login, others) in
            [("pool_server", "lease_take('directory', 'me', 1)"), ("pool_replicator", "front_ends()")]
        {
            let options = PgConnectOptions::new_without_pgpass()
                .host(cluster.host())
                .port(cluster.port())
                .database(NAME)
                .username(login)
                .password(crate::database::PASSWORD);
            let mut connection = options.connect().await.unwrap();
            let mut attempts: Vec<String> = things.iter().map(|thing| format!("select * from {thing}")).collect();
            attempts.extend(ATTEMPTS.iter().map(|attempt| (*attempt).to_owned()));
            attempts.push(format!("select commpool_api_1.{others}"));
            attempts.push(format!("alter function commpool_api_1.hello(text) owner to {login}"));
            for attempt in attempts {
                let error = raw_sql(AssertSqlSafe(attempt.as_str())).execute(&mut connection).await.unwrap_err();
                let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned();
                assert_eq!(code, "42501", "{login}: {attempt}: {error}");
            }
            let asked = sqlx::query("select offered from commpool_api_1.hello('x')").fetch_one(&mut connection).await;
            assert!(!asked.unwrap().get::<bool, _>(0));
        }
    });
}

const ATTEMPTS: &[&str] = &[
    "delete from commpool.account",
    "create table commpool.mine (n int)",
    "create table public.mine (n int)",
    "create temporary table mine (n int)",
    "create function commpool_api_1.mine() returns int language sql return 1",
    "select commpool_api_1.clock()",
    "select commpool_api_1.bury(1, 1)",
    "select commpool_api_1.remove_users('{1}')",
    "set role commpool_owner",
];
