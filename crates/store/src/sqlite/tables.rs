//! The tables as one transaction sees them.

use rusqlite::{Connection, Params, Row};

use crate::engine::Backend;
use crate::rows::Lives;

/// An open transaction.
pub(super) struct Transaction<'c> {
    connection: &'c Connection,
    pub(super) lives: Option<Lives>,
    doubtful: bool,
}

impl<'c> Transaction<'c> {
    /// `doubtful`: whether the transaction before failed.
    pub(super) const fn new(connection: &'c Connection, doubtful: bool) -> Self {
        Self { connection, lives: None, doubtful }
    }

    pub(super) fn execute(&self, sql: &str, parameters: impl Params) -> rusqlite::Result<usize> {
        self.connection.prepare_cached(sql)?.execute(parameters)
    }

    /// The first row, if any.
    pub(super) fn one<T>(
        &self,
        sql: &str,
        parameters: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(parameters)?;
        rows.next()?.map(read).transpose()
    }

    pub(super) fn all<T>(
        &self,
        sql: &str,
        parameters: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        self.connection.prepare_cached(sql)?.query_map(parameters, read)?.collect()
    }

    /// Gives row after row to a visitor until it breaks off.
    pub(super) fn visit<T>(
        &self,
        sql: &str,
        parameters: impl Params,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
        visit: crate::engine::accounts::Visit<'_, T>,
    ) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(parameters)?;
        while let Some(row) = rows.next()? {
            if visit(read(row)?).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Backend for Transaction<'_> {
    type Error = rusqlite::Error;

    fn probe(&mut self) -> rusqlite::Result<()> {
        // A transaction that could begin is proof enough, unless the one before could not end.
        if self.doubtful {
            self.execute("update pool set probes = probes + 1", [])?;
        }
        Ok(())
    }
}
