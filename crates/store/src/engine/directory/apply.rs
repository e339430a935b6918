//! All rows of a run at once: who gets which address, then the writes.

use std::collections::BTreeMap;

use commpool_model::ids::{Key128, Micros, UserId};

use super::holds;
use crate::engine::Tables;
use crate::engine::accounts::next_stamp;
use crate::ops::accounts::State;
use crate::ops::directory::{Applied, Apply, Card, Change};
use crate::rows::{AccountRow, KnownRow, StagedRow};

/// Keys told at most of those that did not get their address.
const REFUSED: usize = 1000;
/// Tells the next run that a user is not as he should be.
const UNSETTLED: Key128 = Key128([0; 16]);

/// Changes of known users and new ones by key, with what was there before.
type Steps = BTreeMap<Key128, (Change, Option<KnownRow>)>;

pub(crate) fn apply<T: Tables>(tables: &mut T, now: Micros, request: &Apply) -> Result<Applied, T::Error> {
    let source = request.source.as_str();
    if !holds(tables, source, request.token)? {
        return Ok(Applied::Fenced);
    }
    let (version, _) = tables.source(source)?.unwrap_or_default();
    if version != request.version {
        return Ok(Applied::Moved);
    }
    let Some(changes) = complete(tables.staged(source)?, request) else { return Ok(Applied::Incomplete) };
    let mut steps = Steps::new();
    for (key, change) in changes {
        let old = tables.known(source, key)?;
        if concerns_anybody(&change, old.as_ref()) {
            steps.insert(key, (change, old));
        }
    }
    let addresses = Addresses::settle(tables, source, &steps)?;
    let mut refused = Vec::new();
    write(tables, now, source, steps, addresses, &mut refused)?;
    refused.truncate(REFUSED);
    tables.clear_staged(source)?;
    let version = version.saturating_add(1);
    tables.put_source(source, version, &request.state)?;
    Ok(Applied::Done { version, refused })
}

/// The rows by key, if they are all there and this run's.
fn complete(rows: Vec<StagedRow>, request: &Apply) -> Option<BTreeMap<Key128, Change>> {
    let expected = request.rows as usize;
    let in_place = (0..).zip(&rows).all(|(number, row)| row.number == number && row.token == request.token);
    if rows.len() != expected || !in_place {
        return None;
    }
    let by_key: BTreeMap<_, _> = rows.into_iter().map(|row| (row.change.key(), row.change)).collect();
    (by_key.len() == expected).then_some(by_key)
}

fn concerns_anybody(change: &Change, old: Option<&KnownRow>) -> bool {
    match change {
        Change::Put { .. } => true,
        Change::Lapse { .. } => old.is_some(),
        Change::Remove { .. } => old.is_some_and(|old| old.account.purge_at.is_some()),
    }
}

/// Who gets which address.
struct Addresses {
    /// Every address that somebody gets or keeps because he wants it.
    granted: BTreeMap<String, Key128>,
    /// Lapsed users beside the rows who lose theirs by that.
    freed: BTreeMap<Key128, AccountRow>,
}

impl Addresses {
    fn settle<T: Tables>(tables: &mut T, source: &str, steps: &Steps) -> Result<Self, T::Error> {
        let mut addresses = Self { granted: BTreeMap::new(), freed: BTreeMap::new() };
        for (address, (key, has_it)) in wanted(steps) {
            if has_it || addresses.is_free(tables, source, steps, address)? {
                addresses.granted.insert(address.to_owned(), key);
            }
        }
        Ok(addresses)
    }

    /// Whether an address that nobody who wants it has can be given; notes who loses it by that.
    fn is_free<T: Tables>(
        &mut self,
        tables: &mut T,
        source: &str,
        steps: &Steps,
        address: &str,
    ) -> Result<bool, T::Error> {
        let Some(holder) = tables.account_by_address(address)? else { return Ok(true) };
        let Some((_, key)) = tables.origin_of(holder.user)?.filter(|(of, _)| of == source) else { return Ok(false) };
        // Who has a row wants another address, none, or no service any more.
        let free = steps.contains_key(&key) || holder.purge_at.is_some();
        if free && !steps.contains_key(&key) {
            self.freed.insert(key, holder);
        }
        Ok(free)
    }

    /// The address of a user after the run, and whether it is not the one he wants.
    fn after(&self, key: Key128, wanted: Option<&String>, old: Option<&String>) -> (Option<String>, bool) {
        match wanted {
            Some(address) if self.granted.get(address) == Some(&key) => (Some(address.clone()), false),
            None => (None, false),
            Some(_) => (self.kept(old), true),
        }
    }

    /// What is left to somebody who has this address and does not want it, or gets no other.
    fn kept(&self, old: Option<&String>) -> Option<String> {
        old.filter(|address| !self.granted.contains_key(*address)).cloned()
    }
}

