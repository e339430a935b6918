//! Samba as a domain controller: making a domain, keeping it as a template, running it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};

use super::ldif::{Entry, Ldif};
use super::{Directory, Kind, Person, Settings, copy, entries, password, people};
use crate::Workspace;
use crate::command::{output, output_of, say, which};
use crate::packages;

/// Distinguished name of the domain.
pub(super) const BASE: &str = "DC=lab,DC=commpool,DC=test";

/// Name of the domain as Kerberos and DNS know it.
const REALM: &str = "LAB.COMMPOOL.TEST";

/// Rises whenever a domain is made in another way than before, so that kept ones are made anew.
const RECIPE: u32 = 1;

/// The account that reads the directory, and one that may read nothing of its people.
const ACCOUNTS: [&str; 2] = ["svc-replicator", "svc-blind"];

/// Attributes of Live Communications Server.
const SCHEMA: &str = include_str!("schema.ldif");

/// Only LDAP is served, by one process, on one address. What is written need not survive the machine.
const CONFIGURATION: &str = "\
[global]
netbios name = DC
realm = LAB.COMMPOOL.TEST
workgroup = LAB
server role = active directory domain controller
server services = ldap
dcerpc endpoint servers =
interfaces = @ADDRESS@/8
bind interfaces only = yes
private dir = @FOLDER@/domain/private
state directory = @FOLDER@/domain/state
cache directory = @FOLDER@/cache
lock directory = @FOLDER@/lock
pid directory = @FOLDER@/lock
ncalrpc dir = @FOLDER@/lock/ncalrpc
binddns dir = @FOLDER@/domain/bind-dns
log file = @FOLDER@/log/samba.log
tls enabled = yes
tls keyfile = @FOLDER@/tls/server.key
tls certfile = @FOLDER@/tls/server.crt
tls cafile = @FOLDER@/tls/ca.crt
ldb:nosync = true
dsdb:schema update allowed = true
";

impl Directory {
    /// Lays out the folder: a copy of a domain, configuration, accounts.
    pub(super) fn make_samba(&self, workspace: &Workspace, settings: &Settings) -> Result<()> {
        let domain = template(workspace, settings)?;
        copy(&domain, &self.folder.join("domain"))?;
        for name in ["cache", "lock", "log"] {
            fs::create_dir_all(self.folder.join(name))?;
        }
        self.write("smb.conf", CONFIGURATION, &[])?;
        let [reader, blind] = ACCOUNTS.map(|account| format!("{account}@{}", REALM.to_lowercase()));
        fs::write(&self.access.bind_dn_file, reader)?;
        fs::write(&self.access.blind_dn_file, blind)?;
        let password = utf16(&fs::read_to_string(&self.access.password_file)?);
        let account = |ldif: Ldif, name: &&str| ldif.replace(&account_dn(name), "clearTextPassword", &[&password]);
        self.apply(&ACCOUNTS.iter().fold(Ldif::new(), account))
    }

    /// The server in the foreground.
    pub(super) fn samba_command(&self) -> Result<Command> {
        let mut command = self.place.command("samba")?;
        command.args(["--foreground", "--no-process-group", "--model=single", "--configfile"]);
        command.arg(self.folder.join("smb.conf"));
        Ok(command)
    }

    /// A tool that works on the server's database.
    pub(super) fn ldb(&self, tool: &str) -> Result<Command> {
        ldb(tool, &self.folder.join("smb.conf"), &self.folder.join("domain"))
    }
}

/// A tool on the database of a domain. The server notices what it changes.
fn ldb(tool: &str, configuration: &Path, domain: &Path) -> Result<Command> {
    let mut command = Command::new(which(tool).with_context(|| format!("there is no program {tool}"))?);
    command.arg("--configfile").arg(configuration).arg("--nosync");
    command.arg("-H").arg(domain.join("private/sam.ldb"));
    Ok(command)
}

/// A domain with schema, folders, accounts and a crowd, made once and kept.
fn template(workspace: &Workspace, settings: &Settings) -> Result<PathBuf> {
    let version = packages::version(Kind::Samba.package()).unwrap_or_default();
    let recipe = format!("{RECIPE} {version} {SCHEMA} {CONFIGURATION}");
    let empty = kept(workspace, &recipe, |maker| {
        say("a domain for Samba is made and kept");
        maker.make()
    })?;
    if settings.crowd == 0 {
        return Ok(empty);
    }
    kept(workspace, &format!("{recipe} {} {}", settings.crowd, settings.domain), |maker| {
        say(&format!("{} people are put into a domain for Samba, which is kept", settings.crowd));
        copy(&empty, &maker.domain)?;
        maker.add(&people::crowd(settings.crowd, &settings.domain))
    })
}

