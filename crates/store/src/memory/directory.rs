//! Users from a directory: leases, sources, who came from where, and what was put aside.

use std::convert::Infallible;
use std::ops::Bound;

use commpool_model::ids::{Key128, UserId};

use super::Memory;
use crate::engine::directory::Directory;
use crate::rows::{KnownRow, LeaseRow, StagedRow};

impl Memory {
    fn known_row(&self, key: Key128, (user, fingerprint): (UserId, Key128)) -> Option<KnownRow> {
        self.accounts.get(&user).map(|account| KnownRow { key, fingerprint, account: account.clone() })
    }
}

/// One end of a range of sources and their keys.
type End = Bound<(String, Key128)>;

/// Every key of a source behind another.
fn behind(source: &str, after: Option<Key128>) -> (End, End) {
    let source = source.to_owned();
    let last = Bound::Included((source.clone(), Key128([u8::MAX; 16])));
    match after {
        Some(key) => (Bound::Excluded((source, key)), last),
        None => (Bound::Included((source, Key128([0; 16]))), last),
    }
}

impl Directory for Memory {
    fn lease(&mut self, name: &str) -> Result<Option<LeaseRow>, Infallible> {
        Ok(self.leases.get(name).cloned())
    }

    fn put_lease(&mut self, name: &str, row: &LeaseRow) -> Result<(), Infallible> {
        self.leases.insert(name.to_owned(), row.clone());
        Ok(())
    }

    fn source(&mut self, source: &str) -> Result<Option<(u64, Vec<u8>)>, Infallible> {
        Ok(self.sources.get(source).cloned())
    }

    fn put_source(&mut self, source: &str, version: u64, state: &[u8]) -> Result<(), Infallible> {
        self.sources.insert(source.to_owned(), (version, state.to_vec()));
        Ok(())
    }

    fn users_from(&mut self, source: &str) -> Result<u64, Infallible> {
        Ok(self.identities.range(behind(source, None)).count() as u64)
    }

    fn known(&mut self, source: &str, key: Key128) -> Result<Option<KnownRow>, Infallible> {
        let identity = self.identities.get(&(source.to_owned(), key)).copied();
        Ok(identity.and_then(|identity| self.known_row(key, identity)))
    }

    fn known_after(&mut self, source: &str, after: Option<Key128>, limit: usize) -> Result<Vec<KnownRow>, Infallible> {
        let range =
            after.is_none_or(|after| after.0 != [u8::MAX; 16]).then(|| self.identities.range(behind(source, after)));
        let rows = range.into_iter().flatten().filter_map(|((_, key), identity)| self.known_row(*key, *identity));
        Ok(rows.take(limit).collect())
    }

    fn origin_of(&mut self, user: UserId) -> Result<Option<(String, Key128)>, Infallible> {
        Ok(self.origins.get(&user).cloned())
    }

    fn put_origin(&mut self, user: UserId, source: &str, key: Key128, fingerprint: Key128) -> Result<(), Infallible> {
        self.identities.insert((source.to_owned(), key), (user, fingerprint));
        self.origins.insert(user, (source.to_owned(), key));
        Ok(())
    }

    fn clear_staged(&mut self, source: &str) -> Result<(), Infallible> {
        self.staged.retain(|(of, _), _| of != source);
        Ok(())
    }

    fn put_staged(&mut self, source: &str, row: &StagedRow) -> Result<(), Infallible> {
        self.staged.insert((source.to_owned(), row.number), row.clone());
        Ok(())
    }

    fn staged(&mut self, source: &str) -> Result<Vec<StagedRow>, Infallible> {
        let rows = self.staged.range((source.to_owned(), 0)..=(source.to_owned(), u32::MAX));
        Ok(rows.map(|(_, row)| row.clone()).collect())
    }
}
