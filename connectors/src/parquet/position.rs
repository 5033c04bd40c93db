//! Where a read of many files stands, and whether the files there now still begin the same way.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::source::Position;

use super::Input;

/// Names kept for the message that says which file is gone.
const NAMES_MAX: usize = 16;

/// Where the merge stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct At {
    /// How many files, in order, have been opened.
    pub opened: usize,
    /// Those of them that are not at their end, and how many rows of each are behind.
    pub open: BTreeMap<String, u64>,
    /// Time of the last row.
    pub ts: i64,
}

/// How it is written in checkpoints.
#[derive(Serialize, Deserialize)]
struct Stored {
    /// Rows sent so far: the `_seq` of the next.
    row: u64,
    opened: usize,
    open: BTreeMap<String, u64>,
    ts: i64,
    /// Hash of the names and row counts of the opened files.
    files: String,
    /// The names of the last of them.
    last: Vec<String>,
}

/// Writes positions; keeps what changes only when a file is opened.
#[derive(Default)]
pub struct Writer {
    opened: usize,
    files: String,
    last: Vec<String>,
}

impl Writer {
    /// The position `at`, after `row` rows.
    pub fn write(&mut self, inputs: &[Input], at: At, row: u64) -> Position {
        if self.opened != at.opened {
            let opened = &inputs[..at.opened];
            self.opened = at.opened;
            self.files = fingerprint(opened);
            self.last = opened.iter().rev().take(NAMES_MAX).map(|i| i.file.name.clone()).collect();
        }
        let stored = Stored {
            row,
            opened: at.opened,
            open: at.open,
            ts: at.ts,
            files: self.files.clone(),
            last: self.last.clone(),
        };
        serde_json::to_value(stored).unwrap_or(Value::Null)
    }
}

fn fingerprint(inputs: &[Input]) -> String {
    // The hash is stored: it must not depend on the Rust version, so not `DefaultHasher`.
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    for input in inputs {
        input.file.name.as_bytes().hash(&mut hash);
        input.rows.to_le_bytes().hash(&mut hash);
        let groups: u64 = input.groups.iter().map(|(_, g)| g.rows).sum();
        groups.to_le_bytes().hash(&mut hash);
    }
    format!("{:016x}", hash.finish())
}

/// FNV-1a, 64 bits.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

/// Reads a position back, against the files there are now: where to go on, and after how many rows.
pub fn read(position: &Position, inputs: &[Input], merge: bool) -> Result<(At, u64), ConnectorError> {
    let fail =
        |reason: String| Err(ConnectorError::Fatal(format!("cannot go on from the checkpoint: {reason}")));
    let stored: Stored = match serde_json::from_value(position.clone()) {
        Ok(stored) => stored,
        Err(e) => return fail(format!("its position of the files is not readable: {e}")),
    };
    let here = |name: &String| inputs.iter().any(|i| i.file.name == *name);
    if let Some(gone) = stored.last.iter().chain(stored.open.keys()).find(|n| !here(n)) {
        return fail(format!(
            "file `{gone}` had been read and is no longer there; put it back, or start from none"
        ));
    }
    if stored.opened > inputs.len() || fingerprint(&inputs[..stored.opened]) != stored.files {
        let last = stored.last.first().map_or("", String::as_str);
        return fail(format!(
            "the files up to `{last}` are not those that had been read: one was removed, rewritten or added before it; put them back, or start from none"
        ));
    }
    if merge && let Some(new) = inputs[stored.opened..].iter().find(|i| i.first_ts <= stored.ts) {
        return fail(format!(
            "new file `{}` begins before the rows already read; start from none to read it",
            new.file.name
        ));
    }
    Ok((At { opened: stored.opened, open: stored.open, ts: stored.ts }, stored.row))
}
