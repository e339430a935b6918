//! Whole-system tests: wire, cluster, clients, faults, benches.
