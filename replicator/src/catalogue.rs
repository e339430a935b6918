//! What the directory said and what the store knows, side by side in a temporary file, so that memory does not grow with
//! the number of users. The file has no name; it is gone with the process, however that ends.

use std::path::Path;
use std::sync::{Arc, Mutex};

use commpool_model::ids::{Key128, Micros};
use commpool_store::ops::accounts::State;
use commpool_store::ops::directory::{self, Card};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::fault::{Fault, Kind};
use crate::mapping::{Found, Verdict, Wanted};
use crate::plan::{Candidate, Case, Claim, Known};

// The indexes are there from the beginning, so that nothing is ever sorted: sorting would need memory, or more files.
const TABLES: &str = "
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA temp_store = MEMORY;
PRAGMA cache_size = -4096;
PRAGMA cache_spill = ON;
CREATE TABLE person (
    key BLOB PRIMARY KEY,
    dn TEXT, address TEXT, problem TEXT, enabled INTEGER, member INTEGER NOT NULL DEFAULT 0,
    display_name TEXT, phone TEXT, title TEXT, company TEXT, office TEXT, fingerprint BLOB,
    known_state INTEGER, known_address TEXT, known_fingerprint BLOB, purge_at INTEGER
) WITHOUT ROWID;
CREATE INDEX person_address ON person (address, key) WHERE address IS NOT NULL;
CREATE UNIQUE INDEX person_known_address ON person (known_address) WHERE known_address IS NOT NULL;
CREATE TABLE claim (address TEXT PRIMARY KEY, winner BLOB NOT NULL, stranger TEXT) WITHOUT ROWID;
BEGIN;";

const ADD: &str = "
INSERT INTO person (key, dn, address, problem, enabled, display_name, phone, title, company, office, fingerprint)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
ON CONFLICT (key) DO UPDATE SET dn = ?2, address = ?3, problem = ?4, enabled = ?5, display_name = ?6, phone = ?7,
    title = ?8, company = ?9, office = ?10, fingerprint = ?11";

const KNOW: &str = "
INSERT INTO person (key, known_state, known_address, known_fingerprint, purge_at) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (key) DO UPDATE SET known_state = ?2, known_address = ?3, known_fingerprint = ?4, purge_at = ?5";

const CASES: &str = "
SELECT p.key, p.dn, p.address, p.problem, p.enabled, p.member, p.display_name, p.phone, p.title, p.company, p.office,
    p.fingerprint, p.known_state, p.known_address, p.known_fingerprint, p.purge_at,
    own.winner AS winner, own.stranger AS stranger, (SELECT dn FROM person WHERE key = own.winner) AS rival,
    held.winner AS heir
FROM person AS p
LEFT JOIN claim AS own ON own.address = p.address
LEFT JOIN claim AS held ON held.address = p.known_address AND held.stranger IS NULL
WHERE p.key > ?1 ORDER BY p.key LIMIT ?2";

const UNKNOWN_CLAIMS: &str = "
SELECT address FROM claim AS c
WHERE address > ?1 AND NOT EXISTS (SELECT 1 FROM person WHERE known_address = c.address)
ORDER BY address LIMIT ?2";

/// The temporary file. Every method blocks.
pub struct Catalogue {
    file: Connection,
    grouped: bool,
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        let mend = "name a folder with room for it in TMPDIR";
        Self::new(Kind::Internal, format!("the temporary file cannot be used: {error}; {mend}"))
    }
}

