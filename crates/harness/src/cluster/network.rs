//! Addresses inside a cluster's network. Every cluster has a network of its own, so that all can use the same ones,
//! taken from the range reserved for tests (RFC 2544).

/// The node, and the API server on it.
pub const NODE: &str = "198.18.0.1";
/// The node's address with the network that holds the load balancer's addresses.
pub(super) const NODE_NETWORK: &str = "198.18.0.1/24";
/// Device that has the node's address: a bridge without ports, since not every kernel has the `dummy` driver.
pub(super) const NODE_DEVICE: &str = "node0";
/// Cluster addresses of Services.
pub(super) const SERVICES: &str = "198.18.64.0/18";
/// The API server as a Service.
pub(super) const API_SERVICE: &str = "198.18.64.1";
/// Names of the cluster, as a Service.
pub(super) const DNS_SERVICE: &str = "198.18.64.10";
/// Addresses of pods.
pub(super) const PODS: &str = "198.18.128.0/18";

/// First and last number of a load balancer's address in the node's network.
pub(super) const BALANCED: std::ops::RangeInclusive<u8> = 100..=250;

/// An address of the load balancer.
pub(super) fn balanced(number: u8) -> String {
    format!("198.18.0.{number}")
}

/// Most clients of one cluster.
pub(super) const CLIENTS: u8 = 60;

/// Both ends of the cable to client `number` (from 0): the cluster's address and the client's, without prefix.
pub(super) fn client(number: u8) -> (String, String) {
    (format!("198.18.2.{}", number * 4 + 1), format!("198.18.2.{}", number * 4 + 2))
}
