//! Real clients: Linphone's engine and SIPp against a server of each test's own.

mod linphone;
mod sipp;
