//! OpenLDAP: a folder with configuration and database, and running it.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use super::ldif::{Entry, Ldif};
use super::{Directory, Kind, Settings, entries, people};
use crate::command::{output, output_of, which};

/// Distinguished name of the directory.
pub(super) const BASE: &str = "DC=people,DC=commpool,DC=test";

/// User whom Debian's package makes.
const USER: &str = "openldap";

/// Who reads the directory, and who may read nothing of its people.
const ACCOUNTS: [&str; 2] = ["replicator", "blind"];

/// Root of this machine is the administrator, by the socket in the folder. What is written need not survive the machine.
/// The attributes of our own have numbers of OpenLDAP's range for experiments.
const CONFIGURATION: &str = "\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
attributetype ( 1.3.6.1.4.1.4203.666.99.1 NAME 'labSipAddress' SUP mail )
attributetype ( 1.3.6.1.4.1.4203.666.99.2 NAME 'labSipEnabled' EQUALITY booleanMatch
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.7 SINGLE-VALUE )
objectclass ( 1.3.6.1.4.1.4203.666.99.3 NAME 'commpoolLabUser' SUP top AUXILIARY
  MAY ( labSipAddress $ labSipEnabled ) )
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
pidfile @FOLDER@/slapd.pid
TLSCACertificateFile @FOLDER@/tls/ca.crt
TLSCertificateFile @FOLDER@/tls/server.crt
TLSCertificateKeyFile @FOLDER@/tls/server.key
sizelimit size.soft=500 size.hard=500 size.pr=1000 size.prtotal=unlimited
database mdb
suffix \"@BASE@\"
rootdn \"gidNumber=0+uidNumber=0,cn=peercred,cn=external,cn=auth\"
directory @FOLDER@/data
maxsize 2147483648
envflags writemap nosync
dbnosync
index objectClass,uid,member,memberOf eq
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact=\"@BLIND@\" none by users read by * none
overlay memberof
memberof-group-oc groupOfNames
";

impl Directory {
    /// Lays out the folder: configuration, accounts, people.
    pub(super) fn make_openldap(&self, settings: &Settings) -> Result<()> {
        for name in ["data", "log"] {
            fs::create_dir_all(self.folder.join(name))?;
        }
        let [reader, blind] = ACCOUNTS.map(account_dn);
        fs::write(&self.access.bind_dn_file, &reader)?;
        fs::write(&self.access.blind_dn_file, &blind)?;
        self.write("slapd.conf", CONFIGURATION, &[("@BASE@", BASE), ("@BLIND@", &blind)])?;
        let password = fs::read_to_string(&self.access.password_file)?;
        let people = people::crowd(settings.crowd, &settings.domain);
        let text = base(&password).entries() + &entries(&people, Kind::OpenLdap).entries();
        let mut load = Command::new(which("slapadd").context("there is no program slapadd")?);
        load.arg("-q").arg("-f").arg(self.folder.join("slapd.conf"));
        output_of(&mut load, text.as_bytes())?;
        for name in ["data", "tls"] {
            let owner = format!("{USER}:{USER}");
            output(Command::new("chown").arg("-R").arg(owner).arg(self.folder.join(name)))?;
        }
        // For its socket and the file with its process id.
        output(Command::new("chown").arg(USER).arg(&self.folder)).map(drop)
    }

    /// The server in the foreground.
    pub(super) fn openldap_command(&self) -> Result<Command> {
        let mut command = self.place.command("slapd")?;
        command.args(["-d", "0", "-u", USER, "-g", USER, "-f"]).arg(self.folder.join("slapd.conf"));
        command.arg("-h").arg(format!("{}/ {}/ {}", self.access.ldap, self.access.ldaps, self.socket()));
        Ok(command)
    }

    /// The tool that makes changes as the administrator.
    pub(super) fn openldap_change(&self) -> Result<Command> {
        let mut command = self.place.command("ldapmodify")?;
        command.args(["-Q", "-Y", "EXTERNAL", "-H", &self.socket()]);
        Ok(command)
    }

    /// Its socket as a URL.
    fn socket(&self) -> String {
        format!("ldapi://{}", self.folder.join("ldapi").display().to_string().replace('/', "%2F"))
    }
}

/// The directory itself, its folders and accounts.
fn base(password: &str) -> Ldif {
    let top = Entry::new(BASE).with("objectClass", "domain").with("dc", "people");
    let unit = |ldif: Ldif, name: &&str| {
        ldif.insert(&Entry::new(Kind::OpenLdap.unit(name)).with("objectClass", "organizationalUnit").with("ou", name))
    };
    let account = |ldif: Ldif, name: &&str| {
        // Values of one attribute must follow each other.
        let entry = Entry::new(account_dn(name)).with("objectClass", "organizationalRole");
        let entry = entry.with("objectClass", "simpleSecurityObject").with("cn", name);
        ldif.insert(&entry.with("userPassword", password))
    };
    let units = ["People", "Elsewhere", "Groups"].iter().fold(Ldif::new().insert(&top), unit);
    ACCOUNTS.iter().fold(units, account)
}

fn account_dn(name: &str) -> String {
    format!("CN={name},{BASE}")
}
