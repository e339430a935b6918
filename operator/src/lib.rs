//! The operator: a CommunicationsPool resource into a running pool.
