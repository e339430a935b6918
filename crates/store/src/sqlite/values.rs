//! Rows of SQLite as values of ours and back.

use commpool_model::ids::{EndpointId, Incarnation, Key128, Micros, UserId};
use rusqlite::Row;
use rusqlite::types::Type;

use crate::codes::split;

/// A number as SQLite keeps it; what does not fit is as good as for ever.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// An endpoint id as SQLite keeps it: the same 64 bits.
pub(super) const fn bits(id: EndpointId) -> i64 {
    id.0.cast_signed()
}

/// Reads the columns of a row one after the other.
pub(super) struct Columns<'a> {
    row: &'a Row<'a>,
    next: usize,
}

impl<'a> Columns<'a> {
    pub(super) const fn of(row: &'a Row<'a>) -> Self {
        Self { row, next: 0 }
    }

    pub(super) fn get<T: rusqlite::types::FromSql>(&mut self) -> rusqlite::Result<T> {
        self.next += 1;
        self.row.get(self.next - 1)
    }

    pub(super) fn int(&mut self) -> rusqlite::Result<u64> {
        Ok(self.get::<i64>()?.cast_unsigned())
    }

    pub(super) fn user(&mut self) -> rusqlite::Result<UserId> {
        self.int().map(UserId)
    }

    pub(super) fn fe(&mut self) -> rusqlite::Result<Incarnation> {
        self.get().map(Incarnation)
    }

    pub(super) fn micros(&mut self) -> rusqlite::Result<Micros> {
        self.int().map(Micros)
    }

    pub(super) fn maybe_micros(&mut self) -> rusqlite::Result<Option<Micros>> {
        Ok(self.get::<Option<i64>>()?.map(|micros| Micros(micros.cast_unsigned())))
    }

    pub(super) fn endpoint(&mut self) -> rusqlite::Result<EndpointId> {
        self.int().map(EndpointId)
    }

    pub(super) fn maybe_endpoint(&mut self) -> rusqlite::Result<Option<EndpointId>> {
        Ok(self.get::<Option<i64>>()?.map(|bits| EndpointId(bits.cast_unsigned())))
    }

    pub(super) fn key(&mut self) -> rusqlite::Result<Key128> {
        self.get().map(Key128)
    }

    pub(super) fn list(&mut self) -> rusqlite::Result<Vec<String>> {
        self.get::<String>().map(|text| split(&text))
    }

    /// A number that stands for one of few values.
    pub(super) fn code<T>(&mut self, of: impl Fn(u8) -> Option<T>) -> rusqlite::Result<T> {
        let code: u8 = self.get()?;
        of(code).ok_or(rusqlite::Error::FromSqlConversionFailure(
            self.next - 1,
            Type::Integer,
            format!("{code} stands for nothing").into(),
        ))
    }
}
