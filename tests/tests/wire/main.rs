//! The server seen over the wire: real sockets, messages written octet by octet, one server for each test.

mod limits;
mod matrix;
mod message;
mod presence;
mod register;
mod torture;
mod transactions;
