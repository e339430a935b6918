//! Conversions between Commpool's SIP messages and rsip's, exact or refused.
