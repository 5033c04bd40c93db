//! What readers of a dataset see: a set of files that hold every row exactly once.
//!
//! Live are the files the log has added and not removed, and the foreign files in the folder that
//! the log has not removed. A snapshot reads **the log first, then the listing**:
//!
//! Let the log be read at version v. A compaction that commits after v swaps foreign files A for its
//! own C. Its A still lie in the folder (they are deleted only by `expire`, an hour or more after
//! they were removed) and v has not removed them: the reader sees A. C is an own file that v does not
//! add: the reader does not see it. So it sees A, never both, never neither. A compaction that committed
//! up to v: C counts by the log, A is removed by the log, listed or not: it sees C alone. When `expire`
//! deletes A, v still says removed, or (a later v) no longer lists it, but then it had been deleted before
//! that v was committed, and the later listing cannot find it.
//! (The other order fails: a listing with A, then a log in which A has been removed, deleted and
//! forgotten, shows both A and C.)
//!
//! The argument leans on A being there while the listing runs. A reader that sleeps between its two
//! steps for longer than `expire --older-than` would miss them, so after the listing the log is looked
//! at once more, and a snapshot is taken anew where it has moved; only an archive that commits more
//! often than it can be listed is left to the hour.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::ObjectStore;

use crate::ArchiveError;
use crate::dataset::Dataset;
use crate::layout::Layout;
use crate::log::{Covered, Gap, Origin, State};
use crate::name::{self, SinkFile};
use crate::read;

/// Snapshots tried while the log moves.
const ATTEMPTS: usize = 5;
/// Footers that are read at once.
const FOOTERS_AT_ONCE: usize = 16;
/// Files a dataset may have.
const FILES_MAX: usize = 2_000_000;

/// One file that counts.
#[derive(Clone, Debug, PartialEq)]
pub struct FileEntry {
    /// Its path, relative to the dataset.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Its rows, where the log says so or the footer has been read.
    pub rows: Option<u64>,
    /// First and last event time (ns), likewise.
    pub ts: Option<(i64, i64)>,
    /// Values of its Hive folders, decoded, outermost first.
    pub partition: Vec<(String, String)>,
    /// Where its rows come from.
    pub origin: Origin,
    /// When it was last modified, milliseconds since the epoch.
    pub modified_ms: i64,
    /// Whether it is the archive's own.
    pub own: bool,
}

/// What readers see: [the module](self) tells why that is each row once.
#[derive(Clone, Debug)]
pub struct Snapshot {
    dataset: Dataset,
    state: Arc<State>,
    files: Vec<FileEntry>,
    /// Own files that no commit has added: work in progress, or what a crash left.
    pub(crate) strays: Vec<Stray>,
    /// Removed files that are still there.
    pub(crate) removed: Vec<Stray>,
}

/// A file that does not count.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stray {
    pub path: String,
    pub bytes: u64,
    pub modified_ms: i64,
}

/// Takes a snapshot.
pub(crate) async fn take(dataset: &Dataset) -> Result<Snapshot, ArchiveError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let state = dataset.state().await?;
        let snapshot = list(dataset, state.clone()).await?;
        if attempt >= ATTEMPTS || dataset.latest_version(state.version).await? == state.version {
            return Ok(snapshot);
        }
    }
}

