//! The command line: serve, run on a laptop, and an administrator's questions beside a running server.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line speaks by printing")]

mod accounts;
mod children;
mod configuration;
mod endpoints;
mod laptop;
mod passwords;
mod pool;
mod serve;
mod several;
mod shown;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use commpool_process::{Reader, print_lines};

use crate::version;

/// Ended as asked.
pub const EXIT_OK: u8 = 0;
/// Something unforeseen.
pub const EXIT_OTHER: u8 = 1;
/// The command line cannot be understood.
pub const EXIT_USAGE: u8 = 2;
/// An address or port is taken or not ours.
pub const EXIT_ADDRESS: u8 = 3;
/// The data folder cannot be used, or is in use.
pub const EXIT_DATA: u8 = 4;
/// The configuration is wrong.
pub const EXIT_CONFIG: u8 = 5;
/// What was asked for is not there, or is there already.
pub const EXIT_NOT_DONE: u8 = 6;

const AFTER_HELP: &str = "Exit codes: 0 ended as asked, 1 other, 2 usage, 3 address or port, 4 data folder, \
                          5 configuration, 6 not found or exists already";

#[derive(Parser, Debug)]
#[command(name = "commpool-server", version = version::LONG, about, after_help = AFTER_HELP)]
/// The Commpool front end: presence and instant messaging over SIP.
struct Arguments {
    /// Configuration of the pool.
    #[arg(long, global = true, env = "COMMPOOL_CONFIG", default_value = "/etc/commpool/config.yaml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Serve the pool that the configuration describes.
    Serve,
    /// The product on this machine in one command: own CA, demo users, no configuration. Standard Edition, or with
    /// --front-ends a pool.
    Run(laptop::Arguments),
    /// Bring the store to this build's schema.
    Migrate(serve::Migrate),
    /// Users: add, set a password, list, disable, enable.
    #[command(subcommand)]
    User(accounts::Command),
    /// Who is signed in.
    #[command(subcommand)]
    Endpoints(endpoints::Command),
    /// The front ends of the pool.
    #[command(subcommand)]
    Pool(pool::Command),
    /// The configuration.
    #[command(subcommand)]
    Config(configuration::Command),
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let done = match arguments.command {
        Command::Serve => serve::serve(&arguments.config),
        Command::Run(run) => laptop::run(&run),
        Command::Migrate(migrate) => serve::migrate(&arguments.config, &migrate),
        Command::User(command) => accounts::run(&arguments.config, command),
        Command::Endpoints(command) => endpoints::run(&arguments.config, &command),
        Command::Pool(command) => pool::run(&arguments.config, &command),
        Command::Config(command) => configuration::run(&arguments.config, &command),
    };
    match done {
        Ok(()) => ExitCode::from(EXIT_OK),
        Err(failure) => {
            eprintln!("commpool-server: {}", failure.text);
            ExitCode::from(failure.code)
        }
    }
}

/// What went wrong, what mends it, and the exit code.
#[derive(Debug)]
struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(EXIT_OTHER, format!("{error:#}"))
    }
}

type Done = Result<(), Failure>;

/// Writes lines to standard output.
fn print(lines: impl IntoIterator<Item = String>) -> Result<Reader, Failure> {
    print_lines(lines).map_err(|e| Failure::new(EXIT_OTHER, format!("standard output: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        <Arguments as clap::CommandFactory>::command().debug_assert();
    }
}