impl Catalogue {
    /// An empty one in `folder`, or where the environment's TMPDIR says, else in `/tmp`. `grouped`: only members may sign
    /// in.
    ///
    /// # Errors
    /// There is no place for it.
    pub fn new(folder: Option<&Path>, grouped: bool) -> Result<Self, Fault> {
        let folder = folder.map_or_else(std::env::temp_dir, Path::to_owned);
        let place = tempfile::Builder::new().prefix("commpool-catalogue-").tempfile_in(&folder).map_err(|error| {
            let mend = "name a folder with room for it in TMPDIR";
            Fault::new(Kind::Internal, format!("no temporary file in {}: {error}; {mend}", folder.display()))
        })?;
        let file = Connection::open(place.path())?;
        // SQLite opens the file lazily: it must be open before it loses its name.
        file.execute_batch("PRAGMA journal_mode = OFF; CREATE TABLE first (x); DROP TABLE first;")?;
        drop(place);
        file.execute_batch(TABLES)?;
        Ok(Self { file, grouped })
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn clear(&mut self) -> Result<(), Fault> {
        Ok(self.file.execute_batch("DELETE FROM person; DELETE FROM claim;")?)
    }

    /// Adds entries. Of entries with one key the last counts; where `unique` is false, the one with the lowest name, and
    /// each of the others is told to `twins` with it. Returns how many keys were not there yet.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn add(&mut self, entries: &[Found], unique: bool, twins: &mut Vec<String>) -> Result<u64, Fault> {
        let mut new = 0;
        let mut there = self.file.prepare_cached("SELECT dn FROM person WHERE key = ?1")?;
        let mut add = self.file.prepare_cached(ADD)?;
        for found in entries {
            let other: Option<String> = there.query_row([&found.key.0[..]], |row| row.get(0)).optional()?;
            new += u64::from(other.is_none());
            if let Some(other) = other.filter(|other| !unique && *other != found.dn) {
                let (first, second) = if other < found.dn { (&other, &found.dn) } else { (&found.dn, &other) };
                let cut = |dn: &str| crate::text::shown(dn, 100);
                twins.push(format!("{} and {} have the same key; the first counts", cut(first), cut(second)));
                if other < found.dn {
                    continue;
                }
            }
            let (address, problem) = match &found.address {
                Wanted::Address(address) => (Some(address), None),
                Wanted::Unusable(problem) => (None, Some(problem)),
                Wanted::Nothing => (None, None),
            };
            let Card { phone, title, company, office } = &found.card;
            let (name, print) = (&found.display_name, &found.fingerprint.0[..]);
            add.execute(params![
                &found.key.0[..],
                found.dn,
                address,
                problem,
                found.enabled as u8,
                name,
                phone,
                title,
                company,
                office,
                print
            ])?;
        }
        Ok(new)
    }