async fn list(dataset: &Dataset, state: Arc<State>) -> Result<Snapshot, ArchiveError> {
    let location = dataset.location();
    let (mut files, mut strays, mut removed) = (Vec::new(), Vec::new(), Vec::new());
    let mut own = 0usize;
    let mut found = location.store.list(Some(&location.path));
    // The prefix is cut off as text: a path's parts would be decoded.
    let cut = if location.path.as_ref().is_empty() { 0 } else { location.path.as_ref().len() + 1 };
    loop {
        let meta = match found.try_next().await {
            Ok(Some(meta)) => meta,
            Ok(None) | Err(object_store::Error::NotFound { .. }) => break,
            Err(e) => return Err(ArchiveError::storage("list", &location.display, &e)),
        };
        let Some(path) = meta.location.as_ref().get(cut..) else { continue };
        if path.split('/').any(|part| part.starts_with(['_', '.'])) {
            continue;
        }
        let file = path.rsplit('/').next().unwrap_or(path);
        let modified_ms = meta.last_modified.timestamp_millis();
        let stray = || Stray { path: path.to_owned(), bytes: meta.size, modified_ms };
        if state.removed.contains_key(path) {
            removed.push(stray());
        } else if let Some(added) = state.files.get(path) {
            own += 1;
            files.push(FileEntry {
                path: path.to_owned(),
                bytes: added.bytes,
                rows: Some(added.rows),
                ts: Some(added.ts),
                partition: name::hive_values(path),
                origin: added.origin.clone(),
                modified_ms,
                own: true,
            });
        } else if name::is_own(file) {
            strays.push(stray());
        } else if name::is_foreign(file) {
            let origin = match SinkFile::parse(file) {
                Some(f) => Origin::Sink { writer: f.writer, after: f.after, generation: f.generation },
                None => Origin::Other,
            };
            files.push(FileEntry {
                path: path.to_owned(),
                bytes: meta.size,
                rows: None,
                ts: None,
                partition: name::hive_values(path),
                origin,
                modified_ms,
                own: false,
            });
        }
        if files.len() > FILES_MAX {
            return Err(ArchiveError::Invalid(format!(
                "`{}` has more than {FILES_MAX} files: compact it, or partition by fewer columns",
                location.display
            )));
        }
    }
    if own < state.files.len() {
        let listed: std::collections::HashSet<&str> = files.iter().map(|f| f.path.as_str()).collect();
        let missing = state.files.keys().find(|path| !listed.contains(path.as_str()));
        let path = missing.cloned().unwrap_or_default();
        // It may have been removed and deleted since: the caller looks at the log again.
        if dataset.latest_version(state.version).await? == state.version {
            return Err(ArchiveError::Damaged {
                path: format!("{}/{path}", location.display),
                reason:
                    "the dataset's log counts this file, but it is gone; restore it, or fill its range again"
                        .into(),
            });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Snapshot { dataset: dataset.clone(), state, files, strays, removed })
}

impl Snapshot {
    /// The dataset.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// The log's state it builds on.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The log's version it builds on.
    pub fn version(&self) -> u64 {
        self.state.version
    }

    /// The files that count, by path. Foreign files have no row counts and times before
    /// [`with_statistics`](Self::with_statistics).
    pub fn files(&self) -> &[FileEntry] {
        &self.files
    }

    /// The layout, where somebody has created the dataset.
    pub fn layout(&self) -> Option<&Layout> {
        self.state.layout.as_ref()
    }

    /// Ranges filled, by source, key and time.
    pub fn ranges(&self) -> &[Covered] {
        &self.state.ranges
    }

    /// Known gaps.
    pub fn gaps(&self) -> &[Gap] {
        &self.state.gaps
    }

    /// Names of the columns that are folders, outermost first: of the layout, or of the first file.
    pub fn partition_columns(&self) -> Vec<String> {
        match (&self.state.layout, self.files.first()) {
            (Some(layout), _) => layout.partition_by.clone(),
            (None, Some(file)) => file.partition.iter().map(|(name, _)| name.clone()).collect(),
            (None, None) => Vec::new(),
        }
    }

    /// Where a file is.
    pub fn path(&self, file: &FileEntry) -> Result<object_store::path::Path, ArchiveError> {
        self.dataset.path(&file.path)
    }

    /// The columns: of the layout, widened by the newest foreign file; where there is neither an error.
    pub async fn schema(&self) -> Result<SchemaRef, ArchiveError> {
        let mut fields: Vec<Field> = match &self.state.layout {
            Some(layout) => layout.schema()?.fields().iter().map(|f| f.as_ref().clone()).collect(),
            None => Vec::new(),
        };
        let foreign = || self.files.iter().filter(|f| !f.own);
        let newest = foreign().max_by_key(|f| (f.modified_ms, &f.path));
        let oldest = foreign().min_by_key(|f| (f.modified_ms, &f.path)).filter(|f| Some(*f) != newest);
        if fields.is_empty() && newest.is_none() {
            return match self.files.first() {
                Some(file) => Ok(read::footer(&self.dataset, file).await?.schema),
                None => {
                    Err(ArchiveError::Invalid(format!("`{}` has no files", self.dataset.location.display)))
                }
            };
        }
        for file in oldest.into_iter().chain(newest) {
            let footer = read::footer(&self.dataset, file).await?;
            let first = fields.is_empty();
            for field in footer.schema.fields() {
                match fields.iter_mut().find(|f| f.name() == field.name()) {
                    Some(f) => *f = f.clone().with_nullable(f.is_nullable() || field.is_nullable()),
                    None => {
                        let nullable = !first || field.is_nullable();
                        fields.push(field.as_ref().clone().with_nullable(nullable));
                    }
                }
            }
        }
        // Columns that lie in the folders alone.
        for name in self.partition_columns() {
            if name != "date" && !fields.iter().any(|f| *f.name() == name) {
                fields.push(Field::new(name, DataType::Utf8, true));
            }
        }
        Ok(Arc::new(Schema::new(fields)))
    }

    /// The same with rows and times of every file, from their footers where the log does not say.
    pub async fn with_statistics(mut self) -> Result<Self, ArchiveError> {
        let missing: Vec<usize> = (0..self.files.len()).filter(|i| self.files[*i].rows.is_none()).collect();
        let reads: Vec<_> = missing
            .iter()
            .map(|i| {
                let (dataset, file, i) = (self.dataset.clone(), self.files[*i].clone(), *i);
                async move { Ok::<_, ArchiveError>((i, read::footer(&dataset, &file).await?)) }.boxed()
            })
            .collect();
        let mut reads = futures::stream::iter(reads).buffer_unordered(FOOTERS_AT_ONCE);
        while let Some((i, footer)) = reads.try_next().await? {
            self.files[i].rows = Some(footer.rows);
            self.files[i].ts = footer.ts;
        }
        Ok(self)
    }

    /// Rows in all, where they are known of every file.
    pub fn rows(&self) -> Option<u64> {
        self.files.iter().map(|f| f.rows).sum()
    }

    /// Bytes in all.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.bytes).sum()
    }

    /// First and last event time in all, as far as they are known.
    pub fn ts(&self) -> Option<(i64, i64)> {
        let known = self.files.iter().filter_map(|f| f.ts);
        known.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }
}
