//! What a REGISTER does to a user's bindings (RFC 3261 §10.3, RFC 5626 §6): pure, all or none.
//!
//! The rules speak of sets, so that they hold for many requests at once in any language: every row is claimed by at most
//! one Contact, every Contact matches at most one row that it claims, and all is judged by the rows as they were before.

use std::collections::{BTreeMap, BTreeSet};

use commpool_model::ids::{EndpointId, Key128, Micros};

use crate::ops::FlowRef;
use crate::ops::register::{Binding, Change, Contacts, Request, Touched};
use crate::rows::{EndpointRow, Life, Lives};

/// Most endpoints of one user.
pub(crate) const ENDPOINTS: usize = 10;

/// Why nothing at all is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Older than what is stored.
    Stale,
    /// Too many endpoints would result.
    TooMany,
}

/// What is to be done.
#[derive(Debug)]
pub(super) struct Plan {
    /// Rows of the user afterwards, by endpoint id.
    pub(super) rows: Vec<EndpointRow>,
    /// Rows to remove.
    pub(super) removed: Vec<EndpointRow>,
    /// What happened to each Contact.
    pub(super) touched: Vec<Touched>,
    /// The same transaction had been carried out before.
    pub(super) replay: bool,
    /// Whether presence may be another than before.
    pub(super) shows: bool,
    written: BTreeSet<EndpointId>,
}

impl Plan {
    /// Rows to write, by endpoint id.
    pub(super) fn written(&self) -> impl Iterator<Item = &EndpointRow> {
        self.rows.iter().filter(|row| self.written.contains(&row.id))
    }

    /// Endpoints that came to another flow with the Call-ID they had before: the client goes on where it was.
    pub(super) fn moved<'a>(
        &'a self,
        request: &Request,
        before: &'a [EndpointRow],
    ) -> impl Iterator<Item = EndpointId> {
        let moved = |row: &&EndpointRow| row.call_id == request.call_id && !row.same_flow(&request.flow);
        let written = |row: &&EndpointRow| self.written.contains(&row.id);
        before.iter().filter(moved).filter(written).map(|row| row.id)
    }

    /// Endpoints that came to another flow with another Call-ID: their client began anew and knows no dialogs.
    pub(super) fn restarted<'a>(
        &'a self,
        request: &Request,
        before: &'a [EndpointRow],
    ) -> impl Iterator<Item = EndpointId> {
        let anew = |row: &&EndpointRow| row.call_id != request.call_id && !row.same_flow(&request.flow);
        let written = |row: &&EndpointRow| self.written.contains(&row.id);
        before.iter().filter(anew).filter(written).map(|row| row.id)
    }

    /// Endpoints that were not there, or not any more: dialogs of before may still be.
    pub(super) fn created<'a>(&'a self, before: &'a [EndpointRow]) -> impl Iterator<Item = EndpointId> {
        self.written.iter().copied().filter(|id| before.iter().all(|row| row.id != *id))
    }

    fn remove(&mut self, id: EndpointId) {
        if let Some(place) = self.rows.iter().position(|row| row.id == id) {
            self.removed.push(self.rows.remove(place));
            self.shows = true;
        }
    }
}

pub(super) fn plan(request: &Request, rows: &[EndpointRow], lives: &Lives, now: Micros) -> Result<Plan, Refusal> {
    let plan = Plan {
        rows: rows.to_vec(),
        removed: Vec::new(),
        touched: Vec::new(),
        replay: false,
        shows: false,
        written: BTreeSet::new(),
    };
    let mut planner = Planner { request, before: rows, lives, now, plan };
    match &request.contacts {
        Contacts::Query => {}
        Contacts::RemoveAll => planner.remove_all()?,
        Contacts::Each(bindings) => planner.each(bindings)?,
    }
    let mut plan = planner.plan;
    plan.rows.sort_unstable_by_key(|row| row.id);
    Ok(plan)
}

/// A Contact and the rows that are its business.
struct Claim<'a> {
    binding: &'a Binding,
    /// The row it is about.
    matched: Option<&'a EndpointRow>,
    /// What else is left of its instance on dead flows.
    twins: Vec<&'a EndpointRow>,
}

