//! Request methods; case matters and unknown ones are kept.

use std::fmt;

/// The method of a request, or of a CSeq.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method<'a> {
    /// `REGISTER` (RFC 3261 §10)
    Register,
    /// `MESSAGE` (RFC 3428)
    Message,
    /// `PUBLISH` (RFC 3903)
    Publish,
    /// `SUBSCRIBE` (RFC 6665)
    Subscribe,
    /// `NOTIFY` (RFC 6665)
    Notify,
    /// `OPTIONS` (RFC 3261 §11)
    Options,
    /// `INVITE` (RFC 3261 §13)
    Invite,
    /// `ACK` (RFC 3261 §13)
    Ack,
    /// `CANCEL` (RFC 3261 §9)
    Cancel,
    /// `BYE` (RFC 3261 §15)
    Bye,
    /// Any other method as it was written.
    Other(&'a str),
}

impl<'a> Method<'a> {
    /// The method written so; methods are case-sensitive (RFC 3261 §7.1).
    pub fn of(text: &'a str) -> Self {
        match text {
            "REGISTER" => Self::Register,
            "MESSAGE" => Self::Message,
            "PUBLISH" => Self::Publish,
            "SUBSCRIBE" => Self::Subscribe,
            "NOTIFY" => Self::Notify,
            "OPTIONS" => Self::Options,
            "INVITE" => Self::Invite,
            "ACK" => Self::Ack,
            "CANCEL" => Self::Cancel,
            "BYE" => Self::Bye,
            other => Self::Other(other),
        }
    }

    /// The method as it stands on the wire.
    pub const fn as_str(&self) -> &'a str {
        match self {
            Self::Register => "REGISTER",
            Self::Message => "MESSAGE",
            Self::Publish => "PUBLISH",
            Self::Subscribe => "SUBSCRIBE",
            Self::Notify => "NOTIFY",
            Self::Options => "OPTIONS",
            Self::Invite => "INVITE",
            Self::Ack => "ACK",
            Self::Cancel => "CANCEL",
            Self::Bye => "BYE",
            Self::Other(text) => text,
        }
    }
}

impl fmt::Display for Method<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::Method;

    #[test]
    fn known_methods_round_trip_and_case_matters() {
        for text in
            ["REGISTER", "MESSAGE", "PUBLISH", "SUBSCRIBE", "NOTIFY", "OPTIONS", "INVITE", "ACK", "CANCEL", "BYE"]
        {
            assert!(!matches!(Method::of(text), Method::Other(_)), "{text}");
            assert_eq!(Method::of(text).as_str(), text);
        }
        assert_eq!(Method::of("register"), Method::Other("register"));
        assert_eq!(Method::of("SERVICE").as_str(), "SERVICE");
    }
}
