//! Client transactions against time, flows and retransmissions.
