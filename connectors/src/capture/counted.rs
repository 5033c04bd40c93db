//! Which files of a capture a replay's position counts. Rows are counted from the capture's beginning, so its files must be there,
//! first and unchanged, when a replay is gone on from; the last of them may have grown, and others may come behind it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::reader::{Capture, CaptureFile};
use super::record::Header;

/// The first files of a capture.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counted {
    /// Hash of what the first file says of itself: job, source, when it was captured.
    header: u64,
    /// How many files.
    files: usize,
    /// Digest of the names of all, and of the sizes of those before the last.
    digest: u64,
    /// Name of the last.
    last: String,
    /// Its size when it was begun; it may have grown since.
    bytes: u64,
}

impl Counted {
    /// No file of `capture` yet.
    pub async fn none_of(capture: &Capture) -> Self {
        // Torn so early that it says nothing, it has the hash 0.
        let hash = |h: Header| xxh3_64(json!([h.job, h.node, h.session_ns]).to_string().as_bytes());
        Self { header: capture.header(0).await.map_or(0, hash), ..Self::default() }
    }

    /// Adds those of `files`, all the capture has, up to and with number `last`.
    pub fn extend(&mut self, files: &[CaptureFile], last: usize) {
        for file in files.iter().take(last + 1).skip(self.files) {
            let mut hash = Xxh3::new();
            hash.update(&self.digest.to_le_bytes());
            hash.update(&self.bytes.to_le_bytes());
            hash.update(file.name.as_bytes());
            (self.files, self.digest) = (self.files + 1, hash.digest());
            (self.last, self.bytes) = (file.name.clone(), file.size);
        }
    }

    /// Whether `capture` begins with the files that `position` counts; the error says what differs.
    pub async fn check(capture: &Capture, position: &Value) -> Result<(), String> {
        let Some(read) = position.get("input") else {
            tracing::warn!(
                "the checkpoint is of a version that did not note which capture it counts: that it is the same is not checked"
            );
            return Ok(());
        };
        let read: Self = serde_json::from_value(read.clone())
            .map_err(|e| format!("the checkpoint's position `{position}` is not one of a capture: {e}"))?;
        let mut now = Self::none_of(capture).await;
        if let Some(last) = read.files.checked_sub(1) {
            now.extend(&capture.files, last);
        }
        if now.bytes >= read.bytes && (Self { bytes: read.bytes, ..now }) == read {
            return Ok(());
        }
        Err(format!(
            "cannot go on from the checkpoint: it counts rows of a capture of which {} files up to `{}` had been read, and {} \
             ({} files) does not begin with them; set `replay` or `url` back, or run with `--from none`",
            read.files,
            read.last,
            capture.display,
            capture.files.len()
        ))
    }
}