/// A domain by its recipe: kept since it was made, or made now.
fn kept(workspace: &Workspace, recipe: &str, make: impl FnOnce(&Maker) -> Result<()>) -> Result<PathBuf> {
    let folder = workspace.folder("directory")?;
    let digest: String = Sha256::digest(recipe).iter().take(6).map(|octet| format!("{octet:02x}")).collect();
    let path = folder.join(format!("samba-{digest}"));
    let lock = fs::File::create(folder.join(format!("samba-{digest}.lock")))?;
    lock.lock().context("cannot lock the kept domain")?;
    if !path.exists() {
        let new = folder.join(format!("samba-{digest}.new"));
        if new.exists() {
            fs::remove_dir_all(&new)?;
        }
        let made = Maker::new(&new).and_then(|maker| make(&maker));
        made.with_context(|| format!("no domain was made; its parts are in {}", new.display()))?;
        fs::rename(new.join("domain"), &path)?;
        fs::remove_dir_all(&new)?;
    }
    Ok(path)
}

/// Makes a domain in a folder.
struct Maker {
    configuration: PathBuf,
    domain: PathBuf,
}

impl Maker {
    fn new(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        for name in ["cache", "lock", "log"] {
            fs::create_dir_all(folder.join(name))?;
        }
        let configuration = folder.join("smb.conf");
        let text = CONFIGURATION.replace("@FOLDER@", &folder.display().to_string()).replace("@ADDRESS@", "127.0.0.1");
        fs::write(&configuration, text)?;
        Ok(Self { configuration, domain: folder.join("domain") })
    }

    fn make(&self) -> Result<()> {
        let mut provision = Command::new(which("samba-tool").context("there is no program samba-tool")?);
        provision.args(["domain", "provision", "--server-role=dc", "--dns-backend=NONE", "--host-name=dc"]);
        provision.args(["--host-ip=127.0.0.1", "--domain=LAB", "--option=ldb:nosync=true"]);
        provision.arg(format!("--realm={REALM}")).arg(format!("--adminpass={}", password()?));
        provision.arg(format!("--targetdir={}", self.domain.display()));
        output(&mut provision)?;
        let schema = format!("CN=Schema,CN=Configuration,{BASE}");
        self.tool("ldbadd", &SCHEMA.replace("@SCHEMA@", &schema))?;
        let names = SCHEMA.lines().filter_map(|line| line.strip_prefix("lDAPDisplayName: "));
        let user = format!("CN=User,{schema}");
        self.tool("ldbmodify", names.fold(Ldif::new(), |ldif, name| ldif.put(&user, "mayContain", name)).changes())?;
        self.tool("ldbmodify", base().changes())?;
        self.blind()
    }

    /// Adds people.
    fn add(&self, people: &[Person]) -> Result<()> {
        let mut parts = people.chunks(super::TRANSACTION);
        parts.try_for_each(|some| self.tool("ldbadd", &entries(some, Kind::Samba).entries()))
    }

    /// Runs a tool with a text.
    fn tool(&self, name: &str, text: &str) -> Result<()> {
        output_of(&mut ldb(name, &self.configuration, &self.domain)?, text.as_bytes()).map(drop)
    }

    /// Takes from one account the right to see anything of the people: to list (LC), to read (RP), to see that there is
    /// something (LO).
    fn blind(&self) -> Result<()> {
        let [_, blind] = ACCOUNTS;
        let mut search = ldb("ldbsearch", &self.configuration, &self.domain)?;
        let found = output(search.args(["-b", &account_dn(blind), "-s", "base", "objectSid"]))?;
        let sid = found.lines().find_map(|line| line.strip_prefix("objectSid: ")).context("an account without SID")?;
        for unit in ["People", "Elsewhere"] {
            let mut acl = Command::new(which("samba-tool").context("there is no program samba-tool")?);
            acl.args(["dsacl", "set", "--action=deny", "--sddl", &format!("(D;CI;LCRPLO;;;{sid})")]);
            acl.arg(format!("--objectdn={}", Kind::Samba.unit(unit)));
            acl.arg("-H").arg(self.domain.join("private/sam.ldb")).arg("--configfile").arg(&self.configuration);
            output(&mut acl)?;
        }
        Ok(())
    }
}

/// Folders and accounts of every domain; the accounts get other passwords when they are used.
fn base() -> Ldif {
    let unit = |ldif: Ldif, name: &&str| {
        ldif.insert(&Entry::new(Kind::Samba.unit(name)).with("objectClass", "organizationalUnit"))
    };
    let account = |ldif: Ldif, name: &&str| {
        let entry = Entry::new(account_dn(name)).with("objectClass", "user").with("sAMAccountName", name);
        let full_name = format!("{name}@{}", REALM.to_lowercase());
        ldif.insert(&entry.with("userPrincipalName", full_name).with("userAccountControl", "544"))
    };
    ACCOUNTS.iter().fold(["People", "Elsewhere", "Groups"].iter().fold(Ldif::new(), unit), account)
}

fn account_dn(name: &str) -> String {
    format!("CN={name},CN=Users,{BASE}")
}

/// A password as Active Directory wants it.
fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}
