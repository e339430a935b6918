//! What changed since a front end last asked.

use commpool_model::ids::{Micros, Version};

use super::Tables;
use super::presence::read;
use super::register::local;
use crate::ops::PresenceChange;
use crate::ops::pull::{Cursor, OVERLAP, Pull, Pulled};

pub(crate) fn pull<T: Tables>(tables: &mut T, now: Micros, request: Pull) -> Result<Pulled, T::Error> {
    let Some(cursor) = request.cursor else {
        return Ok(Pulled { cursor: request.next(now, None), changes: Vec::new(), more: false });
    };
    let limit = request.limit as usize;
    let mut heads = tables.heads_watched(request.fe, Version(cursor.after), limit + 1)?;
    let more = heads.len() > limit;
    heads.truncate(limit);
    let cursor = request.next(now, heads.last().map(|(_, last)| *last).filter(|_| more));
    let mut changes = Vec::with_capacity(heads.len());
    for (user, version) in heads {
        let state = read(tables, now, user)?;
        changes.push(PresenceChange { user: Some(local(user)), state, version, interest: vec![request.fe] });
    }
    Ok(Pulled { cursor, changes, more })
}

impl Pull {
    /// Where the next pull begins; `last`: the last version of a page that more come after.
    pub(crate) fn next(&self, now: Micros, last: Option<Version>) -> Cursor {
        let began = self.cursor.and_then(|cursor| cursor.began).unwrap_or(now);
        match last {
            Some(last) => Cursor { after: last.0, began: Some(began) },
            None => Cursor { after: began.0.saturating_sub(OVERLAP * 1_000_000), began: None },
        }
    }
}
