//! Reads a folder of torture messages: `expectations.csv` and the files it names. Included by the tests of several crates.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// One message with what is expected of it.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// The raw message.
    pub(crate) octets: Vec<u8>,
    cells: HashMap<String, String>,
}

impl Case {
    /// A cell of the table; empty if there is no such column.
    pub(crate) fn cell(&self, column: &str) -> &str {
        self.cells.get(column).map(String::as_str).unwrap_or_default()
    }

    /// The name that failures are reported under.
    pub(crate) fn name(&self) -> &str {
        self.cell("name")
    }

    /// Whether a parser must take the message: it is well formed, even if a server has a reason to refuse it.
    pub(crate) fn well_formed(&self) -> bool {
        self.cell("class") != "invalid"
    }

    /// Whether a receiver may take the message although it is not well formed.
    pub(crate) fn may_be_accepted(&self) -> bool {
        ["may accept", "or ignore", "either is allowed"].iter().any(|words| self.cell("server_answer").contains(words))
    }
}

/// The project's own messages.
pub(crate) fn own_folder() -> PathBuf {
    // Other crates include this file, so the way goes over the folder above the including crate.
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|folder| folder.join("crates/sip/tests/torture"))
        .find(|folder| folder.is_dir())
        .expect("the folder of torture messages")
}

/// The messages of the RFCs, which are not part of the project: `COMMPOOL_TORTURE`, or `shared/torture` beside the checkout.
///
/// In CI their absence is an error; elsewhere it is printed and `None` comes back.
pub(crate) fn rfc_folder() -> Option<PathBuf> {
    let named = std::env::var_os("COMMPOOL_TORTURE").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("../shared/torture"));
    let found = named.into_iter().chain(beside).find(|folder| folder.join("expectations.csv").is_file());
    if found.is_none() {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "COMMPOOL_TORTURE must name the folder of the RFC torture messages in CI"
        );
        // The test harness keeps what `println!` prints of tests that pass, but a test that does not run must say so.
        let _ = writeln!(std::io::stderr(), "not run: the RFC torture messages; name their folder in COMMPOOL_TORTURE");
    }
    found
}

/// All messages of a folder in the order of its table.
pub(crate) fn cases(folder: &Path) -> Vec<Case> {
    let text = std::fs::read_to_string(folder.join("expectations.csv")).expect("expectations.csv");
    let mut rows = csv(&text).into_iter();
    let columns = rows.next().expect("a header row");
    rows.map(|row| {
        let cells: HashMap<_, _> = columns.iter().cloned().zip(row).collect();
        let octets = std::fs::read(folder.join(&cells["file"])).expect("the file that the table names");
        Case { octets, cells }
    })
    .collect()
}

/// Comma separated values with quotes, a quote inside doubled.
fn csv(text: &str) -> Vec<Vec<String>> {
    let mut rows = vec![vec![String::new()]];
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let row = rows.last_mut().expect("there is always a row");
        match character {
            '"' if quoted && characters.next_if_eq(&'"').is_some() => row.last_mut().expect("a cell").push('"'),
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(String::new()),
            '\n' if !quoted => rows.push(vec![String::new()]),
            '\r' if !quoted => {}
            other => row.last_mut().expect("a cell").push(other),
        }
    }
    rows.retain(|row| row.len() > 1);
    rows
}
