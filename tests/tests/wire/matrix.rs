//! Every method with every kind of wrong identity: none changes state or reaches a client.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use commpool_tests::client::{Client, PATIENCE, expect, unique};
use commpool_tests::digest::{Challenge, Credentials};
use commpool_tests::link::{Arrival, Transport};
use commpool_tests::packet::Packet;
use commpool_tests::presence::published;
use commpool_tests::server::Server;
use commpool_tests::watch::{Notice, Watch};

/// Methods the server serves after a proof of identity.
const SERVED: [&str; 4] = ["REGISTER", "MESSAGE", "PUBLISH", "SUBSCRIBE"];

/// Methods it answers by itself, whoever asks: what it can do, or that it does not serve them; none for ACK.
const OTHERS: [(&str, Option<u16>); 15] = [
    ("OPTIONS", Some(200)),
    ("INVITE", Some(405)),
    ("BYE", Some(405)),
    ("UPDATE", Some(405)),
    ("PRACK", Some(405)),
    ("INFO", Some(405)),
    ("REFER", Some(405)),
    ("SERVICE", Some(405)),
    ("BENOTIFY", Some(405)),
    ("NEGOTIATE", Some(405)),
    ("FROBNICATE", Some(405)),
    ("register", Some(405)),
    ("CANCEL", Some(481)),
    ("NOTIFY", Some(481)),
    ("ACK", None),
];

/// Longest life of a nonce.
const NONCE_LIFE: Duration = Duration::from_secs(60);

/// What is wrong with the identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    NoCredentials,
    Password,
    StaleNonce,
    ForeignNonce,
    ReplayedCount,
    OtherUser,
    OtherRealm,
    OtherMethod,
    OtherFrom,
}

impl Wrong {
    const ALL: [Self; 9] = [
        Self::NoCredentials,
        Self::Password,
        Self::ForeignNonce,
        Self::ReplayedCount,
        Self::OtherUser,
        Self::OtherRealm,
        Self::OtherMethod,
        Self::OtherFrom,
        Self::StaleNonce,
    ];
}

/// Alice attacks; bob is signed in and watched by carol, who must both notice nothing.
struct Scene {
    server: Server,
    alice: Client,
    bob: Client,
    carol: Client,
    of_bob: Watch,
    of_alice: Watch,
    dave: Client,
    stale: (Challenge, Instant),
    replayed: Challenge,
}

impl Scene {
    async fn set(transport: Transport) -> Result<Self> {
        let server = Server::start()?;
        let alice = server.signed_in("alice", transport).await?;
        let stale = alice.challenge(&alice.transact(&alice.register(600)).await?)?;
        let stale = (stale, Instant::now());
        // A nonce whose count 1 is used up.
        let request = alice.register(600);
        let replayed = alice.challenge(&alice.transact(&request).await?)?;
        let used = alice.credentials(&replayed, &request, 1)?;
        expect(alice.transact(&alice.with_credentials(request, &used, false)?).await?, 200)?;
        let (bob, carol) = (server.signed_in("bob", transport).await?, server.signed_in("carol", transport).await?);
        bob.publish("open", Some("busy"), None, None).await?;
        let mut of_bob = carol.watch(&bob.aor()).await?;
        carol.notice(&mut of_bob, "busy", PATIENCE, |notice| notice.is_doing("busy")).await?;
        let mut of_alice = carol.watch(&alice.aor()).await?;
        carol.notice(&mut of_alice, "open", PATIENCE, Notice::is_open).await?;
        let dave = server.client("dave", transport).await?;
        Ok(Self { server, alice, bob, carol, of_bob, of_alice, dave, stale, replayed })
    }

    /// A request that would do harm if it were carried out.
    fn harmful(&self, method: &str) -> Packet {
        let (alice, bob) = (&self.alice, &self.bob);
        match method {
            "REGISTER" => alice.register(0).set("Contact", "*").set("Call-ID", unique("attack")),
            "PUBLISH" => {
                let document = published(&alice.aor(), "closed", Some("away"), Some("harm"));
                alice.publication(Some(&document), None, 600)
            }
            "SUBSCRIBE" => alice.subscription(&bob.aor(), 600),
            "MESSAGE" => alice.message(&bob.aor(), "harm done by the matrix"),
            _ => alice
                .request(method, &bob.aor())
                .with("Contact", format!("<{}>", alice.contact_uri()))
                .with("Event", "presence")
                .with("Subscription-State", "active")
                .with_body("text/plain", "harm done by the matrix"),
        }
    }

