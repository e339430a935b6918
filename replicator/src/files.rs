//! Small files that the configuration names.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::fault::{Fault, Kind};

/// Longest name or password, octets.
const MAX_SECRET: u64 = 4096;

/// A file of at most so many octets.
///
/// # Errors
/// It cannot be read, or is longer.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut octets)?;
    if octets.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("longer than {most} octets")));
    }
    Ok(octets)
}

/// A name or password, without the line end behind it. `field`: where the path was configured.
///
/// # Errors
/// The file cannot be read, is empty, or holds more than one line.
pub fn secret(field: &str, path: &Path) -> Result<String, Fault> {
    let bad = |why: String| Fault::new(Kind::Configuration, format!("{field} {}: {why}", path.display()));
    let octets = read(path, MAX_SECRET).map_err(|error| bad(format!("{error}; give a readable file")))?;
    let text = String::from_utf8(octets).map_err(|_| bad("is not UTF-8".to_owned()))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    // A bind without a password succeeds everywhere and proves nothing (RFC 4513 §5.1.2).
    if line.is_empty() {
        return Err(bad("is empty".to_owned()));
    }
    if line.contains(['\n', '\r', '\0']) {
        return Err(bad("has more than one line".to_owned()));
    }
    Ok(line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(octets: &[u8]) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, octets).unwrap();
        secret("passwordFile", &path).map_err(|fault| fault.text.replace(&path.display().to_string(), "FILE"))
    }

    #[test]
    fn one_line_end_is_taken_away_and_nothing_else() {
        assert_eq!(given(b"secret \n").unwrap(), "secret ");
        assert_eq!(given(b"secret\r\n").unwrap(), "secret");
        assert_eq!(given(b"secret").unwrap(), "secret");
        assert_eq!(given(b"\n").unwrap_err(), "passwordFile FILE: is empty");
        assert_eq!(given(b"a\nb\n").unwrap_err(), "passwordFile FILE: has more than one line");
        assert_eq!(given(b"a\xff").unwrap_err(), "passwordFile FILE: is not UTF-8");
        assert!(given(&[b'a'; 5000]).unwrap_err().contains("longer than 4096"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let fault = secret("bindDNFile", Path::new("/nowhere/name")).unwrap_err();
        assert_eq!(fault.kind, Kind::Configuration);
        assert!(fault.text.starts_with("bindDNFile /nowhere/name: No such file"), "{fault}");
    }
}
