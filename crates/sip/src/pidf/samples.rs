//! Documents of the shape that real clients send.
