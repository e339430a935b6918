//! Counters and gauges for Prometheus. Label sets are bounded: unknown values are `other`.

use std::sync::atomic::AtomicU64;

use commpool_model::directory::{Outcome, RunResult};
use commpool_model::ids::Micros;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// Of a metric that may be absent and stands alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NoLabels {}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Method {
    method: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Status {
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Transport {
    transport: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Run {
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Change {
    change: &'static str,
}

const METHODS: [&str; 11] =
    ["REGISTER", "MESSAGE", "PUBLISH", "SUBSCRIBE", "NOTIFY", "OPTIONS", "INVITE", "ACK", "CANCEL", "BYE", "INFO"];

/// What a front end counts.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: Family<Method, Counter>,
    responses: Family<Status, Counter>,
    store_calls: Family<Operation, Counter>,
    store_failures: Counter,
    malformed: Counter,
    rejected: Counter,
    withheld: Counter,
    peers_refused: Counter,
    flows: Family<Transport, Gauge>,
    endpoints: Gauge,
    subscriptions: Gauge,
    certificate: Gauge<f64, AtomicU64>,
    peer_certificate: Gauge<f64, AtomicU64>,
    directory_runs: Family<Run, Counter>,
    directory_changes: Family<Change, Counter>,
    /// Empty until a run has succeeded: a zero would look like a success in 1970.
    directory_success: Family<NoLabels, Gauge<f64, AtomicU64>>,
}

impl Metrics {
    /// Names all metrics in a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("requests", "Requests received, by method", self.requests.clone());
        registry.register("responses", "Final responses sent, by status", self.responses.clone());
        registry.register("store_calls", "Calls to the store, by operation", self.store_calls.clone());
        registry.register("store_failures", "Calls to the store that failed", self.store_failures.clone());
        registry.register("malformed_messages", "Messages that could not be understood", self.malformed.clone());
        registry.register(
            "rejected_credentials",
            "Requests with credentials that do not verify",
            self.rejected.clone(),
        );
        registry.register(
            "withheld_responses",
            "Responses to strangers not sent, since over UDP they would amplify",
            self.withheld.clone(),
        );
        registry.register(
            "peers_refused",
            "Connections refused on the port between front ends",
            self.peers_refused.clone(),
        );
        registry.register("flows", "Connections and signed-in UDP addresses", self.flows.clone());
        registry.register("endpoints", "Endpoints signed in on this front end", self.endpoints.clone());
        registry.register("subscriptions", "Subscription dialogs of this front end", self.subscriptions.clone());
        registry.register_with_unit(
            "certificate_not_after",
            "End of validity of the certificate towards clients, since 1970",
            Unit::Seconds,
            self.certificate.clone(),
        );
        registry.register_with_unit(
            "peer_certificate_not_after",
            "End of validity of the certificate between front ends, since 1970; 0 where there are no others",
            Unit::Seconds,
            self.peer_certificate.clone(),
        );
        registry.register("directory_runs", "Runs of the replicator, by result", self.directory_runs.clone());
        registry.register("directory_changes", "Users changed by the replicator", self.directory_changes.clone());
        registry.register_with_unit(
            "directory_last_success",
            "End of the last run after which users were as the directory says, since 1970",
            Unit::Seconds,
            self.directory_success.clone(),
        );
    }

    /// A request came in.
    pub fn request(&self, method: &str) {
        let method = METHODS.iter().find(|m| **m == method).copied().unwrap_or("other");
        self.requests.get_or_create(&Method { method }).inc();
    }

    /// A final response went out.
    pub fn response(&self, status: u16) {
        let status = if (100..700).contains(&status) { status } else { 0 };
        self.responses.get_or_create(&Status { status }).inc();
    }

    /// The store is called.
    pub fn store_call(&self, operation: &'static str) {
        self.store_calls.get_or_create(&Operation { operation }).inc();
    }

    /// A store call failed.
    pub fn store_failure(&self) {
        self.store_failures.inc();
    }

    /// Something could not be understood.
    pub fn malformed(&self) {
        self.malformed.inc();
    }

    /// A connection of somebody who is no front end of this pool.
    pub fn peer_refused(&self) {
        self.peers_refused.inc();
    }

    /// Credentials did not verify.
    pub fn rejected(&self) {
        self.rejected.inc();
    }

    /// A response to a stranger was not sent, since it would amplify.
    pub fn withheld(&self) {
        self.withheld.inc();
    }

    /// Gauges: connections, UDP flows, endpoints, dialogs.
    pub fn gauges(&self, [streams, udp, endpoints, dialogs]: [usize; 4]) {
        let set = |transport, n: usize| self.flows.get_or_create(&Transport { transport }).set(n as i64);
        set("stream", streams);
        set("udp", udp);
        self.endpoints.set(endpoints as i64);
        self.subscriptions.set(dialogs as i64);
    }

    /// A run of the replicator has ended.
    pub fn directory_run(&self, outcome: &Outcome, now: Micros) {
        self.directory_runs.get_or_create(&Run { result: outcome.result.as_str() }).inc();
        if outcome.result == RunResult::Synced {
            for (change, users) in outcome.counts.changes() {
                self.directory_changes.get_or_create(&Change { change }).inc_by(users);
            }
            self.directory_success.get_or_create(&NoLabels {}).set(now.0 as f64 / 1e6);
        }
    }

    /// Validity of the certificate between front ends.
    pub fn peer_certificate_not_after(&self, seconds: i64) {
        self.peer_certificate.set(seconds as f64);
    }

    /// Validity of the certificate.
    pub fn certificate_not_after(&self, seconds: i64) {
        self.certificate.set(seconds as f64);
    }
}
