//! A server that speaks LDAP as well or as badly as a test wants. It reads requests by a parser that is not ours.

use std::io;
use std::sync::{Arc, Mutex};

use commpool_model::config::Directory;
use commpool_replicator::ber;
use commpool_replicator::entry::Entry;
use lber::structure::{PL, StructureTag};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use crate::lists::configuration;
use crate::pki::{Flaw, Pki};

pub(crate) const NAME: &str = "CN=replicator,DC=example,DC=com";
pub(crate) const PASSWORD: &str = "pässword with a space ";

/// What a client asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    StartTls,
    Bind { name: String, password: String },
    Search { base: String, scope: u8, filter: Vec<u8>, attributes: Vec<String>, size: usize, cookie: Vec<u8> },
    Unbind,
    Other(u64),
}

/// What the stub does about it.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    /// Sends these octets.
    Send(Vec<u8>),
    /// Says nothing more, and does not hang up.
    Silence,
    /// Hangs up.
    HangUp,
}

/// Answers a question with this number; `None`: as a good server would.
pub(crate) type Script = Arc<dyn Fn(u32, &Ask) -> Option<Vec<Deed>> + Send + Sync>;

/// How a stub behaves.
#[derive(Clone, Default)]
pub(crate) struct Manner {
    pub(crate) entries: Vec<Entry>,
    pub(crate) members: Vec<Entry>,
    pub(crate) script: Option<Script>,
    pub(crate) flaw: Flaw,
    /// `ldap://` with StartTLS.
    pub(crate) start_tls: bool,
}

/// A running stub.
pub(crate) struct Stub {
    pub(crate) url: String,
    folder: tempfile::TempDir,
    seen: Arc<Mutex<Vec<Ask>>>,
    _task: AbortOnDropHandle<()>,
}

impl Stub {
    pub(crate) async fn new(manner: Manner) -> Self {
        let pki = Pki::new(manner.flaw);
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("ca.crt", &pki.ca);
        write("name", NAME);
        write("password", &format!("{PASSWORD}\n"));
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![pki.certificate], pki.key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if manner.start_tls { "ldap" } else { "ldaps" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let note = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let talk = Talk { manner: manner.clone(), seen: Arc::clone(&note) };
                tokio::spawn(talk.over(tcp, acceptor.clone()));
            }
        });
        Self { url, folder, seen, _task: AbortOnDropHandle::new(task) }
    }

    /// The configuration of a client.
    pub(crate) fn configuration(&self) -> Directory {
        let mut config = configuration();
        config.ldap.urls = vec![self.url.clone()];
        config.ldap.ca_file = self.folder.path().join("ca.crt");
        config.ldap.bind_dn_file = self.folder.path().join("name");
        config.ldap.password_file = self.folder.path().join("password");
        config
    }

    /// Everything that was asked, in the clear or over TLS.
    pub(crate) fn seen(&self) -> Vec<Ask> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn binds(&self) -> usize {
        self.seen().iter().filter(|ask| matches!(ask, Ask::Bind { .. })).count()
    }
}

struct Talk {
    manner: Manner,
    seen: Arc<Mutex<Vec<Ask>>>,
}

impl Talk {
    async fn over(self, mut tcp: TcpStream, acceptor: TlsAcceptor) {
        if self.manner.start_tls && !matches!(self.serve(&mut tcp).await, Ok(true)) {
            return;
        }
        if let Ok(mut tls) = acceptor.accept(tcp).await {
            let _ = self.serve(&mut tls).await;
            let _ = tls.shutdown().await;
        }
    }

