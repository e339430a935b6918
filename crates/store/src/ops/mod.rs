//! The domain operations: what goes in and what comes out, the same for every backend.
//!
//! Every operation is a batch: arrays in, one reply per request out, in the order of the requests. A reply is a
//! status with facts; verdicts, aggregation and routing are `commpool-model`'s.

pub mod accounts;
pub mod adopt;
pub mod assert;
pub mod credentials;
pub mod directory;
pub mod endpoints;
pub mod front_ends;
pub mod presence;
pub mod pull;
pub mod register;
pub mod route;
pub mod subscribe;

use commpool_model::ids::{EndpointId, Incarnation, Key128, UserRef, Version};

/// How durable the effect of an operation is, and which lane carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Changes nothing.
    Read,
    /// Lost only by power failure, re-asserted by the front ends.
    Soft,
    /// On disk before it is acknowledged.
    Durable,
}

/// A request whose reply has a known type.
pub trait Ask: Into<Operation> {
    /// What answers it.
    type Reply;

    /// The reply in an outcome, `None` if it is another operation's.
    fn reply(outcome: Outcome) -> Option<Self::Reply>;
}

macro_rules! operations {
    ($($(#[$doc:meta])* $variant:ident($request:ty => $reply:ty): $class:ident, $name:literal;)*) => {
        /// One request to the store.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Operation { $($(#[$doc])* $variant($request),)* }

        /// The answer to the [`Operation`] of the same name.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Outcome { $($(#[$doc])* $variant($reply),)* }

        impl Operation {
            /// Names of all operations, in the order of [`Operation::index`].
            pub const NAMES: &'static [&'static str] = &[$($name),*];

            /// Place of the operation in [`Operation::NAMES`].
            pub const fn index(&self) -> usize {
                enum Place { $($variant),* }
                match self { $(Self::$variant(_) => Place::$variant as usize,)* }
            }

            /// Class of the operation: its lane and its durability.
            pub const fn class(&self) -> Class {
                match self { $(Self::$variant(_) => Class::$class,)* }
            }

            /// Name in metrics and logs, and of the file that implements it in each backend.
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => $name,)* }
            }
        }

        $(impl From<$request> for Operation {
            fn from(request: $request) -> Self { Self::$variant(request) }
        }

        impl Ask for $request {
            type Reply = $reply;

            fn reply(outcome: Outcome) -> Option<Self::Reply> {
                match outcome {
                    Outcome::$variant(reply) => Some(reply),
                    _ => None,
                }
            }
        })*
    };
}