    /// The request with an identity that is wrong in one way.
    async fn spoiled(&self, method: &str, wrong: Wrong) -> Result<Packet> {
        let request = self.harmful(method);
        if wrong == Wrong::NoCredentials {
            return Ok(request);
        }
        // One nonce for each, fresh but for the two cases that are about it.
        let probe = self.alice.transact(&self.harmful("SUBSCRIBE")).await?;
        let mut challenge = self.alice.challenge(&probe)?;
        let mut count = 1;
        match wrong {
            Wrong::StaleNonce => challenge = self.stale.0.clone(),
            Wrong::ReplayedCount => challenge = self.replayed.clone(),
            Wrong::ForeignNonce => {
                let half = challenge.nonce.len() / 2;
                let turned = challenge.nonce.split_at(half);
                challenge.nonce = format!("{}{}", turned.1, turned.0);
                count = 2;
            }
            _ => {}
        }
        let mut credentials = self.alice.credentials(&challenge, &request, count)?;
        let mut method_signed = method;
        match wrong {
            Wrong::Password => credentials.ha1 = challenge.algorithm.hash("alice:commpool.test:guess"),
            // Dave's own proof, right in itself, on a request From alice.
            Wrong::OtherUser => {
                credentials = Credentials::new(
                    &challenge,
                    "dave",
                    &self.dave.identity().password,
                    request.uri().context("no URI")?,
                    1,
                );
            }
            Wrong::OtherRealm => {
                challenge.realm = "elsewhere.test".to_owned();
                let identity = self.alice.identity();
                let uri = request.uri().context("no URI")?;
                credentials = Credentials::new(&challenge, &identity.user, &identity.password, uri, 1);
            }
            Wrong::OtherMethod => method_signed = "OPTIONS",
            _ => {}
        }
        let proxy = method == "MESSAGE";
        let mut spoiled = self.alice.again(request)?;
        let name = if proxy { "Proxy-Authorization" } else { "Authorization" };
        spoiled = spoiled.set(name, credentials.header(method_signed));
        if wrong == Wrong::OtherFrom {
            spoiled = self.in_bobs_name(spoiled, method);
        }
        Ok(spoiled)
    }

    /// Alice's credentials, bob's name in From, and in To where the request acts on its sender.
    fn in_bobs_name(&self, request: Packet, method: &str) -> Packet {
        let bob = self.bob.aor();
        let request = request.set("From", format!("<{bob}>;tag={}", unique("f")));
        match method {
            "REGISTER" => request.set("To", format!("<{bob}>")),
            "PUBLISH" => request.set("To", format!("<{bob}>")),
            _ => request,
        }
    }

    async fn answer(&self, request: &Packet) -> Result<Packet> {
        self.alice.transact(request).await
    }

    /// Nothing may have happened to anybody.
    async fn unharmed(&self) -> Result<()> {
        let rows = expect(self.alice.exchange(self.alice.query()).await?, 200)?;
        ensure!(rows.headers("Contact").count() == 1, "alice's binding:\n{rows}");
        let rows = expect(self.bob.exchange(self.bob.query()).await?, 200)?;
        let own = self.bob.contact();
        ensure!(rows.headers("Contact").count() == 1 && rows.headers("Contact").all(|row| row.starts_with(&own)));
        let reached = |arrival: &Arrival| arrival.packet.method().is_some();
        for (who, client) in [("bob", &self.bob), ("carol", &self.carol), ("alice", &self.alice)] {
            client.link().none(&format!("a request to {who}"), Duration::from_millis(100), reached).await?;
        }
        self.carol.no_notice(&self.of_bob, Duration::from_millis(50)).await?;
        self.carol.no_notice(&self.of_alice, Duration::from_millis(50)).await
    }
}

async fn run(transport: Transport) -> Result<()> {
    let scene = Scene::set(transport).await?;
    for wrong in Wrong::ALL {
        if wrong == Wrong::StaleNonce {
            // Time itself is what makes a nonce stale; there is no event to wait for.
            tokio::time::sleep((NONCE_LIFE + Duration::from_secs(2)).saturating_sub(scene.stale.1.elapsed())).await;
        }
        for method in SERVED {
            let request = scene.spoiled(method, wrong).await?;
            let answer = scene.answer(&request).await.with_context(|| format!("{method} with {wrong:?}"))?;
            check(method, wrong, &answer)?;
        }
        for (method, status) in OTHERS {
            let request = scene.spoiled(method, wrong).await?;
            let Some(status) = status else {
                scene.alice.link().send(&request.octets()).await?;
                continue;
            };
            let answer = scene.answer(&request).await.with_context(|| format!("{method} with {wrong:?}"))?;
            ensure!(answer.status() == Some(status), "{method} with {wrong:?}: not {status} but\n{answer}");
            ensure!(status != 405 || answer.need("Allow")?.contains("REGISTER"), "{answer}");
        }
        scene.unharmed().await.with_context(|| format!("after {wrong:?} over {transport}"))?;
    }
    scene.server.finish()
}

fn check(method: &str, wrong: Wrong, answer: &Packet) -> Result<()> {
    let challenged = if method == "MESSAGE" { 407 } else { 401 };
    let fits = match (wrong, answer.status()) {
        (Wrong::OtherFrom | Wrong::OtherUser, Some(403)) => true,
        (_, Some(status)) => status == challenged,
        (_, None) => false,
    };
    ensure!(fits, "{method} with {wrong:?}:\n{answer}");
    if answer.status() != Some(challenged) {
        return Ok(());
    }
    let stale = Challenge::all(answer)?.iter().all(|challenge| challenge.stale);
    match wrong {
        // The password was right: a client must not ask its user for it again.
        Wrong::StaleNonce | Wrong::ReplayedCount if !stale => bail!("{method} with {wrong:?}: not stale\n{answer}"),
        Wrong::Password | Wrong::NoCredentials if stale => bail!("{method} with {wrong:?}: stale\n{answer}"),
        _ => Ok(()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_without_a_proof_over_udp() -> Result<()> {
    run(Transport::Udp).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_without_a_proof_over_tcp() -> Result<()> {
    run(Transport::Tcp).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_without_a_proof_over_tls() -> Result<()> {
    run(Transport::Tls).await
}
