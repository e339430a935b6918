//! A directory read over LDAP: servers tried in order, pages streamed, nothing believed that was not told to its end.

use std::sync::Arc;
use std::time::Duration;

use commpool_model::config::Directory;
use ldap3::{Scope, ldap_escape, parse_filter};
use rustls::ClientConfig;

use crate::connection::{Connection, Item, Search, Server};
use crate::entry::Entry;
use crate::fault::{Fault, Kind};
use crate::files;
use crate::mapping::Mapper;
use crate::source::{Intake, Source};
use crate::tls;

/// Entries handed on at once.
const BATCH: usize = 500;
/// A server that tells nothing new in so many pages tells them over and over.
const STALE_PAGES: u32 = 3;
/// A whole read takes no longer.
const READ_LIMIT: Duration = Duration::from_secs(3600);
/// Any Active Directory rule that follows groups inside groups (MS-ADTS §3.1.1.3.4.4.3).
const IN_CHAIN: &str = ":1.2.840.113556.1.4.1941:";

/// A directory behind LDAP servers.
#[derive(Clone)]
pub struct Ldap {
    /// Servers, in the order in which they are tried.
    pub servers: Vec<Server>,
    tls: Arc<ClientConfig>,
    name: String,
    password: String,
    users: Search,
    group: Option<Group>,
    timeout: Duration,
}

#[derive(Clone)]
struct Group {
    itself: Search,
    members: Search,
}

impl Ldap {
    /// As configured; reads the files that the configuration names.
    ///
    /// # Errors
    /// A file or the filter cannot be used.
    pub fn new(config: &Directory, mapper: &Mapper) -> Result<Self, Fault> {
        let ldap = &config.ldap;
        let search = |filter: &str, attributes: Vec<String>| -> Result<Search, Fault> {
            if parse_filter(filter).is_err() {
                let text = format!("ldap.filter: `{}` is no filter (RFC 4515)", crate::text::shown(filter, 200));
                return Err(Fault::new(Kind::Configuration, text));
            }
            let (base, filter) = (ldap.base_dn.clone(), filter.to_owned());
            Ok(Search { base, scope: Scope::Subtree, filter, attributes, page_size: ldap.page_size })
        };
        let enabled = &config.mapping.enabled;
        let group = (!enabled.group.is_empty()).then(|| -> Result<Group, Fault> {
            let rule = if enabled.nested { IN_CHAIN } else { "" };
            let filter = format!("(&{}(memberOf{rule}={}))", ldap.filter, ldap_escape(enabled.group.as_str()));
            // 1.1: no attributes (RFC 4511 §4.5.1.8).
            let itself = search("(objectClass=*)", vec!["1.1".to_owned()])?;
            let itself = Search { base: enabled.group.clone(), scope: Scope::Base, ..itself };
            Ok(Group { itself, members: search(&filter, mapper.key_attributes())? })
        });
        Ok(Self {
            servers: ldap.urls.iter().map(|url| Server::parse(url)).collect::<Result<_, _>>()?,
            tls: tls::config(&ldap.ca_file)?,
            name: files::secret("bindDNFile", &ldap.bind_dn_file)?,
            password: files::secret("passwordFile", &ldap.password_file)?,
            users: search(&ldap.filter, mapper.attributes())?,
            group: group.transpose()?,
            timeout: Duration::from_secs(u64::from(ldap.timeout_seconds)),
        })
    }

