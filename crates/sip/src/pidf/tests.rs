//! Presence documents: what clients send, what strangers try, what comes back.