    /// Answers until the other side has enough; true: TLS begins.
    async fn serve(&self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<bool> {
        let mut buffer = Vec::new();
        loop {
            let (rest, id, ask) = loop {
                if let Ok((rest, tag)) = lber::parse::parse_tag(&buffer) {
                    let (id, ask) = understood(tag);
                    break (rest.to_vec(), id, ask);
                }
                if stream.read_buf(&mut buffer).await? == 0 {
                    return Ok(false);
                }
            };
            buffer = rest;
            self.seen.lock().unwrap().push(ask.clone());
            let scripted = self.manner.script.as_ref().and_then(|script| script(id, &ask));
            let as_told = scripted.is_some();
            for deed in scripted.unwrap_or_else(|| self.good(id, &ask)) {
                match deed {
                    Deed::Send(octets) => stream.write_all(&octets).await?,
                    Deed::Silence => std::future::pending().await,
                    Deed::HangUp => return Ok(false),
                }
            }
            stream.flush().await?;
            if ask == Ask::StartTls && !as_told {
                return Ok(true);
            }
        }
    }

    fn good(&self, id: u32, ask: &Ask) -> Vec<Deed> {
        match ask {
            Ask::StartTls => vec![Deed::Send(done(id, 0x78, 0, "", None))],
            Ask::Bind { name, password } => {
                let code = if (name.as_str(), password.as_str()) == (NAME, PASSWORD) { 0 } else { 49 };
                let text = if code == 0 { "" } else { "80090308: LdapErr: data 52e, v4563" };
                vec![Deed::Send(done(id, 0x61, code, text, None))]
            }
            Ask::Search { scope: 0, base, .. } => {
                let itself = Entry { dn: base.clone(), attributes: Vec::new() };
                vec![Deed::Send(entry(id, &itself)), Deed::Send(done(id, 0x65, 0, "", Some(b"")))]
            }
            Ask::Search { filter, attributes, size, cookie, .. } => {
                let group = filter.windows(8).any(|part| part == b"memberOf");
                let entries = if group { &self.manner.members } else { &self.manner.entries };
                page(id, entries, attributes, *size, cookie)
            }
            Ask::Unbind => vec![Deed::HangUp],
            Ask::Other(_) => vec![Deed::Send(done(id, 0x78, 2, "", None))],
        }
    }
}

/// A page of these entries; the cookie is the number of the next one.
fn page(id: u32, entries: &[Entry], attributes: &[String], size: usize, cookie: &[u8]) -> Vec<Deed> {
    let from = std::str::from_utf8(cookie).unwrap().parse::<usize>().unwrap_or(0);
    let asked = |name: &str| attributes.iter().any(|asked| asked.eq_ignore_ascii_case(name));
    let mut deeds: Vec<Deed> = entries
        .iter()
        .skip(from)
        .take(size)
        .map(|whole| {
            let attributes = whole.attributes.iter().filter(|(name, _)| asked(name)).cloned().collect();
            Deed::Send(entry(id, &Entry { dn: whole.dn.clone(), attributes }))
        })
        .collect();
    // Active Directory tells of its other parts in between.
    deeds.push(Deed::Send(message(id, 0x73, |out| ber::put(out, ber::OCTETS, b"ldap://elsewhere.example/DC=x"))));
    let next = if from + size < entries.len() { (from + size).to_string() } else { String::new() };
    deeds.push(Deed::Send(done(id, 0x65, 0, "", Some(next.as_bytes()))));
    deeds
}

fn understood(tag: StructureTag) -> (u32, Ask) {
    let PL::C(parts) = tag.payload else { panic!("no message: {tag:?}") };
    let id = number(&parts[0]);
    let inner = |tag: &StructureTag| match &tag.payload {
        PL::C(inner) => inner.clone(),
        PL::P(_) => Vec::new(),
    };
    let operation = inner(&parts[1]);
    let ask = match parts[1].id {
        0 => Ask::Bind { name: text(&operation[1]), password: text(&operation[2]) },
        2 => Ask::Unbind,
        3 => {
            let mut filter = Vec::new();
            flatten(&operation[6], &mut filter);
            let control = inner(&inner(&parts[2])[0]);
            assert_eq!(text(&control[0]), "1.2.840.113556.1.4.319");
            let value = lber::parse::parse_tag(octets(&control[1])).unwrap().1;
            let value = inner(&value);
            Ask::Search {
                base: text(&operation[0]),
                scope: number(&operation[1]) as u8,
                filter,
                attributes: inner(&operation[7]).iter().map(text).collect(),
                size: number(&value[0]) as usize,
                cookie: octets(&value[1]).to_vec(),
            }
        }
        23 if text(&operation[0]) == "1.3.6.1.4.1.1466.20037" => Ask::StartTls,
        other => Ask::Other(other),
    };
    (id, ask)
}

fn octets(tag: &StructureTag) -> &[u8] {
    match &tag.payload {
        PL::P(octets) => octets,
        PL::C(_) => &[],
    }
}

fn text(tag: &StructureTag) -> String {
    String::from_utf8(octets(tag).to_vec()).unwrap()
}

fn number(tag: &StructureTag) -> u32 {
    octets(tag).iter().fold(0, |number, octet| number << 8 | u32::from(*octet))
}

fn flatten(tag: &StructureTag, out: &mut Vec<u8>) {
    match &tag.payload {
        PL::P(octets) => out.extend(octets),
        PL::C(inner) => inner.iter().for_each(|tag| flatten(tag, out)),
    }
}

/// A message with this number and answer.
pub(crate) fn message(id: u32, tag: u8, inner: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    ber::wrap(&mut out, ber::SEQUENCE, |out| {
        ber::put_number(out, ber::INTEGER, id);
        ber::wrap(out, tag, inner);
    });
    out
}

/// A result; with a cookie, the end of a page.
pub(crate) fn done(id: u32, tag: u8, code: u32, diagnostic: &str, cookie: Option<&[u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    ber::wrap(&mut out, ber::SEQUENCE, |out| {
        ber::put_number(out, ber::INTEGER, id);
        ber::wrap(out, tag, |out| {
            ber::put_number(out, ber::ENUMERATED, code);
            ber::put(out, ber::OCTETS, b"");
            ber::put(out, ber::OCTETS, diagnostic.as_bytes());
        });
        let Some(cookie) = cookie else { return };
        ber::wrap(out, 0xa0, |out| {
            ber::wrap(out, ber::SEQUENCE, |out| {
                ber::put(out, ber::OCTETS, b"1.2.840.113556.1.4.319");
                let mut value = Vec::new();
                ber::wrap(&mut value, ber::SEQUENCE, |out| {
                    ber::put_number(out, ber::INTEGER, 0);
                    ber::put(out, ber::OCTETS, cookie);
                });
                ber::put(out, ber::OCTETS, &value);
            });
        });
    });
    out
}

/// An entry of a search.
pub(crate) fn entry(id: u32, entry: &Entry) -> Vec<u8> {
    message(id, 0x64, |out| {
        ber::put(out, ber::OCTETS, entry.dn.as_bytes());
        ber::wrap(out, ber::SEQUENCE, |out| {
            for (name, values) in &entry.attributes {
                ber::wrap(out, ber::SEQUENCE, |out| {
                    ber::put(out, ber::OCTETS, name.as_bytes());
                    ber::wrap(out, ber::SET, |out| values.iter().for_each(|value| ber::put(out, ber::OCTETS, value)));
                });
            }
        });
    })
}
