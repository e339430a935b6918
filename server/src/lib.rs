//! The front end: transports, engine, authentication, services.