operations! {
    /// A front end starts: a new incarnation; in Standard Edition the one before is reaped.
    FrontEndStart(front_ends::Start => front_ends::Started): Soft, "front_end_start";
    /// A front end keeps its lease.
    Renew(front_ends::Renew => front_ends::Renewed): Soft, "renew";
    /// A front end has drained and ends.
    FrontEndStop(front_ends::Stop => front_ends::Stopped): Soft, "front_end_stop";
    /// Flows are gone: their endpoints are unroutable at once, their presence stays for the grace.
    FlowsLost(endpoints::FlowsLost => endpoints::Marked): Soft, "flows_lost";
    /// Endpoints lost for longer than their grace go, with their publications.
    SweepLost(endpoints::SweepLost => endpoints::Swept): Soft, "sweep_lost";
    /// Rows past their expiry go (only if the store too finds them past it).
    Expire(endpoints::Expire => endpoints::Swept): Soft, "expire";
    /// Who is signed in.
    EndpointsFind(endpoints::Find => endpoints::Page): Read, "endpoints_find";
    /// What is still live, for the timers of a front end that starts on an existing store.
    Timers(endpoints::Timers => endpoints::TimerRows): Read, "timers";
    /// What is needed to check somebody's Digest answer.
    Credentials(credentials::Request => credentials::Reply): Read, "credentials";
    /// A new or changed password of a user.
    CredentialPut(credentials::Put => credentials::PutReply): Durable, "credential_put";
    /// A password is taken away.
    CredentialRevoke(credentials::Revoke => credentials::Revoked): Durable, "credential_revoke";
    /// REGISTER: bindings made, refreshed, removed or asked for, all or none.
    Register(register::Request => register::Reply): Soft, "register";
    /// Bindings removed by somebody other than their client.
    Unregister(register::Unregister => register::Unregistered): Soft, "unregister";
    /// Who the target of a request is and where he can be reached.
    Route(route::Request => route::Reply): Read, "route";
    /// PUBLISH: a publication made, refreshed, changed or removed.
    Publish(presence::Publish => presence::Published): Soft, "publish";
    /// The present state of users.
    PresenceOf(presence::Of => presence::States): Read, "presence_of";
    /// SUBSCRIBE: a dialog made, refreshed or taken over.
    Subscribe(subscribe::Request => subscribe::Reply): Soft, "subscribe";
    /// A dialog ended.
    Unsubscribe(subscribe::End => subscribe::Ended): Soft, "unsubscribe";
    /// The last watcher of these users on this front end has gone.
    Unwatch(subscribe::Unwatch => subscribe::Ended): Soft, "unwatch";
    /// Accounts added, changed, enabled, disabled, removed.
    AccountPut(accounts::Put => accounts::PutReply): Durable, "account_put";
    /// Accounts by filter, a page at a time.
    AccountsFind(accounts::Find => accounts::Page): Read, "accounts_find";
    /// Accounts changed since a mark, whoever changed them.
    AccountsChanged(accounts::ChangedSince => accounts::Changed): Read, "accounts_changed";
    /// A front end whose lease has run out is declared dead.
    Reap(front_ends::Reap => front_ends::Reaped): Soft, "reap";
    /// All front ends that are remembered.
    FrontEnds(front_ends::List => front_ends::Listed): Read, "front_ends";
    /// Changes of those whom a front end watches.
    Pull(pull::Pull => pull::Pulled): Read, "pull";
    /// What a front end holds, said again after some of it was lost.
    Assert(assert::Assert => assert::Asserted): Soft, "assert";
    /// The dialogs of an endpoint that came back at another front end.
    Adopt(adopt::Adopt => adopt::Adopted): Soft, "adopt";
    /// Lifetimes and numbers of dialogs.
    Flush(adopt::Flush => subscribe::Ended): Soft, "flush";
    /// A lease by name is taken.
    LeaseTake(directory::LeaseTake => directory::LeaseTaken): Durable, "lease_take";
    /// A lease by name is kept or given back.
    LeaseKeep(directory::LeaseKeep => directory::LeaseKept): Durable, "lease_keep";
    /// State of a directory as of its last run.
    SourceGet(directory::SourceGet => directory::Source): Read, "source_get";
    /// Users that came from a directory, a page at a time.
    SourceUsers(directory::SourceUsers => directory::SourcePage): Read, "source_users";
    /// Whose addresses these are.
    AddressHolders(directory::Holders => directory::HoldersFound): Read, "address_holders";
    /// Users as a directory wants them are put aside.
    Stage(directory::Stage => directory::Staged): Soft, "stage";
    /// All that was put aside is applied.
    Apply(directory::Apply => directory::Applied): Durable, "apply";
    /// Whether the store can be written, and its schema.
    Health(HealthRequest => Health): Read, "health";
}

/// Transport of a flow as the store keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Transport {
    /// UDP.
    Udp = 1,
    /// TCP.
    Tcp = 2,
    /// TLS over TCP.
    Tls = 3,
}

/// A flow of one incarnation: a connection, or a remote UDP address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FlowRef {
    /// Incarnation that holds the flow.
    pub fe: Incarnation,
    /// Serial number inside the incarnation.
    pub serial: u32,
    /// Transport.
    pub transport: Transport,
    /// Remote address and port as seen, for people.
    pub remote: String,
}

/// An endpoint as routing and `endpoints list` see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Its id, stable over reconnects.
    pub id: EndpointId,
    /// Where it is signed in.
    pub flow: FlowRef,
    /// Milliseconds since its flow was lost; `None`: alive.
    pub lost_ms: Option<u64>,
    /// Contact URI as registered.
    pub contact: String,
    /// Contact header value as registered, without the `expires` and `q` parameters.
    pub contact_value: String,
    /// Preference, 0–1000 for 0.000–1.000.
    pub q: u16,
    /// Path values (RFC 3327), in order.
    pub path: Vec<String>,
    /// `+sip.instance` without the quotes.
    pub instance: Option<String>,
    /// `reg-id` (RFC 5626).
    pub reg_id: Option<u32>,
    /// User-Agent at registration, at most 128 octets.
    pub agent: String,
    /// Milliseconds of lifetime left.
    pub expires_ms: u64,
    /// Milliseconds since it first signed in.
    pub age_ms: u64,
    /// Call-ID of the last REGISTER.
    pub call_id: String,
}

/// Whether and for whom something must be pushed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PresenceChange {
    /// Whose presence changed.
    pub user: Option<UserRef>,
    /// New state.
    pub state: commpool_model::presence::Facts,
    /// Version of that state.
    pub version: Version,
    /// Front ends with at least one watcher.
    pub interest: Vec<Incarnation>,
}

/// A publication's key inside a user.
pub type PublicationId = Key128;

/// Asks for [`Health`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HealthRequest;

/// State of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether a write would be taken.
    pub writable: bool,
    /// Schema version of the data.
    pub schema: u32,
}
