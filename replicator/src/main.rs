//! `commpool-replicator`: users from a directory into the store.

use std::process::ExitCode;

fn main() -> ExitCode {
    commpool_replicator::cli::main()
}
