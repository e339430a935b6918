//! Bindings of one user.

use commpool_model::ids::{EndpointId, Origin, UserId};
use rusqlite::{Row, params};

use super::tables::Transaction;
use super::values::{Columns, bits, int};
use crate::codes::{joined, transport};
use crate::engine::register::Bindings;
use crate::ops::FlowRef;
use crate::rows::EndpointRow;

/// Columns of an endpoint in the order in which [`endpoint`] reads them.
macro_rules! endpoints {
    ($rest:literal) => {
        concat!(
            "select endpoint_id, binding_key, fe, serial, transport, remote, lost_at, expires_at, registered_at, ",
            "refreshed_at, origin, call_id, cseq, q, contact, contact_value, path, instance, reg_id, agent from endpoint ",
            $rest
        )
    };
}
pub(super) use endpoints;

pub(super) fn endpoint(row: &Row<'_>) -> rusqlite::Result<EndpointRow> {
    let mut columns = Columns::of(row);
    Ok(EndpointRow {
        id: columns.endpoint()?,
        key: columns.key()?,
        flow: FlowRef {
            fe: columns.fe()?,
            serial: columns.get()?,
            transport: columns.code(transport)?,
            remote: columns.get()?,
        },
        lost_at: columns.maybe_micros()?,
        expires_at: columns.micros()?,
        registered_at: columns.micros()?,
        refreshed_at: columns.micros()?,
        origin: columns.get().map(Origin)?,
        call_id: columns.get()?,
        cseq: columns.get()?,
        q: columns.get()?,
        contact: columns.get()?,
        contact_value: columns.get()?,
        path: columns.list()?,
        instance: columns.get()?,
        reg_id: columns.get()?,
        agent: columns.get()?,
    })
}

/// Changes a row that stays where the indexes have it.
const REFRESH: &str = "
    update endpoint set
        binding_key = ?3, serial = ?5, transport = ?6, remote = ?7, expires_at = ?9, registered_at = ?10, origin = ?11,
        call_id = ?12, cseq = ?13, q = ?14, contact = ?15, contact_value = ?16, path = ?17, instance = ?18,
        reg_id = ?19, agent = ?20, refreshed_at = ?21
    where user_id = ?1 and endpoint_id = ?2 and fe = ?4 and lost_at is ?8";

const REPLACE: &str = "
    insert or replace into endpoint
        (user_id, endpoint_id, binding_key, fe, serial, transport, remote, lost_at, expires_at, registered_at, origin,
         call_id, cseq, q, contact, contact_value, path, instance, reg_id, agent, refreshed_at)
    values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)";

impl Bindings for Transaction<'_> {
    fn endpoints_of(&mut self, user: UserId) -> rusqlite::Result<Vec<EndpointRow>> {
        self.all(endpoints!("where user_id = ?1 order by endpoint_id"), [int(user.0)], endpoint)
    }

    fn put_endpoint(&mut self, row: &EndpointRow) -> rusqlite::Result<()> {
        let flow = &row.flow;
        let parameters = params![
            int(row.id.user().0),
            bits(row.id),
            row.key.0,
            flow.fe.0,
            flow.serial,
            flow.transport as u8,
            flow.remote,
            row.lost_at.map(|at| int(at.0)),
            int(row.expires_at.0),
            int(row.registered_at.0),
            row.origin.0,
            row.call_id,
            row.cseq,
            row.q,
            row.contact,
            row.contact_value,
            joined(&row.path),
            row.instance,
            row.reg_id,
            row.agent,
            int(row.refreshed_at.0),
        ];
        // Most rows are refreshed where they are. To set a column anew writes its index anew, even to the same value.
        if self.execute(REFRESH, parameters)? == 0 {
            self.execute(REPLACE, parameters)?;
        }
        Ok(())
    }

    fn remove_endpoint(&mut self, id: EndpointId) -> rusqlite::Result<()> {
        let sql = "delete from endpoint where user_id = ?1 and endpoint_id = ?2";
        self.execute(sql, (int(id.user().0), bits(id))).map(drop)
    }
}
