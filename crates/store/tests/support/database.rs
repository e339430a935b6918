//! Databases of a PostgreSQL of our own: one server for the whole program, one database for each test, with a clock that
//! the test sets.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use commpool_harness::postgres::{Cluster, SUPERUSER, Settings, can_run};
use commpool_model::ids::Micros;
use commpool_store::Store;
use commpool_store::postgres::{Caller, Login, Logins, PostgresOptions, Tls, migrate};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, raw_sql};
use tokio::runtime::Runtime;

/// A migrated database whose functions take the time from a table.
const TEMPLATE: &str = "pool_template";
/// Logins of a front end, a replicator, and whoever migrates.
const SERVER: &str = "pool_server";
const REPLICATOR: &str = "pool_replicator";
const OWNER: &str = "pool_owner";
pub(crate) const PASSWORD: &str = "it's a secret";

const CLOCK: &str = "
    create table commpool.test_clock (now int8 not null);
    grant select on commpool.test_clock to commpool_owner;
    insert into commpool.test_clock values (0);
    -- The suite speaks for the replicator too.
    grant commpool_replicator to pool_server;
    create or replace function commpool_api_1.clock() returns int8 language sql volatile
    return (select c.now from commpool.test_clock c);
";

/// A database that goes with this value.
pub(crate) struct Database {
    name: String,
    runtime: Runtime,
    connection: Mutex<Option<PgConnection>>,
}

/// The server; `None`: it cannot be had here.
fn cluster() -> Option<&'static Cluster> {
    static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
    let start = || {
        can_run("the store on PostgreSQL").then(|| {
            let cluster = Cluster::start(&Settings::default()).unwrap();
            cluster.sql("postgres", &format!("create database {TEMPLATE}")).unwrap();
            runtime().block_on(prepare(&cluster, TEMPLATE));
            cluster.sql(TEMPLATE, CLOCK).unwrap();
            cluster
        })
    };
    CLUSTER.get_or_init(start).as_ref()
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Groups, logins and schema.
pub(crate) async fn prepare(cluster: &Cluster, database: &str) {
    let folder = tempfile::tempdir().unwrap();
    for (who, name) in [("owner", OWNER), ("server", SERVER), ("replicator", REPLICATOR)] {
        fs::write(folder.path().join(format!("{who}-username")), name).unwrap();
        fs::write(folder.path().join(format!("{who}-password")), PASSWORD).unwrap();
    }
    let logins = Logins::read(folder.path()).unwrap();
    let superuser = options(cluster, database, SUPERUSER, cluster.password());
    migrate(&superuser, Some(&logins)).await.unwrap();
}

/// How to reach a database of a server.
pub(crate) fn options(cluster: &Cluster, database: &str, user: &str, password: &str) -> PostgresOptions {
    PostgresOptions {
        host: cluster.host().to_owned(),
        port: cluster.port(),
        database: database.to_owned(),
        login: Login::Known(user.to_owned(), password.to_owned().into()),
        tls: Tls::Off,
        caller: Caller::FrontEnd,
    }
}

/// The same as a front end does.
pub(crate) fn as_server(cluster: &Cluster, database: &str) -> PostgresOptions {
    options(cluster, database, SERVER, PASSWORD)
}

/// The same as a replicator does.
pub(crate) fn as_replicator(cluster: &Cluster, database: &str) -> PostgresOptions {
    PostgresOptions { caller: Caller::Replicator, ..options(cluster, database, REPLICATOR, PASSWORD) }
}

/// The same as whoever migrates.
pub(crate) fn as_owner(cluster: &Cluster, database: &str) -> PostgresOptions {
    options(cluster, database, OWNER, PASSWORD)
}

/// A connection of the superuser.
pub(crate) async fn connect(cluster: &Cluster, database: &str) -> PgConnection {
    let options = PgConnectOptions::new_without_pgpass()
        .host(cluster.host())
        .port(cluster.port())
        .database(database)
        .username(SUPERUSER)
        .password(cluster.password())
        .ssl_mode(PgSslMode::Disable);
    options.connect().await.unwrap()
}

impl Database {
    /// A new one; `None`: there is no server here.
    pub(crate) fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let cluster = cluster()?;
        let name = format!("pool_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        cluster.sql("postgres", &format!("create database {name} template {TEMPLATE}")).unwrap();
        let runtime = runtime();
        let connection = Mutex::new(Some(runtime.block_on(connect(cluster, &name))));
        Some(Self { name, runtime, connection })
    }

    pub(crate) fn cluster(&self) -> &'static Cluster {
        cluster().expect("it was there when the database was made")
    }

    /// A store on it, as a front end opens it.
    pub(crate) fn store(&self) -> Store {
        Store::open_postgres(as_server(self.cluster(), &self.name)).unwrap()
    }

    /// A further connection of the superuser.
    pub(crate) async fn connect(&self) -> PgConnection {
        connect(self.cluster(), &self.name).await
    }

    /// Carries out statements as the superuser.
    pub(crate) fn run(&self, statements: &str) {
        let mut connection = self.connection.lock().unwrap();
        let connection = connection.as_mut().expect("it goes last");
        self.runtime.block_on(raw_sql(AssertSqlSafe(statements)).execute(connection)).unwrap();
    }

    /// As new.
    pub(crate) fn reset(&self) {
        self.run(
            "truncate commpool.front_end, commpool.account, commpool.address, commpool.credential, commpool.ace,
                 commpool.identity, commpool.source, commpool.lease, commpool.incoming, commpool.endpoint, commpool.publication, commpool.presence, commpool.interest, commpool.subscription;
             alter sequence commpool.incarnation restart; alter sequence commpool.user_number restart;
             update commpool.pool set last_change = 0;",
        );
    }

    pub(crate) fn set_clock(&self, now: Micros) {
        self.run(&format!("update commpool.test_clock set now = {}", now.0));
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        drop(self.connection.lock().map(|mut connection| connection.take()));
        // What is left of it goes with the server.
        let _ = self.cluster().sql("postgres", &format!("drop database {} with (force)", self.name));
    }
}