struct Planner<'a> {
    request: &'a Request,
    before: &'a [EndpointRow],
    lives: &'a Lives,
    now: Micros,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn life(&self, row: &EndpointRow) -> Life {
        row.life(self.lives, self.now)
    }

    fn flow_is_dead(&self, row: &EndpointRow) -> bool {
        self.life(row).lost_at().is_some() || self.request.unreachable.contains(&row.flow.fe)
    }

    fn other_flow(&self, row: &EndpointRow) -> Option<FlowRef> {
        (!row.same_flow(&self.request.flow)).then(|| row.flow.clone())
    }

    /// Whether the row is older than the request, by CSeq under one Call-ID (§10.3 steps 6 and 7).
    fn check_order(&self, row: &EndpointRow) -> Result<(), Refusal> {
        let stale = row.call_id == self.request.call_id && self.request.cseq <= row.cseq;
        if stale && self.life(row) != Life::Expired { Err(Refusal::Stale) } else { Ok(()) }
    }

    fn remove_all(&mut self) -> Result<(), Refusal> {
        self.before.iter().try_for_each(|row| self.check_order(row))?;
        for row in self.before {
            let previous = self.other_flow(row);
            self.plan.touched.push(Touched { endpoint: Some(row.id), how: Change::Removed, previous });
            self.plan.remove(row.id);
        }
        Ok(())
    }

    fn each(&mut self, bindings: &'a [Binding]) -> Result<(), Refusal> {
        let claims = self.claims(bindings);
        if self.carried_out() {
            self.plan.replay = true;
            self.plan.touched = told(bindings, &claims, |claim| claim.replayed());
            return Ok(());
        }
        claims.iter().filter_map(|claim| claim.matched).try_for_each(|row| self.check_order(row))?;
        let mut touched = BTreeMap::new();
        for claim in &claims {
            touched.insert(claim.binding.key, self.carry_out(claim));
        }
        self.make_room()?;
        self.plan.touched = told(bindings, &claims, |claim| {
            let none = Touched { endpoint: None, how: Change::Removed, previous: None };
            touched.get(&claim.binding.key).cloned().unwrap_or(none)
        });
        Ok(())
    }

    /// Whether this very transaction was carried out before: then all of it was, and a late copy must not undo what has
    /// come since. One that only removed leaves no trace, and its copy finds nothing.
    fn carried_out(&self) -> bool {
        let made = |row: &EndpointRow| row.origin == self.request.origin && self.life(row) != Life::Expired;
        self.before.iter().any(made)
    }

    /// A row is claimed by the Contact with its key; else, on a dead flow, by the first Contact of its instance, if
    /// neither has a `reg-id`. A Contact matches the row with its key; else of those it claims the one lost last. Of
    /// several Contacts with one key the last counts.
    fn claims(&self, bindings: &'a [Binding]) -> Vec<Claim<'a>> {
        let claim = |binding| Claim { binding, matched: None, twins: Vec::new() };
        let mut claims: Vec<Claim<'a>> = distinct(bindings).map(claim).collect();
        for row in self.before {
            if let Some(claim) = claims.iter_mut().find(|claim| claim.binding.key == row.key) {
                claim.matched = Some(row);
            } else if let Some(claim) = claims.iter_mut().find(|claim| self.dead_twin(row, claim.binding)) {
                claim.twins.push(row);
            }
        }
        for claim in claims.iter_mut().filter(|claim| claim.matched.is_none()) {
            claim.matched = claim.twins.iter().copied().max_by_key(|row| (self.life(row).lost_at(), row.id));
            claim.twins.retain(|row| claim.matched.is_none_or(|matched| matched.id != row.id));
        }
        claims
    }

    fn dead_twin(&self, row: &EndpointRow, binding: &Binding) -> bool {
        let twin = binding.instance.is_some() && row.instance == binding.instance;
        twin && row.reg_id.is_none() && binding.reg_id.is_none() && self.flow_is_dead(row)
    }

    fn carry_out(&mut self, claim: &Claim<'_>) -> Touched {
        if claim.binding.expires > 0 {
            // An instance has come back: what else is left of it on dead flows goes.
            claim.twins.iter().for_each(|row| self.plan.remove(row.id));
            return self.write(claim.binding, claim.matched);
        }
        let previous = claim.matched.and_then(|row| self.other_flow(row));
        if let Some(row) = claim.matched {
            self.plan.remove(row.id);
        }
        Touched { endpoint: claim.matched.map(|row| row.id), how: Change::Removed, previous }
    }

    fn write(&mut self, binding: &Binding, matched: Option<&EndpointRow>) -> Touched {
        let life = matched.map(|row| self.life(row));
        let living = matched.filter(|_| life != Some(Life::Expired));
        let how = if living.is_some() { Change::Refreshed } else { Change::Created };
        let previous = living.and_then(|row| self.other_flow(row));
        let registered_at = living.map_or(self.now, |row| row.registered_at);
        self.plan.shows |= previous.is_some() || !life.is_some_and(Life::visible);
        let id = matched.map_or_else(|| self.free_id(binding), |row| row.id);
        let row = self.row(id, binding, registered_at);
        self.plan.written.insert(id);
        self.plan.rows.retain(|old| old.id != id);
        self.plan.rows.push(row);
        Touched { endpoint: Some(id), how, previous }
    }

    /// The id of a new binding: salted as long as another binding of the user has or had it. The few rows of a user
    /// cannot take all salts.
    fn free_id(&self, binding: &Binding) -> EndpointId {
        let id = |salt| EndpointId::new(self.request.user.id, binding.key, salt);
        let free = |id: &EndpointId| !self.plan.written.contains(id) && self.before.iter().all(|row| row.id != *id);
        (0..u8::MAX).map(id).find(free).unwrap_or_else(|| id(u8::MAX))
    }

    fn row(&self, id: EndpointId, binding: &Binding, registered_at: Micros) -> EndpointRow {
        EndpointRow {
            id,
            key: binding.key,
            flow: self.request.flow.clone(),
            lost_at: None,
            expires_at: self.now.plus_seconds(u64::from(binding.expires)),
            registered_at,
            refreshed_at: self.now,
            origin: self.request.origin,
            call_id: self.request.call_id.clone(),
            cseq: self.request.cseq,
            q: binding.q,
            contact: binding.contact.clone(),
            contact_value: binding.contact_value.clone(),
            path: binding.path.clone(),
            instance: binding.instance.clone(),
            reg_id: binding.reg_id,
            agent: self.request.agent.clone(),
        }
    }

    /// Above the limit, bindings on dead flows give way, longest lost first; then the request is refused.
    fn make_room(&mut self) -> Result<(), Refusal> {
        loop {
            let visible = self.plan.rows.iter().filter(|row| self.life(row).visible());
            if visible.count() <= ENDPOINTS {
                return Ok(());
            }
            let lost = self.plan.rows.iter().filter_map(|row| match self.life(row) {
                Life::Lost(at) => Some((at, row.id)),
                _ => None,
            });
            let (_, id) = lost.min().ok_or(Refusal::TooMany)?;
            self.plan.remove(id);
        }
    }
}

/// Of several Contacts with one key the last.
pub(crate) fn distinct(bindings: &[Binding]) -> impl Iterator<Item = &Binding> {
    let last = |n: usize, key: Key128| bindings.iter().skip(n + 1).all(|later| later.key != key);
    bindings.iter().enumerate().filter(move |(n, binding)| last(*n, binding.key)).map(|(_, binding)| binding)
}

impl Claim<'_> {
    /// What a copy of the request is told.
    fn replayed(&self) -> Touched {
        let endpoint = self.matched.map(|row| row.id).filter(|_| self.binding.expires > 0);
        let how = if endpoint.is_some() { Change::Refreshed } else { Change::Removed };
        Touched { endpoint, how, previous: None }
    }
}

/// What happened to each Contact, in the order of the request.
fn told(bindings: &[Binding], claims: &[Claim<'_>], of: impl Fn(&Claim<'_>) -> Touched) -> Vec<Touched> {
    let claim = |binding: &Binding| claims.iter().find(|claim| claim.binding.key == binding.key);
    bindings.iter().filter_map(claim).map(of).collect()
}
