//! What can keep a run from its end, in words that say what to do.

use std::fmt;

use commpool_model::directory::RunResult;

/// Longest text of a server that is passed on, octets.
const MAX_DIAGNOSTIC: usize = 300;

/// Why a run does not come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The kind, which decides what is done about it.
    pub kind: Kind,
    /// What happened and what to do.
    pub text: String,
}

/// Kinds of [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The server cannot be reached or does not prove who it is; another one may.
    Unreachable,
    /// The connection was lost, or the server fell silent or spoke nonsense, while reading; another one may do better.
    Broken,
    /// The directory was not told to its end.
    Incomplete,
    /// The directory refuses; another server would too.
    Refused,
    /// The configuration, or a file that it names.
    Configuration,
    /// Somebody else is running.
    Busy,
    /// The store.
    Store,
    /// Asked to stop.
    Stopped,
    /// Something that should not happen.
    Internal,
}

impl Fault {
    /// A fault of a kind.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// The same of a server from which nothing was read yet.
    pub fn before_reading(self) -> Self {
        let kind = if self.kind == Kind::Broken { Kind::Unreachable } else { self.kind };
        Self { kind, ..self }
    }

    /// Whether another server of the same directory may do better.
    pub const fn try_another(&self) -> bool {
        matches!(self.kind, Kind::Unreachable | Kind::Broken)
    }

    /// In the words of an outcome.
    pub const fn result(&self) -> RunResult {
        match self.kind {
            Kind::Unreachable => RunResult::DirectoryUnavailable,
            Kind::Broken | Kind::Incomplete | Kind::Stopped => RunResult::ReadIncomplete,
            Kind::Refused => RunResult::DirectoryRefused,
            Kind::Configuration => RunResult::ConfigurationInvalid,
            Kind::Busy => RunResult::Busy,
            Kind::Store => RunResult::StoreUnavailable,
            Kind::Internal => RunResult::InternalError,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<commpool_store::StoreError> for Fault {
    fn from(error: commpool_store::StoreError) -> Self {
        Self::new(Kind::Store, error.to_string())
    }
}

/// What a server answers with (RFC 4511 §4.1.9).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LdapResult {
    /// Result code; 0: success.
    pub code: u32,
    /// What the server says about it.
    pub diagnostic: String,
}

impl LdapResult {
    /// The answer to a bind that was not a success.
    pub fn bind_fault(&self) -> Fault {
        let kind = if matches!(self.code, 51 | 52) { Kind::Unreachable } else { Kind::Refused };
        let why = match (self.code, self.account_problem()) {
            (_, Some(problem)) => problem,
            (49, None) => "the bind DN or its password is wrong",
            (8 | 13, None) => "it wants another kind of protection",
            (51 | 52, None) => "it has no time",
            _ => "see its own log",
        };
        Fault::new(kind, format!("the directory refuses the bind: {why} ({self})"))
    }

    /// The answer to a search that was not a success.
    pub fn search_fault(&self, base: &str) -> Fault {
        let (kind, why) = match self.code {
            3 | 4 | 11 => (
                Kind::Incomplete,
                "it stops before the end: raise its limits for this account, or lower pageSize".to_owned(),
            ),
            10 => (Kind::Refused, format!("`{base}` is on another server, and referrals are not followed")),
            32 => (Kind::Refused, format!("there is no `{base}`, or the account may not see it")),
            34 => (Kind::Refused, format!("`{base}` is no distinguished name")),
            1 | 8 | 13 | 50 => (Kind::Refused, "the account may not read there".to_owned()),
            51 | 52 => (Kind::Broken, "it has no time".to_owned()),
            _ => (Kind::Refused, "see its own log".to_owned()),
        };
        Fault::new(kind, format!("the directory refuses the search: {why} ({self})"))
    }

    /// What Active Directory says about an account inside its diagnostic text.
    fn account_problem(&self) -> Option<&'static str> {
        let (_, after) = self.diagnostic.split_once("data ")?;
        let code: String = after.chars().take_while(char::is_ascii_hexdigit).collect();
        Some(match code.as_str() {
            "525" => "there is no such account",
            "52e" => "wrong password",
            "530" => "the account may not sign in at this time",
            "531" => "the account may not sign in from here",
            "532" => "the password has expired",
            "533" => "the account is disabled",
            "701" => "the account has expired",
            "773" => "the password must be changed first",
            "775" => "the account is locked",
            _ => return None,
        })
    }
}

impl fmt::Display for LdapResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, code_name(self.code))?;
        let diagnostic = crate::text::shown(&self.diagnostic, MAX_DIAGNOSTIC);
        if diagnostic.is_empty() { Ok(()) } else { write!(f, ": {diagnostic}") }
    }
}

/// Names of RFC 4511 §4.1.9.
const fn code_name(code: u32) -> &'static str {
    match code {
        0 => "success",
        1 => "operationsError",
        2 => "protocolError",
        3 => "timeLimitExceeded",
        4 => "sizeLimitExceeded",
        7 => "authMethodNotSupported",
        8 => "strongerAuthRequired",
        10 => "referral",
        11 => "adminLimitExceeded",
        12 => "unavailableCriticalExtension",
        13 => "confidentialityRequired",
        16 => "noSuchAttribute",
        17 => "undefinedAttributeType",
        18 => "inappropriateMatching",
        21 => "invalidAttributeSyntax",
        32 => "noSuchObject",
        34 => "invalidDNSyntax",
        48 => "inappropriateAuthentication",
        49 => "invalidCredentials",
        50 => "insufficientAccessRights",
        51 => "busy",
        52 => "unavailable",
        53 => "unwillingToPerform",
        54 => "loopDetect",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn active_directory_says_why_in_its_diagnostic() {
        let diagnostic = "80090308: LdapErr: DSID-0C0903A9, comment: AcceptSecurityContext error, data 52e, v1db1\0";
        let fault = LdapResult { code: 49, diagnostic: diagnostic.to_owned() }.bind_fault();
        assert_eq!(fault.kind, Kind::Refused);
        assert!(fault.text.contains("wrong password (49 invalidCredentials: 80090308"), "{fault}");
        assert!(!fault.text.contains('\0'));
        let locked = LdapResult { code: 49, diagnostic: "data 775, v1db1".to_owned() }.bind_fault();
        assert!(locked.text.contains("is locked"), "{locked}");
        let plain = LdapResult { code: 49, diagnostic: String::new() }.bind_fault();
        assert!(plain.text.ends_with("its password is wrong (49 invalidCredentials)"), "{plain}");
    }

    #[test]
    fn limits_are_an_incomplete_read_and_a_missing_base_a_refusal() {
        let fault = |code| LdapResult { code, ..LdapResult::default() }.search_fault("dc=x");
        assert_eq!(
            [4, 3, 11, 10, 32, 50, 51].map(|code| fault(code).result()),
            [
                RunResult::ReadIncomplete,
                RunResult::ReadIncomplete,
                RunResult::ReadIncomplete,
                RunResult::DirectoryRefused,
                RunResult::DirectoryRefused,
                RunResult::DirectoryRefused,
                RunResult::ReadIncomplete,
            ]
        );
        assert!(fault(32).text.contains("`dc=x`"));
    }
}
