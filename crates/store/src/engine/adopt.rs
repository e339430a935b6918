//! Dialogs that follow their endpoint to another front end, and what keeps their rows fresh.

use std::collections::BTreeSet;

use commpool_model::ids::Micros;

use super::Tables;
use super::subscribe::presentity;
use crate::ops::adopt::{ADOPTED, Adopt, Adopted, AdoptedDialog, Flush};
use crate::ops::subscribe::{CSEQ_STEP, Ended, OUTLIVES, Presentity};
use crate::rows::SubscriptionRow;

pub(crate) fn adopt<T: Tables>(tables: &mut T, now: Micros, request: &Adopt) -> Result<Adopted, T::Error> {
    if !tables.lives()?.alive(request.fe) {
        return Ok(Adopted::Gone);
    }
    let mut rows = tables.subscriptions_at(request.endpoint, now, request.after, ADOPTED + 1)?;
    let more = rows.len() > ADOPTED;
    rows.truncate(ADOPTED);
    let addresses: BTreeSet<&String> = rows.iter().flat_map(|row| &row.presentities).collect();
    let mut watched: Vec<(String, Presentity)> = Vec::with_capacity(addresses.len());
    for address in addresses {
        if let Some(account) = tables.account_by_address(address)? {
            watched.push((address.clone(), presentity(tables, now, &request.held, &account)?));
        }
    }
    let mut dialogs = Vec::with_capacity(rows.len());
    for row in rows {
        let owner_before = (row.fe != request.fe).then_some(row.fe);
        let row = if owner_before.is_some() { take_over(tables, request, row, &watched)? } else { row };
        let seconds_left = u32::try_from(now.millis_until(row.expires_at) / 1000).unwrap_or(u32::MAX);
        let SubscriptionRow { sub_id, kind, presentities, cseq, dialog, .. } = row;
        dialogs.push(AdoptedDialog { sub_id, kind, presentities, seconds_left, cseq, owner_before, dialog });
    }
    Ok(Adopted::Done { dialogs, watched, more })
}

fn take_over<T: Tables>(
    tables: &mut T,
    request: &Adopt,
    mut row: SubscriptionRow,
    watched: &[(String, Presentity)],
) -> Result<SubscriptionRow, T::Error> {
    for (_, presentity) in watched.iter().filter(|(address, _)| row.presentities.contains(address)) {
        tables.add_interest(presentity.user.id, request.fe, row.kind)?;
    }
    row.fe = request.fe;
    row.cseq = row.cseq.saturating_add(CSEQ_STEP).max(request.first_cseq);
    tables.put_subscription(&row)?;
    Ok(row)
}

pub(crate) fn flush<T: Tables>(tables: &mut T, now: Micros, request: &Flush) -> Result<Ended, T::Error> {
    if !tables.lives()?.alive(request.fe) {
        return Ok(Ended::Gone);
    }
    for new in &request.dialogs {
        let row = tables.subscription(new.watcher.id, new.sub_id)?;
        if let Some(mut row) = row.filter(|row| row.fe == request.fe) {
            row.expires_at = now.plus_seconds(u64::from(new.expires) * u64::from(OUTLIVES));
            row.cseq = row.cseq.max(new.cseq);
            tables.put_subscription(&row)?;
        }
    }
    Ok(Ended::Done)
}
