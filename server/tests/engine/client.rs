//! A client that knows its password: writes requests, answers challenges and deliveries.

use commpool_server::engine::flow::Flow;
use commpool_sip::digest::{Algorithm, Credentials, ha1};
use commpool_sip::header::HeaderName;
use commpool_sip::message::Message;
use sha2::{Digest, Sha256};

use super::bench::{DOMAIN, Pool};

/// One device.
pub(crate) struct Client {
    pub(crate) flow: Flow,
    pub(crate) user: &'static str,
    password: &'static str,
    call_id: String,
    cseq: u32,
    branch: u32,
    pub(crate) contact: String,
}

/// A request before its credentials.
pub(crate) struct Draft {
    pub(crate) method: &'static str,
    pub(crate) uri: String,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) call_id: String,
    pub(crate) cseq: u32,
    pub(crate) branch: String,
    pub(crate) headers: String,
    pub(crate) body: String,
}

impl Draft {
    pub(crate) fn text(&self) -> String {
        format!(
            "{} {} SIP/2.0\r\nVia: SIP/2.0/TCP client.invalid;rport;branch={}\r\nMax-Forwards: 70\r\nFrom: {}\r\nTo: {}\r\n\
             Call-ID: {}\r\nCSeq: {} {}\r\n{}Content-Length: {}\r\n\r\n{}",
            self.method,
            self.uri,
            self.branch,
            self.from,
            self.to,
            self.call_id,
            self.cseq,
            self.method,
            self.headers,
            self.body.len(),
            self.body
        )
    }
}

impl Client {
    pub(crate) fn new(flow: Flow, user: &'static str, password: &'static str, device: &str) -> Self {
        let contact = format!("<sip:{user}@{device}.invalid:5070;transport=tcp>");
        Self { flow, user, password, call_id: format!("{user}-{device}"), cseq: 0, branch: 0, contact }
    }

    pub(crate) fn draft(&mut self, method: &'static str, to: &str) -> Draft {
        self.cseq += 1;
        self.branch += 1;
        let aor = format!("sip:{}@{DOMAIN}", self.user);
        let target = format!("sip:{to}@{DOMAIN}");
        Draft {
            method,
            uri: if method == "REGISTER" { format!("sip:{DOMAIN}") } else { target.clone() },
            from: format!("<{aor}>;tag={}-tag", self.call_id),
            to: format!("<{target}>"),
            call_id: self.call_id.clone(),
            cseq: self.cseq,
            branch: format!("z9hG4bK-{}-{}", self.call_id, self.branch),
            headers: String::new(),
            body: String::new(),
        }
    }

    /// Sends a request, answers its challenge, and gives the final answer.
    pub(crate) fn ask(&mut self, pool: &mut Pool, mut draft: Draft) -> Message {
        let challenge = self.bare(pool, &draft);
        assert!(matches!(challenge.status(), Some(401 | 407)), "{challenge:?}");
        let credentials = self.credentials(&challenge, &draft, 1);
        draft.headers.push_str(&credentials);
        self.cseq += 1;
        self.branch += 1;
        draft.cseq = self.cseq;
        draft.branch = format!("z9hG4bK-{}-{}", self.call_id, self.branch);
        pool.send(self.flow, &draft.text());
        self.final_answer(pool)
    }

    /// Sends it as it is; the answer.
    pub(crate) fn bare(&mut self, pool: &mut Pool, draft: &Draft) -> Message {
        pool.send(self.flow, &draft.text());
        self.final_answer(pool)
    }

    fn final_answer(&self, pool: &mut Pool) -> Message {
        let mut answers = pool.received(self.flow);
        assert!(!answers.is_empty(), "no answer");
        let rest = answers.split_off(1);
        pool.put_back(self.flow, rest);
        answers.remove(0)
    }

    /// The header row that answers a challenge with SHA-256.
    pub(crate) fn credentials(&self, challenge: &Message, draft: &Draft, nc: u32) -> String {
        self.credentials_of(challenge, draft, nc, self.user, self.password)
    }

    pub(crate) fn credentials_of(
        &self,
        challenge: &Message,
        draft: &Draft,
        nc: u32,
        user: &str,
        password: &str,
    ) -> String {
        let (name, row) =
            [(HeaderName::WwwAuthenticate, "Authorization"), (HeaderName::ProxyAuthenticate, "Proxy-Authorization")]
                .into_iter()
                .find_map(|(asked, answer)| challenge.text(asked).map(|row| (answer, row.into_owned())))
                .unwrap();
        let parsed =
            Credentials::parse(&format!("{row}, username=\"\", uri=\"\", response=\"\"")).map(|c| c.nonce.into_owned());
        let nonce = parsed.unwrap();
        let hash =
            |text: String| Sha256::digest(text.as_bytes()).iter().map(|o| format!("{o:02x}")).collect::<String>();
        let first = ha1(Algorithm::Sha256, user, DOMAIN, password);
        let second = hash(format!("{}:{}", draft.method, draft.uri));
        let response = hash(format!("{first}:{nonce}:{nc:08x}:cn:auth:{second}"));
        format!(
            "{name}: Digest username=\"{user}\", realm=\"{DOMAIN}\", nonce=\"{nonce}\", uri=\"{}\", response=\"{response}\", \
             algorithm=SHA-256, cnonce=\"cn\", qop=auth, nc={nc:08x}\r\n",
            draft.uri
        )
    }

    pub(crate) fn register(&mut self, pool: &mut Pool, expires: u32) -> Message {
        let mut draft = self.draft("REGISTER", self.user);
        draft.headers = format!("Contact: {};expires={expires}\r\n", self.contact);
        self.ask(pool, draft)
    }

    /// Answers every request that came in, with this status; what came in.
    pub(crate) fn answer_all(&mut self, pool: &mut Pool, status: u16) -> Vec<Message> {
        let requests: Vec<Message> = pool.received(self.flow).into_iter().filter(Message::is_request).collect();
        for request in &requests {
            let octets = commpool_sip::build::Response::to(request, status).to_tag("device").build();
            pool.send(self.flow, std::str::from_utf8(&octets).unwrap());
        }
        requests
    }
}
