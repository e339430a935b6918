//! Server transactions against time, flows and retransmissions.