    /// Reaches a server and secures the connection.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub async fn open(&self, server: &Server) -> Result<Connection, Fault> {
        Connection::open(server, Arc::clone(&self.tls), self.timeout).await
    }

    /// Proves who we are.
    ///
    /// # Errors
    /// As [`Connection::bind`].
    pub async fn bind(&self, connection: &mut Connection) -> Result<(), Fault> {
        connection.bind(&self.name, &self.password).await
    }

    /// Reads everything over a connection on which a bind succeeded.
    ///
    /// # Errors
    /// The server refused, fell silent, was lost or did not come to an end.
    pub async fn read_all(&self, connection: &mut Connection, intake: &mut Intake) -> Result<(), Fault> {
        let read = async {
            if let Some(group) = &self.group {
                self.there(connection, &group.itself).await?;
            }
            pages(connection, &self.users, intake, Kept::Users).await?;
            match &self.group {
                Some(group) => pages(connection, &group.members, intake, Kept::Members).await,
                None => Ok(()),
            }
        };
        tokio::time::timeout(READ_LIMIT, read).await.unwrap_or_else(|_| {
            Err(Fault::new(Kind::Incomplete, format!("the read took longer than {} s", READ_LIMIT.as_secs())))
        })
    }

    /// Whether the group is there: of one that is not, nobody is a member, and no search says why.
    async fn there(&self, connection: &mut Connection, group: &Search) -> Result<(), Fault> {
        let missing = |text: &str| {
            let group = crate::text::shown(&group.base, 200);
            Fault::new(Kind::Refused, format!("the group `{group}` (mapping.enabled.group) cannot be read: {text}"))
        };
        let mut page = connection.ask(group, Vec::new()).await?;
        let mut seen = false;
        loop {
            match connection.next(&mut page).await {
                Ok(Item::Entry(_)) => seen = true,
                Ok(Item::End(_)) if seen => return Ok(()),
                Ok(Item::End(_)) => return Err(missing("it is not there, or the account may not see it")),
                Err(fault) if fault.kind == Kind::Refused => return Err(missing(&fault.text)),
                Err(fault) => return Err(fault),
            }
        }
    }

    async fn read_from(&self, server: &Server, intake: &mut Intake) -> Result<(), Fault> {
        let mut connection = self.open(server).await?;
        self.bind(&mut connection).await?;
        self.read_all(&mut connection, intake).await?;
        connection.close().await;
        Ok(())
    }
}

impl Source for Ldap {
    async fn read(&self, intake: &mut Intake) -> Result<(), Fault> {
        let mut faults: Vec<Fault> = Vec::new();
        for server in &self.servers {
            intake.restart().await?;
            match self.read_from(server, intake).await {
                Ok(()) => return Ok(()),
                Err(fault) if fault.try_another() => {
                    tracing::warn!(server = server.url, reason = fault.text, "cannot read the directory");
                    faults.push(fault);
                }
                Err(fault) => return Err(fault),
            }
        }
        let broken = faults.iter().any(|fault| fault.kind == Kind::Broken);
        let texts: Vec<String> = faults.into_iter().map(|fault| fault.text).collect();
        Err(Fault::new(if broken { Kind::Broken } else { Kind::Unreachable }, texts.join("; ")))
    }
}

#[derive(Clone, Copy)]
enum Kept {
    Users,
    Members,
}

async fn pages(connection: &mut Connection, search: &Search, intake: &mut Intake, kept: Kept) -> Result<(), Fault> {
    let mut cookie = Vec::new();
    let mut stale = 0;
    loop {
        let mut page = connection.ask(search, cookie).await?;
        let mut batch: Vec<Entry> = Vec::new();
        let mut new = 0;
        cookie = loop {
            match connection.next(&mut page).await? {
                Item::Entry(entry) => batch.push(entry),
                Item::End(cookie) => break cookie,
            }
            if batch.len() == BATCH {
                new += take(intake, kept, std::mem::take(&mut batch)).await?;
            }
        };
        new += take(intake, kept, batch).await?;
        if cookie.is_empty() {
            return Ok(());
        }
        stale = if new == 0 { stale + 1 } else { 0 };
        if stale == STALE_PAGES {
            let text = format!("{STALE_PAGES} pages in a row told nothing new and were not the last");
            return Err(Fault::new(Kind::Incomplete, text));
        }
    }
}

async fn take(intake: &mut Intake, kept: Kept, batch: Vec<Entry>) -> Result<u64, Fault> {
    match kept {
        Kept::Users => intake.take(batch).await,
        Kept::Members => intake.take_members(&batch).await,
    }
}
