//! Values of ours as the database takes them.

use commpool_model::ids::{EndpointId, Incarnation, Key128, Micros, Origin, UserId};
use sqlx::types::Uuid;

/// A number as the database keeps it; what does not fit is as good as for ever.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Milliseconds that the database multiplies: some three hundred years at most.
pub(super) fn ms(number: u64) -> i64 {
    int(number.min(10_000_000_000_000))
}

pub(super) fn user(user: UserId) -> i64 {
    int(user.0)
}

/// An endpoint id: the same 64 bits.
pub(super) const fn bits(id: EndpointId) -> i64 {
    id.0.cast_signed()
}

/// A front end: the same 32 bits.
pub(super) const fn fe(fe: Incarnation) -> i32 {
    fe.0.cast_signed()
}

/// A flow's serial number: the same 32 bits.
pub(super) const fn serial(serial: u32) -> i32 {
    serial.cast_signed()
}

pub(super) fn small(number: u16) -> i16 {
    i16::try_from(number).unwrap_or(i16::MAX)
}

pub(super) const fn uuid(key: Key128) -> Uuid {
    Uuid::from_bytes(key.0)
}

pub(super) const fn origin(origin: Origin) -> Uuid {
    Uuid::from_bytes(origin.0)
}

/// Number of a request or a place in it, from 1 as the database counts.
pub(super) fn place(n: usize) -> i32 {
    i32::try_from(n + 1).unwrap_or(i32::MAX)
}

pub(super) const fn micros(number: i64) -> Micros {
    Micros(number.cast_unsigned())
}

/// A column of the requests.
pub(super) fn column<'a, R, T>(requests: &[&'a R], of: impl Fn(&'a R) -> T) -> Vec<T> {
    requests.iter().map(|request| of(request)).collect()
}
