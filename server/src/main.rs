//! `commpool-server`: the front end and its command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    commpool_server::cli::main()
}
