//! What a run does, decided user by user from what the directory says and what the store knows. Pure.

use commpool_model::config::Removal;
use commpool_model::directory::{Counts, MAX_NAMED};
use commpool_model::ids::{Key128, Micros};
use commpool_store::ops::accounts::State;
use commpool_store::ops::directory::Change;
use sha2::{Digest, Sha256};

use crate::mapping::{Found, Verdict, Wanted};
use crate::text::shown;

/// So many users may always lose the service at once.
const FEW: u64 = 5;
/// Longest line about a conflict, octets.
const MAX_LINE: usize = 256;
/// Longest name inside such a line, octets.
const MAX_NAME: usize = 84;

/// One user, as both sides see him.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Key of the directory's entry.
    pub key: Key128,
    /// What the directory says; `None`: it does not know him.
    pub found: Option<Found>,
    /// What the store knows; `None`: it does not know him.
    pub known: Option<Known>,
    /// Who gets the address that the entry gives.
    pub claim: Claim,
    /// Whether somebody else gets the address that he has in the store.
    pub yields: bool,
}

/// A user as the store has him.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Canonical address; `None`: somebody else has it now.
    pub address: Option<String>,
    /// State.
    pub state: State,
    /// Hash of name and card.
    pub fingerprint: Key128,
    /// When he may be removed; `None`: he was found at the last run.
    pub purge_at: Option<Micros>,
}

/// Who gets an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nobody asks for it here.
    Nobody,
    /// This entry.
    Own,
    /// Another entry: its distinguished name.
    Rival(String),
    /// A user that did not come from this directory: who, for people.
    Stranger(String),
}

/// Somebody who asks for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Key of the entry.
    pub key: Key128,
    /// Whether he has the address in the store.
    pub holds: bool,
    /// Whether he may sign in.
    pub enabled: bool,
}

impl Candidate {
    /// Whether an entry asks for the address that it gives: it may sign in, or was switched off and keeps its place.
    pub const fn asks(enabled: Verdict, known: bool) -> bool {
        matches!((enabled, known), (Verdict::Yes, _) | (Verdict::No, true))
    }

    /// Whether this one gets the address rather than the other: who has it, else who may use it, else the lower key.
    pub fn beats(&self, other: &Self) -> bool {
        let rank = |candidate: &Self| (!candidate.holds, !candidate.enabled, candidate.key);
        rank(self) < rank(other)
    }
}

/// What may be taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Per cent.
    pub max_percent: u64,
    /// Users.
    pub max_count: u64,
    /// Seconds between not being found and being removed.
    pub grace: u64,
    /// Digest of the plan that may be applied all the same; empty: none.
    pub release: String,
}

impl From<&Removal> for Policy {
    fn from(removal: &Removal) -> Self {
        Self {
            max_percent: u64::from(removal.max_percent),
            max_count: u64::from(removal.max_count),
            grace: u64::from(removal.grace_days) * 86_400,
            release: removal.release_digest.clone(),
        }
    }
}

/// What is done about a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// He is new.
    Add,
    /// He may sign in again.
    Return,
    /// Address, name or card are others now.
    Change,
    /// He may not sign in any more.
    Disable,
    /// He is not found any more: he may not sign in, and goes when the grace is over.
    Lapse,
    /// He goes, with all that belongs to him.
    Remove,
    /// Nothing.
    Keep,
    /// The entry is no user of the pool.
    Ignore,
    /// The entry cannot become a user: see the conflict.
    Refuse,
}

/// What a user loses without the directory saying in words that he shall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Loss {
    /// The service, and in the end all that belongs to him: he is not found.
    Missing = 1,
    /// The service: no usable address, or nothing says that he may sign in.
    Unsaid = 2,
    /// His passwords, and what others know him by: he has another address.
    Renamed = 3,
}

/// What is done about a user, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub act: Act,
    /// The row for the store, if anything is written.
    pub change: Option<Change>,
    /// What he loses, if he loses something that the brake counts.
    pub loss: Option<Loss>,
    /// Whether his passwords go, because they were made for another address.
    pub drops_passwords: bool,
    /// Why the entry does not get what it asks for, for people; at most 256 octets.
    pub conflict: Option<String>,
}

impl Step {
    const fn nothing(act: Act) -> Self {
        Self { act, change: None, loss: None, drops_passwords: false, conflict: None }
    }
}

/// Decides about one user at `now`, by the store's clock.
pub fn decide(case: &Case, policy: &Policy, now: Micros) -> Step {
    match (&case.found, &case.known) {
        (Some(found), known) => present(case, found, known.as_ref()),
        (None, Some(known)) => absent(case.key, known, policy, now),
        (None, None) => Step::nothing(Act::Ignore),
    }
}

fn absent(key: Key128, known: &Known, policy: &Policy, now: Micros) -> Step {
    match known.purge_at {
        None => Step {
            change: Some(Change::Lapse { key, purge_at: now.plus_seconds(policy.grace) }),
            // Switched off or not: when the grace is over all that is his goes, and nothing asks again.
            loss: Some(Loss::Missing),
            ..Step::nothing(Act::Lapse)
        },
        Some(due) if due <= now => Step { change: Some(Change::Remove { key }), ..Step::nothing(Act::Remove) },
        Some(_) => Step::nothing(Act::Keep),
    }
}

