//! Other front ends: frames over mutual TLS, two connections to each.

mod codec;
pub mod frame;
pub mod identity;
pub mod links;
mod wire;
