//! What a REGISTER does to a user's bindings (RFC 3261 §10.3, RFC 5626 §6): pure, all or none.

use std::collections::BTreeSet;

use commpool_model::ids::{EndpointId, Micros};

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
    let mut planner = Planner { request, lives, now, plan };
    match &request.contacts {
        Contacts::Query => {}
        Contacts::RemoveAll => planner.remove_all()?,
        Contacts::Each(bindings) if planner.carried_out() => planner.replay(bindings),
        Contacts::Each(bindings) => {
            bindings.iter().try_for_each(|binding| planner.contact(binding))?;
            planner.make_room()?;
        }
    }
    let mut plan = planner.plan;
    plan.rows.sort_unstable_by_key(|row| row.id);
    Ok(plan)
}

struct Planner<'a> {
    request: &'a Request,
    lives: &'a Lives,
    now: Micros,
    plan: Plan,
}

impl Planner<'_> {
    fn life(&self, row: &EndpointRow) -> Life {
        row.life(self.lives, self.now)
    }

    fn flow_is_dead(&self, row: &EndpointRow) -> bool {
        self.life(row).lost_at().is_some()
    }

    /// Whether the row is older than the request, by CSeq under one Call-ID (§10.3 steps 6 and 7).
    fn check_order(&self, row: &EndpointRow) -> Result<(), Refusal> {
        let stale = row.call_id == self.request.call_id && self.request.cseq <= row.cseq;
        let ours = self.plan.written.contains(&row.id);
        if stale && !ours && self.life(row) != Life::Expired { Err(Refusal::Stale) } else { Ok(()) }
    }

    /// Whether this very transaction was carried out before: then all of it was, and a late copy must not undo what has
    /// come since. One that only removed leaves no trace, and its copy finds nothing.
    fn carried_out(&self) -> bool {
        let made = |row: &EndpointRow| row.origin == self.request.origin && self.life(row) != Life::Expired;
        self.plan.rows.iter().any(made)
    }

    fn replay(&mut self, bindings: &[Binding]) {
        let touched = bindings.iter().map(|binding| {
            let endpoint = self.find(binding).map(|row| row.id).filter(|_| binding.expires > 0);
            let how = if endpoint.is_some() { Change::Refreshed } else { Change::Removed };
            Touched { endpoint, how, previous: None }
        });
        self.plan.touched = touched.collect();
        self.plan.replay = true;
    }

    fn remove_all(&mut self) -> Result<(), Refusal> {
        self.plan.rows.iter().try_for_each(|row| self.check_order(row))?;
        while let Some(row) = self.plan.rows.first() {
            let id = row.id;
            let touched = self.remove(id);
            self.plan.touched.extend(touched);
        }
        Ok(())
    }

    fn contact(&mut self, binding: &Binding) -> Result<(), Refusal> {
        let found = self.find(binding).cloned();
        if let Some(row) = &found {
            self.check_order(row)?;
        }
        let touched = match found {
            None if binding.expires == 0 => Touched { endpoint: None, how: Change::Removed, previous: None },
            Some(row) if binding.expires == 0 => {
                let gone = Touched { endpoint: None, how: Change::Removed, previous: None };
                self.remove(row.id).unwrap_or(gone)
            }
            found => {
                self.evict_dead(binding, found.as_ref().map(|row| row.id));
                self.write(binding, found)
            }
        };
        self.plan.touched.push(touched);
        Ok(())
    }

    /// The row a Contact is about: by its key; else, given an instance without `reg-id`, the one of that instance whose
    /// flow was lost last.
    fn find(&self, binding: &Binding) -> Option<&EndpointRow> {
        let rows = &self.plan.rows;
        rows.iter().find(|row| row.key == binding.key).or_else(|| {
            let dead = rows.iter().filter(|row| self.dead_twin(row, binding));
            dead.max_by_key(|row| (self.life(row).lost_at(), row.id))
        })
    }

    fn dead_twin(&self, row: &EndpointRow, binding: &Binding) -> bool {
        let twin = binding.instance.is_some() && row.instance == binding.instance;
        twin && row.reg_id.is_none() && binding.reg_id.is_none() && self.flow_is_dead(row)
    }

    /// An instance has come back: what else is left of it on dead flows goes.
    fn evict_dead(&mut self, binding: &Binding, kept: Option<EndpointId>) {
        let dead = self.plan.rows.iter().filter(|row| self.dead_twin(row, binding) && Some(row.id) != kept);
        let dead: Vec<EndpointId> = dead.map(|row| row.id).collect();
        for id in dead {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: EndpointId) -> Option<Touched> {
        let place = self.plan.rows.iter().position(|row| row.id == id)?;
        let row = self.plan.rows.remove(place);
        let touched = Touched { endpoint: Some(id), how: Change::Removed, previous: self.other_flow(&row) };
        self.plan.written.remove(&id);
        self.plan.shows = true;
        self.plan.removed.push(row);
        Some(touched)
    }

    fn other_flow(&self, row: &EndpointRow) -> Option<FlowRef> {
        (!row.same_flow(&self.request.flow)).then(|| row.flow.clone())
    }

    fn write(&mut self, binding: &Binding, found: Option<EndpointRow>) -> Touched {
        let life = found.as_ref().map(|row| self.life(row));
        let living = found.as_ref().filter(|_| life != Some(Life::Expired));
        let how = if living.is_some() { Change::Refreshed } else { Change::Created };
        let previous = living.and_then(|row| self.other_flow(row));
        let registered_at = living.map_or(self.now, |row| row.registered_at);
        self.plan.shows |= previous.is_some() || !life.is_some_and(Life::visible);
        let id = found.map_or_else(|| self.free_id(binding), |row| row.id);
        let row = self.row(id, binding, registered_at);
        self.plan.written.insert(id);
        match self.plan.rows.iter_mut().find(|row| row.id == id) {
            Some(old) => *old = row,
            None => self.plan.rows.push(row),
        }
        Touched { endpoint: Some(id), how, previous }
    }

    /// The id of a new binding: salted as long as another binding of the user has it. The few rows of a user cannot
    /// take all salts.
    fn free_id(&self, binding: &Binding) -> EndpointId {
        let id = |salt| EndpointId::new(self.request.user.id, binding.key, salt);
        let free = |id: &EndpointId| self.plan.rows.iter().all(|row| row.id != *id);
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
            self.remove(id);
        }
    }
}
