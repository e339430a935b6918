//! `user …`: accounts and their passwords, beside a running server.

use std::path::Path;

use clap::Subcommand;
use commpool_model::address::Address;
use commpool_process::Reader;
use commpool_store::Store;
use commpool_store::ops::accounts::{Find, Page, Put, PutReply, State};
use commpool_store::ops::{Outcome, credentials};

use super::configuration::open_store;
use super::passwords::{self, From};
use super::serve::runtime;
use super::{Done, EXIT_DATA, EXIT_NOT_DONE, EXIT_USAGE, Failure, print};

/// Label of a user's own password.
const MAIN: &str = "main";
/// Accounts read at once.
const PAGE: u32 = 500;

/// `user …`
#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// Add a user; without a password given, one is made and printed.
    Add {
        /// Name, or name@domain.
        name: String,
        /// Name for people.
        #[arg(long, default_value = "")]
        display_name: String,
        #[command(flatten)]
        password: From,
    },
    /// Set a user's password, also of one from the directory; takes effect on open connections within seconds.
    Passwd {
        /// Name, or name@domain.
        name: String,
        #[command(flatten)]
        password: From,
    },
    /// List users.
    List {
        /// Part of address or name.
        #[arg(default_value = "")]
        text: String,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Keep a user from signing in and being reached; his data stays. Not for users from the directory.
    Disable {
        /// Name, or name@domain.
        name: String,
    },
    /// Let a disabled user sign in again. Not for users from the directory.
    Enable {
        /// Name, or name@domain.
        name: String,
    },
}

pub(super) fn run(path: &Path, command: Command) -> Done {
    let (config, store) = open_store(path)?;
    let domain = config.sip_domains.first().cloned().unwrap_or_default();
    let address = |name: &str| parse(name, &domain, &config.sip_domains);
    runtime()?.block_on(async {
        match command {
            Command::Add { name, display_name, password } => {
                let (address, (password, made)) = (address(&name)?, password.get()?);
                add(&store, &address, &display_name, &password).await?;
                told(&address, "added", made.then_some(password.as_str()));
            }
            Command::Passwd { name, password } => {
                let (address, (password, made)) = (address(&name)?, password.get()?);
                set_password(&store, &address, &password).await?;
                told(&address, "has a new password", made.then_some(password.as_str()));
            }
            Command::List { text, json } => list(&store, text, json).await?,
            Command::Disable { name } => set_state(&store, &address(&name)?, State::Disabled).await?,
            Command::Enable { name } => set_state(&store, &address(&name)?, State::On).await?,
        }
        Ok(())
    })
}

fn told(address: &Address, what: &str, password: Option<&str>) {
    match password {
        Some(password) => println!("{address} {what}; password {password}"),
        None => println!("{address} {what}"),
    }
}

fn parse(name: &str, default_domain: &str, served: &[String]) -> Result<Address, Failure> {
    let address =
        Address::parse(name, Some(default_domain)).map_err(|e| Failure::new(EXIT_USAGE, format!("{name}: {e}")))?;
    if served.iter().any(|d| d.eq_ignore_ascii_case(address.domain())) {
        Ok(address)
    } else {
        let text = format!("{address}: not a domain of this pool; it serves {}", served.join(", "));
        Err(Failure::new(EXIT_USAGE, text))
    }
}

pub(super) async fn add(store: &Store, address: &Address, display_name: &str, password: &str) -> Done {
    let put = Put::Add { address: address.to_string(), display_name: display_name.to_owned() };
    match call(store, put.into()).await? {
        Outcome::AccountPut(PutReply::Done(_)) => set_password(store, address, password).await,
        Outcome::AccountPut(PutReply::Managed) => Err(managed(address)),
        Outcome::AccountPut(PutReply::Exists) => {
            Err(Failure::new(EXIT_NOT_DONE, format!("{address} exists already; to change the password: user passwd")))
        }
        other => Err(unexpected(&other)),
    }
}

pub(super) async fn set_password(store: &Store, address: &Address, password: &str) -> Done {
    let put = credentials::Put {
        address: address.to_string(),
        label: MAIN.to_owned(),
        verifiers: passwords::verifiers(address.user(), address.domain(), password),
    };
    match call(store, put.into()).await? {
        Outcome::CredentialPut(credentials::PutReply::Done(_)) => Ok(()),
        Outcome::CredentialPut(credentials::PutReply::NotFound) => Err(not_found(address)),
        other => Err(unexpected(&other)),
    }
}

async fn set_state(store: &Store, address: &Address, state: State) -> Done {
    let put = Put::Change { address: address.to_string(), state: Some(state), display_name: None };
    match call(store, put.into()).await? {
        Outcome::AccountPut(PutReply::Done(_)) => {
            let word = if state == State::On { "enabled" } else { "disabled" };
            told(address, word, None);
            Ok(())
        }
        Outcome::AccountPut(PutReply::NotFound) => Err(not_found(address)),
        Outcome::AccountPut(PutReply::Managed) => Err(managed(address)),
        other => Err(unexpected(&other)),
    }
}

async fn list(store: &Store, text: String, json: bool) -> Done {
    let mut find = Find { text, after: None, limit: PAGE };
    loop {
        let page = match call(store, find.clone().into()).await? {
            Outcome::AccountsFind(page) => page,
            other => return Err(unexpected(&other)),
        };
        let reader = print(page_lines(&page, json))?;
        let last = page.accounts.last().map(|a| a.address.clone());
        if !page.more || last.is_none() || reader == Reader::HasEnough {
            return Ok(());
        }
        find.after = last;
    }
}

fn page_lines(page: &Page, json: bool) -> impl Iterator<Item = String> {
    page.accounts.iter().map(move |account| {
        let state = match account.state {
            State::On => "on",
            State::Disabled => "disabled",
            State::Removed => "removed",
        };
        if json {
            let line = serde_json::json!({
                "address": account.address, "displayName": account.display_name, "state": state,
                "password": account.has_password, "managed": account.managed,
                "phone": account.card.phone, "title": account.card.title, "company": account.card.company,
                "office": account.card.office,
            });
            line.to_string()
        } else {
            let password = if account.has_password { "" } else { "  no password" };
            let origin = if account.managed { "  from the directory" } else { "" };
            format!("{}  {state}  {}{origin}{password}", account.address, account.display_name)
        }
    })
}

pub(super) async fn call(store: &Store, operation: commpool_store::ops::Operation) -> Result<Outcome, Failure> {
    store.call(operation).await.map_err(|e| Failure::new(EXIT_DATA, format!("store: {e}")))
}

fn managed(address: &Address) -> Failure {
    let text =
        format!("{address} comes from the directory: change it there; only the password is set here: user passwd");
    Failure::new(EXIT_NOT_DONE, text)
}

fn not_found(address: &Address) -> Failure {
    Failure::new(EXIT_NOT_DONE, format!("{address}: no such user; user list shows all"))
}

pub(super) fn unexpected(outcome: &Outcome) -> Failure {
    Failure::new(EXIT_NOT_DONE, format!("not done: {outcome:?}"))
}
