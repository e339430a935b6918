//! Transports: sockets in, inputs of the engine out, and back. The only part that sends.

pub mod listen;
pub mod stream;
pub mod tls;
pub mod udp;
