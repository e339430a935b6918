//! One server per folder.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use thiserror::Error;

use super::open;
use crate::error::StoreError;

const LOCK_FILE: &str = "commpool.lock";

/// The right to serve from a folder, given back when this is dropped or the process ends.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

/// Why a folder cannot be served from.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another server does.
    #[error("{} is in use by another server{}; stop it, or use another folder", .folder.display(), by(*.pid))]
    Held {
        /// The folder.
        folder: PathBuf,
        /// Process id of the other server as it wrote it down, in its own process namespace.
        pid: Option<u32>,
    },
    /// The lock file cannot be used.
    #[error("cannot lock {}: {cause}; check owner and mode of the folder", .folder.display())]
    Io {
        /// The folder.
        folder: PathBuf,
        /// What went wrong.
        cause: io::Error,
    },
    /// The folder cannot be made.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn by(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

/// Locks a folder for one server, creating it where it is absent. The command line takes no lock: it works beside a
/// server.
///
/// # Errors
/// Another server holds it, or the folder cannot be written.
pub fn lock_folder(folder: &Path) -> Result<FolderLock, LockError> {
    open::create_folder(folder)?;
    let failed = |cause| LockError::Io { folder: folder.to_owned(), cause };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(folder.join(LOCK_FILE)).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(LockError::Held { folder: folder.to_owned(), pid });
        }
        Err(error) => return Err(failed(error.into())),
    }
    write_pid(&mut file).map_err(failed)?;
    Ok(FolderLock { _file: file })
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}
