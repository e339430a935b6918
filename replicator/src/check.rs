//! `check`: whether a run could do its work, step by step, and what is in the way.

use std::path::PathBuf;
use std::sync::Arc;

use commpool_model::config::Directory;
use serde::Serialize;

use crate::catalogue::{Catalogue, Shared};
use crate::connection::{Connection, Server};
use crate::fault::{Fault, Kind};
use crate::ldap::Ldap;
use crate::mapping::Mapper;
use crate::source::{Intake, Survey};
use crate::text::shown;

/// A certificate with less than this left deserves a word, seconds.
const SOON: i64 = 14 * 86_400;
/// Most names of a certificate that are shown.
const MAX_NAMES: usize = 8;

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    /// Well.
    Good,
    /// Well, but look at it.
    Warning,
    /// Not.
    Failed,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// What was tried: `configuration`, `tls`, `bind`, `read`, `users`, `addresses`, `enabled`, `group`, `attributes`.
    pub step: &'static str,
    /// How it went.
    pub status: Status,
    /// What was seen, or what to do.
    pub detail: String,
}

/// Tries everything that a run does, but for the store; `tell` gets each step as it ends. Returns whether all went well;
/// an error is one of the configuration and was not told.
///
/// # Errors
/// The configuration or a file that it names cannot be used.
pub async fn check(
    config: &Directory,
    domains: &[String],
    folder: Option<PathBuf>,
    mut tell: impl FnMut(&Line),
) -> Result<bool, Fault> {
    let mapper = Mapper::new(&config.mapping, domains);
    let ldap = Ldap::new(config, &mapper)?;
    let mut checker = Checker { ldap, all_well: true, tell: &mut tell };
    let mut connection = None;
    for server in checker.ldap.servers.clone() {
        match checker.server(&server).await {
            Ok(bound) if connection.is_none() => connection = Some(bound),
            Ok(bound) => bound.close().await,
            // Another attempt with a wrong password is another step towards a locked account.
            Err(Kind::Refused) => break,
            Err(_) => {}
        }
    }
    if let Some(connection) = connection {
        checker.read(connection, config, mapper, folder).await;
    }
    Ok(checker.all_well)
}

struct Checker<'a> {
    ldap: Ldap,
    all_well: bool,
    tell: &'a mut dyn FnMut(&Line),
}

impl Checker<'_> {
    fn say(&mut self, step: &'static str, status: Status, detail: String) {
        self.all_well &= status != Status::Failed;
        (self.tell)(&Line { step, status, detail });
    }

    fn judge(&mut self, step: &'static str, good: bool, detail: String) {
        self.say(step, if good { Status::Good } else { Status::Warning }, detail);
    }

    /// Of what a run needs somebody for: without anybody it could bring nobody.
    fn judge_some(&mut self, step: &'static str, some: u64, good: bool, detail: String) {
        if some == 0 { self.say(step, Status::Failed, detail) } else { self.judge(step, good, detail) }
    }

    async fn server(&mut self, server: &Server) -> Result<Connection, Kind> {
        let mut connection = match self.ldap.open(server).await {
            Ok(connection) => connection,
            Err(fault) => {
                self.say("tls", Status::Failed, fault.text);
                return Err(fault.kind);
            }
        };
        let (good, detail) = certificate(&connection);
        self.judge("tls", good, format!("{}: {detail}", server.url));
        match self.ldap.bind(&mut connection).await {
            Ok(()) => {
                self.say("bind", Status::Good, format!("{}: accepted", server.url));
                Ok(connection)
            }
            Err(fault) => {
                self.say("bind", Status::Failed, fault.text);
                Err(fault.kind)
            }
        }
    }

    async fn read(&mut self, mut connection: Connection, config: &Directory, mapper: Mapper, folder: Option<PathBuf>) {
        let read = async {
            let catalogue = tokio::task::spawn_blocking(move || Catalogue::new(folder.as_deref(), false)).await;
            let catalogue = catalogue.unwrap_or_else(|_| Err(Fault::new(Kind::Internal, "a thread has panicked")))?;
            let mut intake = Intake::new(Shared::new(catalogue), Arc::new(mapper));
            self.ldap.read_all(&mut connection, &mut intake).await?;
            Ok(intake.survey)
        };
        match read.await {
            Ok(survey) => self.judge_survey(config, &survey),
            Err(Fault { text, .. }) => self.say("read", Status::Failed, text),
        }
        connection.close().await;
    }

    fn judge_survey(&mut self, config: &Directory, survey: &Survey) {
        let Survey { found, keyless, addressed, unusable, enabled, disabled, members, .. } = *survey;
        self.say("read", Status::Good, format!("`{}` to its end", shown(&config.ldap.base_dn, 200)));
        if found == 0 {
            let filter = shown(&config.ldap.filter, 200);
            return self.say("users", Status::Failed, format!("the filter {filter} finds nobody"));
        }
        if keyless == found {
            let text =
                format!("{found} entries, none with a key: the account may not read it, or mapping.key is wrong");
            return self.say("users", Status::Failed, text);
        }
        self.judge("users", keyless == 0, format!("{found} entries, {keyless} of them without a key"));
        let without = found - keyless - addressed - unusable;
        let text = format!("{addressed} with an address, {unusable} with one that cannot be used, {without} with none");
        self.judge_some("addresses", addressed, unusable == 0, text);
        let unsaid = found - keyless - enabled - disabled;
        let text =
            format!("{enabled} may sign in by their own entry, {disabled} are switched off, {unsaid} are not enabled");
        self.judge_some("enabled", enabled, true, text);
        if survey.veiled > 0 {
            let text = format!(
                "{} entries do not show userAccountControl: the account may not read it, or they are no accounts (set \
                 mapping.enabled.accountControl to false, or use a narrower filter); none of them may sign in",
                survey.veiled
            );
            self.say("enabled", Status::Failed, text);
        }
        if !config.mapping.enabled.group.is_empty() {
            let group = shown(&config.mapping.enabled.group, 200);
            self.judge_some("group", members, true, format!("{members} of the entries are members of `{group}`"));
        }
        let missing = missing(config, survey);
        if missing.is_empty() {
            self.say("attributes", Status::Good, "each one of the mapping was seen".to_owned());
        } else {
            let text = format!("no entry has {}: not in the schema, or not readable", missing.join(", "));
            self.say("attributes", Status::Warning, text);
        }
        survey.named.iter().for_each(|line| self.say("users", Status::Warning, line.clone()));
    }
}

/// Attributes that were asked for and never came. Of the two that may be the key one is enough, and `objectGUID` need not
/// be there where it is not the key.
fn missing(config: &Directory, survey: &Survey) -> Vec<String> {
    let key = config.mapping.key.as_str();
    let is_key = |name: &str| {
        key.is_empty() && matches!(name, "objectGUID" | "entryUUID")
            || name == "objectGUID" && !key.eq_ignore_ascii_case(name)
    };
    let never = survey.attributes.iter().filter(|(name, count)| *count == 0 && !is_key(name));
    never.map(|(name, _)| name.clone()).collect()
}

fn certificate(connection: &Connection) -> (bool, String) {
    let Some(certificate) = &connection.certificate else {
        return (true, "secured".to_owned());
    };
    let names: Vec<&str> = certificate.names.iter().take(MAX_NAMES).map(String::as_str).collect();
    let until = jiff::Timestamp::from_second(certificate.not_after).map(|until| until.to_string()).unwrap_or_default();
    let left = certificate.not_after - jiff::Timestamp::now().as_second();
    (left > SOON, format!("secured; its certificate is for {} until {until}", names.join(", ")))
}
