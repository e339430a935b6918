//! Tag, length, value: how the fields of a frame are written.
//!
//! A field is a tag octet, a 32-bit length and its octets. A tag with [`OPTIONAL`] may be unknown to its reader and is
//! skipped then; any other unknown tag makes the frame unreadable.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

/// Bit of tags that a reader may skip.
pub(super) const OPTIONAL: u8 = 0x80;

/// Why a frame cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unreadable {
    /// It ends inside a field, or a field has the wrong length.
    #[error("a field is cut or of the wrong length")]
    Cut,
    /// A field that must be there is not.
    #[error("a field is missing")]
    Missing,
    /// A field that must be understood is not known.
    #[error("a field is not known")]
    UnknownField,
    /// A value is out of its range.
    #[error("a value is out of its range")]
    Range,
}

/// Writes fields.
#[derive(Debug, Default)]
pub(super) struct Writer(BytesMut);

impl Writer {
    pub(super) fn octets(&mut self, tag: u8, value: &[u8]) {
        self.0.put_u8(tag);
        self.0.put_u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.0.put_slice(value);
    }

    pub(super) fn text(&mut self, tag: u8, value: &str) {
        self.octets(tag, value.as_bytes());
    }

    pub(super) fn number(&mut self, tag: u8, value: u64) {
        self.octets(tag, &value.to_be_bytes());
    }

    /// A group of fields as one field.
    pub(super) fn group(&mut self, tag: u8, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        fill(&mut inner);
        self.octets(tag, &inner.0);
    }

    pub(super) fn finish(self) -> BytesMut {
        self.0
    }
}

/// Fields as they were read.
#[derive(Clone, Debug)]
pub(super) struct Fields(Vec<(u8, Bytes)>);

impl Fields {
    /// Reads all fields; those the reader does not know must be optional.
    pub(super) fn read(mut octets: Bytes, known: &[u8]) -> Result<Self, Unreadable> {
        let mut fields = Vec::new();
        while octets.has_remaining() {
            if octets.len() < 5 {
                return Err(Unreadable::Cut);
            }
            let tag = octets.get_u8();
            let length = octets.get_u32() as usize;
            if length > octets.len() {
                return Err(Unreadable::Cut);
            }
            let value = octets.split_to(length);
            if known.contains(&tag) {
                fields.push((tag, value));
            } else if tag & OPTIONAL == 0 {
                return Err(Unreadable::UnknownField);
            }
        }
        Ok(Self(fields))
    }

    /// All values of a tag, in order.
    pub(super) fn all(&self, tag: u8) -> impl Iterator<Item = Bytes> {
        self.0.iter().filter(move |(t, _)| *t == tag).map(|(_, value)| value.clone())
    }

    pub(super) fn maybe(&self, tag: u8) -> Option<Bytes> {
        self.all(tag).next()
    }

    pub(super) fn octets(&self, tag: u8) -> Result<Bytes, Unreadable> {
        self.maybe(tag).ok_or(Unreadable::Missing)
    }

    pub(super) fn text(&self, tag: u8) -> Result<String, Unreadable> {
        text(&self.octets(tag)?)
    }

    pub(super) fn number(&self, tag: u8) -> Result<u64, Unreadable> {
        number(&self.octets(tag)?)
    }

    pub(super) fn key(&self, tag: u8) -> Result<[u8; 16], Unreadable> {
        self.octets(tag)?.as_ref().try_into().map_err(|_| Unreadable::Cut)
    }
}

pub(super) fn text(value: &[u8]) -> Result<String, Unreadable> {
    std::str::from_utf8(value).map(str::to_owned).map_err(|_| Unreadable::Range)
}

pub(super) fn number(value: &[u8]) -> Result<u64, Unreadable> {
    value.try_into().map(u64::from_be_bytes).map_err(|_| Unreadable::Cut)
}

/// A number that must fit a smaller type.
pub(super) fn narrow<T: TryFrom<u64>>(value: u64) -> Result<T, Unreadable> {
    T::try_from(value).map_err(|_| Unreadable::Range)
}
