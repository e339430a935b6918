//! Passwords as Digest verifiers.

use commpool_model::ids::UserId;

use super::tables::Transaction;
use super::values::{Columns, int};
use crate::codes::{algorithm, of_algorithm};
use crate::engine::credentials::Credentials;
use crate::ops::credentials::Verifier;

impl Credentials for Transaction<'_> {
    fn labels(&mut self, user: UserId) -> rusqlite::Result<Vec<String>> {
        let sql = "select distinct label from credential where user_id = ?1 order by label";
        self.all(sql, [int(user.0)], |row| row.get(0))
    }

    fn verifiers(&mut self, user: UserId) -> rusqlite::Result<Vec<Verifier>> {
        let sql = "select algorithm, realm, verifier from credential where user_id = ?1 order by label, algorithm";
        self.all(sql, [int(user.0)], |row| {
            let mut columns = Columns::of(row);
            Ok(Verifier { algorithm: columns.code(algorithm)?, realm: columns.get()?, ha1: columns.get()? })
        })
    }

    fn put_verifier(&mut self, user: UserId, label: &str, verifier: &Verifier) -> rusqlite::Result<()> {
        let sql = "insert or replace into credential (user_id, label, algorithm, realm, verifier)
                   values (?1, ?2, ?3, ?4, ?5)";
        let row = (int(user.0), label, of_algorithm(verifier.algorithm), &verifier.realm, &verifier.ha1);
        self.execute(sql, row).map(drop)
    }

    fn remove_label(&mut self, user: UserId, label: &str) -> rusqlite::Result<()> {
        self.execute("delete from credential where user_id = ?1 and label = ?2", (int(user.0), label)).map(drop)
    }

    fn remove_verifiers(&mut self, user: UserId) -> rusqlite::Result<()> {
        self.execute("delete from credential where user_id = ?1", [int(user.0)]).map(drop)
    }
}