/// Addresses that are wanted, and by whom: who has it, else the lowest key; and whether he has it.
fn wanted(steps: &Steps) -> BTreeMap<&str, (Key128, bool)> {
    let mut wanted = BTreeMap::new();
    for (key, (change, old)) in steps {
        let Change::Put { address: Some(address), .. } = change else { continue };
        let has_it = old.as_ref().is_some_and(|old| old.account.address.as_ref() == Some(address));
        let claim = wanted.entry(address.as_str()).or_insert((*key, has_it));
        if has_it {
            *claim = (*key, true);
        }
    }
    wanted
}

/// An account as it is to be, and what was there before.
struct Written {
    key: Key128,
    row: AccountRow,
    old: Option<AccountRow>,
    /// Card and fingerprint, where they change.
    facts: Option<(Card, Key128)>,
}

impl Written {
    fn address_before(&self) -> Option<&String> {
        self.old.as_ref().and_then(|old| old.address.as_ref())
    }

    fn moves(&self) -> bool {
        self.address_before() != self.row.address.as_ref()
    }

    /// Whether the front ends must hear of it.
    fn is_told(&self) -> bool {
        self.moves() || self.old.as_ref().is_none_or(|old| old.state != self.row.state)
    }
}

fn write<T: Tables>(
    tables: &mut T,
    now: Micros,
    source: &str,
    steps: Steps,
    addresses: Addresses,
    refused: &mut Vec<Key128>,
) -> Result<(), T::Error> {
    let mut stamp = next_stamp(tables, now)?;
    let mut written = BTreeMap::new();
    for (key, (change, old)) in steps {
        let old = old.map(|old| old.account);
        match planned(key, change, old, &addresses) {
            Planned::Write(one) => drop(written.insert(key, one)),
            Planned::Refuse(one) => {
                refused.push(key);
                written.extend(one.map(|one| (key, one)));
            }
            Planned::Remove(user) => tables.remove_account(user)?,
        }
    }
    for (key, old) in addresses.freed {
        let row = AccountRow { address: None, ..old.clone() };
        written.insert(key, Written { key, row, old: Some(old), facts: None });
    }
    // An address may pass from one to the other: all are freed before any is given.
    for one in written.values().filter(|one| one.moves()) {
        if let Some(address) = one.address_before() {
            tables.free_address(address)?;
            tables.remove_verifiers(one.row.user)?;
        }
    }
    for mut one in written.into_values() {
        if one.is_told() {
            one.row.changed = stamp;
            stamp = stamp.saturating_add(1);
        }
        put(tables, source, &one)?;
    }
    Ok(())
}

enum Planned {
    Write(Written),
    /// The address is somebody else's; a new user is not made at all.
    Refuse(Option<Written>),
    Remove(UserId),
}

fn planned(key: Key128, change: Change, old: Option<AccountRow>, addresses: &Addresses) -> Planned {
    let before = || old.as_ref().and_then(|old| old.address.as_ref());
    match (change, &old) {
        (Change::Put { address, state, display_name, card, fingerprint, .. }, _) => {
            let (address, is_refused) = addresses.after(key, address.as_ref(), before());
            let (user, changed) = old.as_ref().map_or((UserId(0), 0), |old| (old.user, old.changed));
            let row = AccountRow { user, address, display_name, state, changed, purge_at: None };
            let fingerprint = if is_refused { UNSETTLED } else { fingerprint };
            let written = Written { key, row, old, facts: Some((card, fingerprint)) };
            match is_refused {
                true => Planned::Refuse(Some(written).filter(|written| written.old.is_some())),
                false => Planned::Write(written),
            }
        }
        (Change::Lapse { purge_at, .. }, Some(of)) => {
            let address = addresses.kept(before());
            let row = AccountRow { address, state: State::Disabled, purge_at: Some(purge_at), ..of.clone() };
            Planned::Write(Written { key, row, old, facts: None })
        }
        (Change::Remove { .. }, Some(of)) => Planned::Remove(of.user),
        // Rows without a user were left out.
        (Change::Lapse { .. } | Change::Remove { .. }, None) => Planned::Refuse(None),
    }
}

fn put<T: Tables>(tables: &mut T, source: &str, one: &Written) -> Result<(), T::Error> {
    let user = match &one.old {
        None => tables.add_account(&one.row)?,
        Some(_) => {
            tables.update_account(&one.row)?;
            if let Some(address) = one.row.address.as_ref().filter(|_| one.moves()) {
                tables.give_address(address, one.row.user)?;
            }
            one.row.user
        }
    };
    if let Some((card, fingerprint)) = &one.facts {
        tables.put_card(user, card)?;
        tables.put_origin(user, source, one.key, *fingerprint)?;
    }
    Ok(())
}