fn present(case: &Case, found: &Found, known: Option<&Known>) -> Step {
    let given = match (&found.address, &case.claim) {
        (Wanted::Address(address), Claim::Own) => Some(address.clone()),
        _ => None,
    };
    let conflict = if found.enabled == Verdict::Yes { conflict(found, &case.claim) } else { None };
    let state = if found.enabled == Verdict::Yes && given.is_some() { State::On } else { State::Disabled };
    let Some(known) = known else {
        return match (state, conflict) {
            (State::On, _) => Step { change: Some(row(found, given, state)), ..Step::nothing(Act::Add) },
            (_, Some(conflict)) => Step { conflict: Some(conflict), ..Step::nothing(Act::Refuse) },
            (_, None) => Step::nothing(Act::Ignore),
        };
    };
    // What he had stays his while nobody else gets it.
    let address = given.or_else(|| known.address.clone().filter(|_| !case.yields));
    let same = known.state == state
        && known.address == address
        && known.fingerprint == found.fingerprint
        && known.purge_at.is_none();
    if same {
        return Step { conflict, ..Step::nothing(Act::Keep) };
    }
    let act = match (known.state, state) {
        (State::On, State::On) => Act::Change,
        (_, State::On) => Act::Return,
        (State::On, _) => Act::Disable,
        _ => Act::Change,
    };
    let drops_passwords = known.address.is_some() && known.address != address;
    let loses_service = known.state == State::On && state != State::On && found.enabled != Verdict::No;
    // Nobody brings passwords back, not even those of somebody who is switched off for now.
    let renamed = drops_passwords.then_some(Loss::Renamed);
    let loss = if loses_service { Some(Loss::Unsaid) } else { renamed };
    Step { act, change: Some(row(found, address, state)), loss, drops_passwords, conflict }
}

fn row(found: &Found, address: Option<String>, state: State) -> Change {
    Change::Put {
        key: found.key,
        address,
        state,
        display_name: found.display_name.clone(),
        card: found.card.clone(),
        fingerprint: found.fingerprint,
    }
}

fn conflict(found: &Found, claim: &Claim) -> Option<String> {
    let dn = shown(&found.dn, MAX_NAME);
    let line = match (&found.address, claim) {
        (Wanted::Unusable(why), _) => format!("{dn}: {why}"),
        (Wanted::Address(address), Claim::Rival(other)) => {
            format!("{}: {} has it, {dn} asks for it too", shown(address, MAX_NAME), shown(other, MAX_NAME))
        }
        (Wanted::Address(address), Claim::Stranger(who)) => {
            let address = shown(address, MAX_NAME);
            format!("{address}: {dn} asks for it, but it is of a user {who}: remove or rename that user")
        }
        _ => return None,
    };
    Some(shown(&line, MAX_LINE))
}

/// A plan as it grows, step by step in the order of the keys.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Users by what is done to them.
    pub counts: Counts,
    /// The first conflicts.
    pub conflicts: Vec<String>,
    /// Users who lose something that the brake counts.
    pub losing: u64,
    /// Users known that were found at the last run.
    pub users: u64,
    /// Version of the source that the plan is for.
    version: u64,
    losers: Sha256,
}

impl Tally {
    /// Of a plan for this version of the source in the store.
    pub fn new(version: u64) -> Self {
        Self { version, ..Self::default() }
    }

    /// Counts what is done about a user.
    pub fn add(&mut self, case: &Case, step: &Step) {
        let counts = &mut self.counts;
        let place = match step.act {
            Act::Add | Act::Return => Some(&mut counts.added),
            Act::Change => Some(&mut counts.changed),
            Act::Disable => Some(&mut counts.disabled),
            Act::Lapse => Some(&mut counts.missing),
            Act::Remove => Some(&mut counts.removed),
            Act::Keep => Some(&mut counts.unchanged),
            Act::Ignore => Some(&mut counts.ignored),
            Act::Refuse => None,
        };
        if let Some(place) = place {
            *place += 1;
        }
        if let Some(conflict) = &step.conflict {
            self.conflict(conflict.clone());
        }
        if let Some(loss) = step.loss {
            self.losing += 1;
            self.losers.update(case.key.0);
            self.losers.update([loss as u8]);
            if let (Loss::Renamed, Some(Change::Put { address, .. })) = (loss, &step.change) {
                let address = address.as_deref().unwrap_or_default();
                self.losers.update((address.len() as u64).to_be_bytes());
                self.losers.update(address);
            }
        }
        self.users += u64::from(case.known.as_ref().is_some_and(|known| known.purge_at.is_none()));
    }

    /// Counts a conflict.
    pub fn conflict(&mut self, line: String) {
        self.counts.conflicts += 1;
        if self.conflicts.len() < MAX_NAMED {
            self.conflicts.push(shown(&line, MAX_LINE));
        }
    }

    /// Names those who lose something, with what they lose: the same for the same losses until anything is applied.
    pub fn digest(&self) -> String {
        let hash = Sha256::new().chain_update(self.version.to_be_bytes()).chain_update(self.losers.clone().finalize());
        let hash = hash.finalize();
        hash.iter().take(8).map(|octet| format!("{octet:02x}")).collect()
    }

    /// Whether too many would lose something, and nothing releases this plan.
    pub fn held(&self, policy: &Policy) -> bool {
        let part = self.users.saturating_mul(policy.max_percent) / 100;
        let many = self.losing > policy.max_count || self.losing > part.max(FEW);
        many && policy.release != self.digest()
    }
}

#[cfg(test)]
mod tests;
