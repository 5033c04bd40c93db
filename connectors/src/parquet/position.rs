//! Where a read of many files stands, and whether the files there now still begin the same way.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::source::Position;

use super::Input;
use crate::files::FileRef;
use crate::files::identity::{self, Difference, Finished, Identity};

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
    /// What they were; checkpoints of earlier versions do not say.
    #[serde(default)]
    input: Option<Finished>,
}

/// Writes positions; keeps what changes only when a file is opened.
#[derive(Default)]
pub struct Writer {
    opened: usize,
    files: String,
    last: Vec<String>,
    /// What the first `identified` files are.
    input: Finished,
    identified: usize,
}

/// Where a read goes on.
pub struct Resume {
    /// Where the merge stood.
    pub at: At,
    /// Rows sent until then.
    pub row: u64,
    /// What the opened files were, where the checkpoint says so.
    pub input: Option<Finished>,
}

impl Writer {
    /// Goes on behind `resume`.
    pub fn resumed(resume: &Resume) -> Self {
        match &resume.input {
            Some(input) => Self { input: input.clone(), identified: resume.at.opened, ..Self::default() },
            None => Self::default(),
        }
    }

    /// The position `at`, after `row` rows. Blocks: files that were opened since are looked at.
    pub fn write(
        &mut self,
        inputs: &[Input],
        at: At,
        row: u64,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Position, ConnectorError> {
        if self.opened != at.opened {
            let opened = &inputs[..at.opened];
            for input in &opened[self.identified..] {
                let identity =
                    runtime.block_on(Identity::listed(&input.file)).map_err(ConnectorError::Transient)?;
                self.input.push(&input.file.name, identity);
            }
            self.identified = at.opened;
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
            input: Some(self.input.clone()),
        };
        Ok(serde_json::to_value(stored).unwrap_or(Value::Null))
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

/// Reads a position back, against the files there are now: where to go on.
pub async fn read(position: &Position, inputs: &[Input], merge: bool) -> Result<Resume, ConnectorError> {
    let fail = |reason: String| {
        let remedy = identity::REMEDY;
        Err(ConnectorError::Fatal(format!("cannot go on from the checkpoint: {reason}; {remedy}")))
    };
    let stored: Stored = match serde_json::from_value(position.clone()) {
        Ok(stored) => stored,
        Err(e) => return fail(format!("its position of the files is not readable: {e}")),
    };
    let here = |name: &String| inputs.iter().any(|i| i.file.name == *name);
    if let Some(gone) = stored.last.iter().chain(stored.open.keys()).find(|n| !here(n)) {
        let first = inputs.first().map_or("none", |i| i.file.display.as_str());
        return fail(format!(
            "file `{gone}` had been read and is no longer there ({} files now, the first is `{first}`)",
            inputs.len()
        ));
    }
    let last = stored.last.first().map_or("", String::as_str);
    if stored.opened > inputs.len() || fingerprint(&inputs[..stored.opened]) != stored.files {
        return fail(format!(
            "the files up to `{last}` are not those that had been read: one was removed, rewritten or added before it"
        ));
    }
    if merge && let Some(new) = inputs[stored.opened..].iter().find(|i| i.first_ts <= stored.ts) {
        return fail(format!("new file `{}` begins before the rows already read", new.file.display));
    }
    match &stored.input {
        None => tracing::warn!(
            file = last,
            "the checkpoint is of a version that did not note which files it counts: that they are the same is not checked"
        ),
        Some(input) => {
            let opened: Vec<&FileRef> = inputs[..stored.opened].iter().map(|i| &i.file).collect();
            match input.check(&opened).await {
                Ok(()) => {}
                Err(Difference::Other(reason)) => return fail(reason),
                Err(Difference::Unreadable(reason)) => return Err(ConnectorError::Transient(reason)),
            }
        }
    }
    let at = At { opened: stored.opened, open: stored.open, ts: stored.ts };
    Ok(Resume { at, row: stored.row, input: stored.input })
}
