//! The engine against the memory store, with simulated time: what goes out for what comes in.

mod bench;
mod client;
mod directory;
mod leaving;
mod logins;
mod messages;
mod presence;
mod registration;