    /// Notes members of the group; who is not there is passed over.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn add_members(&mut self, keys: &[Key128]) -> Result<u64, Fault> {
        let mut note = self.file.prepare_cached("UPDATE person SET member = 1 WHERE key = ?1 AND member = 0")?;
        let mut new = 0;
        for key in keys {
            new += note.execute([&key.0[..]])? as u64;
        }
        Ok(new)
    }

    /// Adds users that the store knows.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn add_known(&mut self, users: &[directory::Known]) -> Result<(), Fault> {
        let mut know = self.file.prepare_cached(KNOW)?;
        for user in users {
            let purge_at = user.purge_at.map(|at| i64::try_from(at.0).unwrap_or(i64::MAX));
            let (key, print) = (&user.key.0[..], &user.fingerprint.0[..]);
            know.execute(params![key, user.state as u8, user.address, print, purge_at])?;
        }
        Ok(())
    }

    /// Decides who gets which address, once all are there.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn settle(&mut self) -> Result<(), Fault> {
        let mut claimants = self.file.prepare(
            "SELECT address, key, enabled, member, known_state IS NOT NULL, address IS known_address
             FROM person INDEXED BY person_address WHERE address IS NOT NULL ORDER BY address, key",
        )?;
        let mut settle = self.file.prepare("INSERT INTO claim (address, winner) VALUES (?1, ?2)")?;
        let mut rows = claimants.query([])?;
        let mut best: Option<(String, Candidate)> = None;
        while let Some(row) = rows.next()? {
            let enabled = self.enabled(row.get(2)?, row.get(3)?);
            if !Candidate::asks(enabled, row.get(4)?) {
                continue;
            }
            let address: String = row.get(0)?;
            let candidate = Candidate { key: key(row, 1)?, holds: row.get(5)?, enabled: enabled == Verdict::Yes };
            best = match best {
                Some((at, winner)) if at == address => {
                    Some((at, if candidate.beats(&winner) { candidate } else { winner }))
                }
                other => {
                    if let Some((at, winner)) = other {
                        settle.execute(params![at, &winner.key.0[..]])?;
                    }
                    Some((address, candidate))
                }
            };
        }
        if let Some((at, winner)) = best {
            settle.execute(params![at, &winner.key.0[..]])?;
        }
        Ok(())
    }

    /// Addresses that somebody gets and that no known user has: at most `limit` after this one.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn unknown_claims(&self, after: &str, limit: u32) -> Result<Vec<String>, Fault> {
        let mut query = self.file.prepare_cached(UNKNOWN_CLAIMS)?;
        let addresses = query.query_map(params![after, limit], |row| row.get(0))?;
        Ok(addresses.collect::<Result<_, _>>()?)
    }

    /// Notes addresses that somebody from elsewhere has: each with who that is.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn add_strangers(&mut self, strangers: &[(String, String)]) -> Result<(), Fault> {
        let mut note = self.file.prepare_cached("UPDATE claim SET stranger = ?2 WHERE address = ?1")?;
        strangers.iter().try_for_each(|(address, who)| note.execute([address, who]).map(drop)).map_err(Fault::from)
    }

    /// Users in the order of their keys: at most `limit` after this one.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn cases(&self, after: Option<Key128>, limit: u32) -> Result<Vec<Case>, Fault> {
        let mut query = self.file.prepare_cached(CASES)?;
        let after = after.as_ref().map_or(&[][..], |key| &key.0[..]);
        let cases = query.query_map(params![after, limit], |row| self.case(row))?;
        Ok(cases.collect::<Result<_, _>>()?)
    }

    /// The entry's own word together with the group's.
    fn enabled(&self, stored: u8, member: bool) -> Verdict {
        match stored {
            1 if self.grouped && !member => Verdict::Unsaid,
            1 => Verdict::Yes,
            2 => Verdict::No,
            _ => Verdict::Unsaid,
        }
    }

    fn case(&self, row: &Row<'_>) -> Result<Case, rusqlite::Error> {
        let id = key(row, 0)?;
        let dn: Option<String> = row.get("dn")?;
        let found = dn.map(|dn| self.found(id, dn, row)).transpose()?;
        let state: Option<u8> = row.get("known_state")?;
        let known = state.map(|state| known(state, row)).transpose()?;
        let winner: Option<Vec<u8>> = row.get("winner")?;
        let heir: Option<Vec<u8>> = row.get("heir")?;
        let claim = match winner {
            None => Claim::Nobody,
            Some(_) if row.get::<_, Option<String>>("stranger")?.is_some() => Claim::Stranger(row.get("stranger")?),
            Some(winner) if winner == id.0 => Claim::Own,
            Some(_) => Claim::Rival(row.get::<_, Option<String>>("rival")?.unwrap_or_default()),
        };
        Ok(Case { key: id, found, known, claim, yields: heir.is_some_and(|heir| heir != id.0) })
    }

    fn found(&self, key: Key128, dn: String, row: &Row<'_>) -> Result<Found, rusqlite::Error> {
        let address = match (row.get("address")?, row.get("problem")?) {
            (Some(address), _) => Wanted::Address(address),
            (None, Some(problem)) => Wanted::Unusable(problem),
            (None, None) => Wanted::Nothing,
        };
        let card = Card {
            phone: row.get("phone")?,
            title: row.get("title")?,
            company: row.get("company")?,
            office: row.get("office")?,
        };
        Ok(Found {
            key,
            dn,
            address,
            enabled: self.enabled(row.get("enabled")?, row.get("member")?),
            display_name: row.get("display_name")?,
            card,
            fingerprint: key_of(&row.get::<_, Vec<u8>>("fingerprint")?),
        })
    }
}

fn known(state: u8, row: &Row<'_>) -> Result<Known, rusqlite::Error> {
    let purge_at: Option<i64> = row.get("purge_at")?;
    Ok(Known {
        address: row.get("known_address")?,
        state: match state {
            1 => State::On,
            2 => State::Disabled,
            _ => State::Removed,
        },
        fingerprint: key_of(&row.get::<_, Vec<u8>>("known_fingerprint")?),
        purge_at: purge_at.map(|at| Micros(at.unsigned_abs())),
    })
}

fn key(row: &Row<'_>, column: usize) -> Result<Key128, rusqlite::Error> {
    Ok(key_of(&row.get::<_, Vec<u8>>(column)?))
}

/// The 16 octets that were put in.
fn key_of(octets: &[u8]) -> Key128 {
    Key128(octets.first_chunk().copied().unwrap_or_default())
}

/// A catalogue that asynchronous code uses without blocking its thread.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Catalogue>>);

impl Shared {
    /// Around a catalogue.
    pub fn new(catalogue: Catalogue) -> Self {
        Self(Arc::new(Mutex::new(catalogue)))
    }

    /// Does something with the catalogue on a thread for such work.
    ///
    /// # Errors
    /// What `work` says, or it panicked.
    pub async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Catalogue) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let catalogue = Arc::clone(&self.0);
        let broken = || Fault::new(Kind::Internal, "a thread with the temporary file has panicked");
        let done = tokio::task::spawn_blocking(move || match catalogue.lock() {
            Ok(mut catalogue) => work(&mut catalogue),
            Err(_) => Err(broken()),
        });
        done.await.unwrap_or_else(|_| Err(broken()))
    }
}
