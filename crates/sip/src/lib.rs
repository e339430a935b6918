//! Sans-IO SIP: framing, messages, transactions, subscription dialogs, Digest, PIDF.
