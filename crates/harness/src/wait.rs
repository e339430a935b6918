//! Waiting for something that tells nobody when it happens, with a bound.

use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::command::say;

/// Pause between two looks.
const STEP: Duration = Duration::from_millis(20);

/// Time between two signs of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(60);

/// Asks `look` until it answers with a value, at most for `limit`.
///
/// # Errors
/// What `look` fails with, at once; or that `what` did not come about in time.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = look()? {
            return Ok(value);
        }
        if start.elapsed() >= limit {
            bail!("waited {:.1} s in vain for {what}", limit.as_secs_f64());
        }
        thread::sleep(STEP);
    }
}

/// Does work that may take minutes, and says every minute that it still goes on.
pub fn with_signs_of_life<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let (ended, end) = mpsc::channel::<()>();
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(move || {
            while end.recv_timeout(SIGN_OF_LIFE) == Err(mpsc::RecvTimeoutError::Timeout) {
                say(&format!("{what}: still at it after {} s", start.elapsed().as_secs()));
            }
        });
        let value = work();
        drop(ended);
        value
    })
}

/// Waits until a TCP connection to `address` is accepted.
///
/// # Errors
/// When none is within `limit`.
pub fn for_port(address: SocketAddr, limit: Duration) -> Result<()> {
    until(&format!("a listener on {address}"), limit, || {
        Ok(TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok().map(drop))
    })
}

/// A TCP port of 127.0.0.1 that was free a moment ago.
///
/// # Errors
/// When the system gives none.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_ends_the_wait() {
        let mut looks = 0;
        let value = until("three looks", Duration::from_secs(5), || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn the_limit_names_what_was_waited_for() {
        let error = until("the moon", Duration::from_millis(1), || Ok(None::<()>)).unwrap_err();
        assert!(error.to_string().contains("the moon"));
    }

    #[test]
    fn a_listener_is_seen() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for_port(listener.local_addr().unwrap(), Duration::from_secs(5)).unwrap();
    }
}
