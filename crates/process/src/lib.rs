//! What server and replicator do as processes: logs, signals, lines on standard output.

use std::io::{self, ErrorKind, IsTerminal as _, Write};

use commpool_model::config::{LogConfig, LogFormat};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Environment variable whose filter goes before the configured level.
const FILTER: &str = "COMMPOOL_LOG";

/// Starts logs on standard error, as configured. A second call changes nothing.
pub fn start_logs(config: &LogConfig) {
    let level = if config.level.is_empty() { "info" } else { &config.level };
    let filter = EnvFilter::try_from_env(FILTER)
        .or_else(|_| EnvFilter::try_new(level))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let _ = match config.format {
        LogFormat::Json => lines.json().try_init(),
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).with_target(false).try_init(),
    };
}

/// Cancelled by SIGTERM or SIGINT.
///
/// # Errors
/// When the system refuses the handlers.
///
/// # Panics
/// Outside a runtime.
pub fn stop_on_signal() -> io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let cancelled = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        cancelled.cancel();
    });
    Ok(stop)
}

/// Whether whoever reads standard output wants more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// It takes lines.
    Listens,
    /// It has closed its end, as `head` does when it has enough: no error, but no use in going on.
    HasEnough,
}

/// Writes lines to standard output.
///
/// # Errors
/// When they cannot be written for another reason than a reader who has enough.
pub fn print_lines(lines: impl IntoIterator<Item = String>) -> io::Result<Reader> {
    write_lines(&mut io::stdout().lock(), lines)
}

fn write_lines(to: &mut impl Write, lines: impl IntoIterator<Item = String>) -> io::Result<Reader> {
    let written = lines.into_iter().try_for_each(|line| writeln!(to, "{line}")).and_then(|()| to.flush());
    match written {
        Ok(()) => Ok(Reader::Listens),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::HasEnough),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many writes, and fails then.
    struct Pipe(usize, ErrorKind);

    impl Write for Pipe {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(self.1.into());
            }
            self.0 -= 1;
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines() -> impl Iterator<Item = String> {
        (0..9).map(|n| n.to_string())
    }

    #[test]
    fn a_reader_who_has_enough_is_no_error() {
        assert_eq!(write_lines(&mut Vec::new(), lines()).unwrap(), Reader::Listens);
        assert_eq!(write_lines(&mut Pipe(2, ErrorKind::BrokenPipe), lines()).unwrap(), Reader::HasEnough);
        let full = write_lines(&mut Pipe(2, ErrorKind::StorageFull), lines());
        assert_eq!(full.unwrap_err().kind(), ErrorKind::StorageFull);
    }
}
