//! Where entries come from, and what is noted of each while they stream into the catalogue.

use std::future::Future;
use std::sync::Arc;

use commpool_model::directory::MAX_NAMED;
use commpool_model::ids::Key128;

use crate::catalogue::Shared;
use crate::entry::Entry;
use crate::fault::{Fault, Kind};
use crate::mapping::{Found, Mapper, Verdict, Wanted};

/// Most entries that are read.
const MAX_ENTRIES: u64 = 2_000_000;

/// A directory that can be read from beginning to end.
pub trait Source: Send + Sync + 'static {
    /// Reads all entries, in any order and any number at once. An error means that what was taken in is not the whole.
    fn read(&self, intake: &mut Intake) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// Takes entries in.
pub struct Intake {
    catalogue: Shared,
    mapper: Arc<Mapper>,
    /// What was seen so far.
    pub survey: Survey,
}

/// What was seen of a directory.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Entries.
    pub found: u64,
    /// Entries without a key.
    pub keyless: u64,
    /// Entries with an address in a domain of the pool.
    pub addressed: u64,
    /// Entries with an address that cannot be used.
    pub unusable: u64,
    /// Entries that say of themselves that they may sign in, whatever the group says.
    pub enabled: u64,
    /// Entries that are switched off.
    pub disabled: u64,
    /// Entries that do not show whether they are switched off, although they must know.
    pub veiled: u64,
    /// Members of the group among them.
    pub members: u64,
    /// Attributes asked for, and how many entries have each.
    pub attributes: Vec<(String, u64)>,
    /// Entries that cannot be told apart, or told whose they are.
    pub conflicts: u64,
    /// The first of these conflicts, for people.
    pub named: Vec<String>,
}

impl Survey {
    fn note(&mut self, entry: &Entry, found: Option<&Found>, veiled: bool) {
        self.found += 1;
        self.veiled += u64::from(veiled);
        for (name, count) in &mut self.attributes {
            *count += u64::from(entry.has(name));
        }
        let Some(found) = found else {
            self.keyless += 1;
            let dn = crate::text::shown(&entry.dn, 100);
            return self.conflict(format!("{dn} has no key: its account may not read it, or mapping.key is wrong"));
        };
        match found.address {
            Wanted::Address(_) => self.addressed += 1,
            Wanted::Unusable(_) => self.unusable += 1,
            Wanted::Nothing => {}
        }
        match found.enabled {
            Verdict::Yes => self.enabled += 1,
            Verdict::No => self.disabled += 1,
            Verdict::Unsaid => {}
        }
    }

    fn conflict(&mut self, line: String) {
        self.conflicts += 1;
        if self.named.len() < MAX_NAMED {
            self.named.push(line);
        }
    }
}

impl Intake {
    /// Into this catalogue by this mapping.
    pub fn new(catalogue: Shared, mapper: Arc<Mapper>) -> Self {
        let survey = Self::fresh(&mapper);
        Self { catalogue, mapper, survey }
    }

    fn fresh(mapper: &Mapper) -> Survey {
        let attributes = mapper.attributes().into_iter().map(|name| (name, 0)).collect();
        Survey { attributes, ..Survey::default() }
    }

    /// The mapping.
    pub fn mapper(&self) -> &Mapper {
        &self.mapper
    }

    /// Begins anew: what was taken in before does not count.
    ///
    /// # Errors
    /// The catalogue cannot be used.
    pub async fn restart(&mut self) -> Result<(), Fault> {
        self.survey = Self::fresh(&self.mapper);
        self.catalogue.with(|catalogue| catalogue.clear()).await
    }

    /// Takes entries in; returns how many of them were not there before.
    ///
    /// # Errors
    /// The catalogue cannot be used, or there are too many entries.
    pub async fn take(&mut self, entries: Vec<Entry>) -> Result<u64, Fault> {
        let mut found = Vec::with_capacity(entries.len());
        let mut keyless = 0;
        for entry in &entries {
            let mapped = self.mapper.map(entry);
            self.survey.note(entry, mapped.as_ref(), self.mapper.hides_switch(entry));
            keyless += u64::from(mapped.is_none());
            found.extend(mapped);
        }
        if self.survey.found > MAX_ENTRIES {
            let text = format!("the filter finds more than {MAX_ENTRIES} entries: use a narrower one");
            return Err(Fault::new(Kind::Incomplete, text));
        }
        let unique = !self.mapper.keys_may_repeat();
        let added = self.catalogue.with(move |catalogue| {
            let mut twins = Vec::new();
            catalogue.add(&found, unique, &mut twins).map(|new| (new, twins))
        });
        let (new, twins) = added.await?;
        twins.into_iter().for_each(|line| self.survey.conflict(line));
        Ok(new + keyless)
    }

    /// Notes members of the group; returns how many of them were not known to be members.
    ///
    /// # Errors
    /// The catalogue cannot be used.
    pub async fn take_members(&mut self, entries: &[Entry]) -> Result<u64, Fault> {
        let keys: Vec<Key128> = entries.iter().filter_map(|entry| self.mapper.key(entry)).collect();
        let new = self.catalogue.with(move |catalogue| catalogue.add_members(&keys)).await?;
        self.survey.members += new;
        Ok(new)
    }
}
