//! Bounds that every message must keep, however it arrives.

/// How much of a peer's input is read before it is refused.
///
/// One set serves datagrams, streams and WebSocket frames, so that a message is not legal on one transport and too large on another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Octets of a whole message: start line, header rows and body.
    pub message: usize,
    /// Header rows of a message; a folded row counts once.
    pub headers: usize,
    /// Octets of one logical header row, its continuation lines included; also of the start line.
    pub line: usize,
    /// Octets of the body.
    pub body: usize,
}

impl Default for Limits {
    /// 64 KiB a message and a body, 128 header rows, 8 KiB a row.
    fn default() -> Self {
        Self { message: 65_536, headers: 128, line: 8_192, body: 65_536 }
    }
}
