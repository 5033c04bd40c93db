//! Makes few sorted files of many small ones, under running readers and writers.
//!
//! Files of one folder and one writer are merged into new own files, and one commit swaps them; the
//! old ones stay where they are until `expire`. Rows never leave their writer ([`Origin`]): so a
//! backfill can still replace its own rows, and a `parquet` sink can still tell what an earlier run left.
//!
//! **Which files of a `parquet` sink may be compacted.** When its job restarts from checkpoint c, the
//! sink removes the files named `after-N` with N >= c, whose rows it writes again. A compacted file
//! cannot be removed that way, so only files that no restart can want to remove are taken. A file
//! `after-N` is put when checkpoint N + 1 is cut, and a job cuts one checkpoint at a time and gives up
//! after 5 in a row that it could not commit; so with a file `after-A` in the folder, a checkpoint not older
//! than A - 5 has been committed, and the job, restarting from its newest, never removes a file with
//! N < A - 5. Taken are files with N + [`CHECKPOINTS_BEHIND`] < A, A being the newest of the same writer's
//! newest generation; further only those last modified an hour ago (or `older_than`), so that folders in
//! use are not rewritten over and over. What a job that has ended for good wrote last is taken with `ended`.
//! Going back by hand (`--from ID`) to a checkpoint before compacted rows is refused by the sink, which
//! finds the largest N of each compacted file in the log.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use tidemill_engine::row;

use crate::ArchiveError;
use crate::dataset::{Change, Dataset};
use crate::encode;
use crate::log::{Added, Origin};
use crate::range::{WriteOptions, drain};
use crate::read::{self, Choice};
use crate::snapshot::{FileEntry, Snapshot};
use crate::sort::Sorter;
use crate::upload::FileWriter;

/// How many checkpoints a sink's file must be behind the newest: more than a job can fail to commit.
pub const CHECKPOINTS_BEHIND: u64 = 8;
/// Files that one merge takes at most.
const FILES_MAX: usize = 1000;
/// Files from which on a merge is worth it whatever their sizes.
const MANY: usize = 8;

/// What is compacted, and how.
#[derive(Clone, Debug)]
pub struct CompactOptions {
    /// Foreign files modified later than this long ago stay, milliseconds.
    pub older_than_ms: i64,
    /// The jobs that wrote here have ended for good: their last files may be taken too.
    pub ended: bool,
    /// How files are written. Files of more than three quarters of `file_bytes` stay as they are.
    pub write: WriteOptions,
}

impl Default for CompactOptions {
    fn default() -> Self {
        Self { older_than_ms: 3_600_000, ended: false, write: WriteOptions::default() }
    }
}

/// Files that become one (or a few).
#[derive(Clone, Debug)]
pub struct Group {
    /// Their folder, relative to the dataset; with a slash behind it where it is not empty.
    pub folder: String,
    /// The files, in order.
    pub files: Vec<FileEntry>,
    /// Their bytes.
    pub bytes: u64,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompactReport {
    /// Folders and writers whose files were merged.
    pub groups: usize,
    /// Files before.
    pub files_before: usize,
    /// Files after.
    pub files_after: usize,
    /// Bytes before.
    pub bytes_before: u64,
    /// Bytes after.
    pub bytes_after: u64,
    /// Rows in them.
    pub rows: u64,
}

/// Which files belong together. `now_ms`: the time by which files are old.
pub fn plan(snapshot: &Snapshot, now_ms: i64, options: &CompactOptions) -> Vec<Group> {
    // The newest file of each sink, by generation and checkpoint.
    let mut newest: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for file in snapshot.files().iter().filter(|f| !f.own) {
        if let Origin::Sink { writer, after, generation } = &file.origin {
            let newest = newest.entry(writer).or_default();
            *newest = (*newest).max((*generation, *after));
        }
    }
    let may = |file: &&FileEntry| {
        if file.own {
            return true;
        }
        let settled = match &file.origin {
            Origin::Sink { writer, after, .. } => {
                let newest = newest.get(writer.as_str()).map_or(0, |n| n.1);
                options.ended || after + CHECKPOINTS_BEHIND < newest
            }
            _ => true,
        };
        settled && file.modified_ms <= now_ms - options.older_than_ms
    };
    let full = (options.write.file_bytes / 4 * 3) as u64;
    let mut small: BTreeMap<(&str, (&str, &str)), Vec<&FileEntry>> = BTreeMap::new();
    for file in snapshot.files().iter().filter(may).filter(|f| f.bytes < full) {
        let folder = file.path.rfind('/').map_or("", |slash| &file.path[..=slash]);
        small.entry((folder, file.origin.writer())).or_default().push(file);
    }
    let mut groups = Vec::new();
    for ((folder, _), mut files) in small {
        // By time where it is known; a sink's names rise with its checkpoints.
        files.sort_by_key(|f| (f.ts.map_or(i64::MAX, |ts| ts.0), f.path.as_str()));
        let mut bin: Vec<FileEntry> = Vec::new();
        let mut bytes = 0;
        let mut push = |bin: &mut Vec<FileEntry>, bytes: &mut u64| {
            let largest = bin.iter().map(|f| f.bytes).max().unwrap_or(0);
            if bin.len() >= MANY || bin.len() >= 2 && largest <= *bytes / 4 * 3 {
                groups.push(Group { folder: folder.to_owned(), files: std::mem::take(bin), bytes: *bytes });
            }
            bin.clear();
            *bytes = 0;
        };
        for file in files {
            if bytes + file.bytes > options.write.file_bytes as u64 || bin.len() >= FILES_MAX {
                push(&mut bin, &mut bytes);
            }
            bytes += file.bytes;
            bin.push(file.clone());
        }
        push(&mut bin, &mut bytes);
    }
    groups
}

/// Compacts groups one after another, each in a commit of its own; `done` hears of every group. Where
/// another compaction has taken a file first, this one ends with [`ArchiveError::Conflict`]; what it has
/// committed until then stays.
pub async fn run(
    snapshot: &Snapshot,
    groups: &[Group],
    options: &CompactOptions,
    mut done: impl FnMut(&Group),
) -> Result<CompactReport, ArchiveError> {
    let mut report = CompactReport::default();
    for group in groups {
        let added = merge(snapshot, group, options).await?;
        let dataset = snapshot.dataset();
        let swapped = swap(snapshot, group, &added).await;
        if let Err(error) = swapped {
            // Nobody has seen them; should this fail, `expire` clears them away.
            for file in &added {
                let _ = dataset.location().store.delete(&dataset.path(&file.path)?).await;
            }
            return Err(error);
        }
        report.groups += 1;
        report.files_before += group.files.len();
        report.files_after += added.len();
        report.bytes_before += group.bytes;
        report.bytes_after += added.iter().map(|f| f.bytes).sum::<u64>();
        report.rows += added.iter().map(|f| f.rows).sum::<u64>();
        done(group);
    }
    Ok(report)
}

/// Commits the new files in place of the old.
async fn swap(snapshot: &Snapshot, group: &Group, added: &[Added]) -> Result<(), ArchiveError> {
    let dataset = snapshot.dataset();
    // A sink that went back to an earlier checkpoint may have removed some meanwhile.
    for file in group.files.iter().filter(|f| !f.own) {
        let path = dataset.path(&file.path)?;
        match dataset.location().store.head(&path).await {
            Ok(_) => {}
            Err(object_store::Error::NotFound { .. }) => {
                return Err(ArchiveError::Conflict {
                    place: dataset.location().display.clone(),
                    reason: format!(
                        "`{}` was removed while it was compacted; nothing was changed",
                        file.path
                    ),
                });
            }
            Err(e) => return Err(ArchiveError::storage("look for", path.to_string(), &e)),
        }
    }
    let change = Change {
        by: "compact".into(),
        add: added.to_vec(),
        remove: group.files.iter().map(|f| f.path.clone()).collect(),
        ..Change::default()
    };
    dataset.commit(snapshot.state(), change).await.map(drop)
}

/// Writes a group's rows into new files.
async fn merge(
    snapshot: &Snapshot,
    group: &Group,
    options: &CompactOptions,
) -> Result<Vec<Added>, ArchiveError> {
    let dataset = snapshot.dataset();
    let origin =
        group.files.iter().map(|f| f.origin.clone()).map(Some).reduce(|a, b| a?.merged(&b?)).flatten();
    let origin = origin.ok_or_else(|| ArchiveError::Invalid("a group has several writers".into()))?;
    let schema = union(dataset, group).await?;
    let sort: Vec<String> = match snapshot.layout() {
        Some(layout) => layout.sort.clone(),
        None => [row::TS, row::SRC, row::SEQ].map(str::to_owned).to_vec(),
    };
    let sort: Vec<String> = sort.into_iter().filter(|name| schema.index_of(name).is_ok()).collect();
    match schema.field_with_name(row::TS) {
        Ok(f) if *f.data_type() == row::ts_type() => {}
        _ => {
            return Err(ArchiveError::Invalid(format!(
                "cannot compact `{}`: its files have no column `ts` of type {}",
                dataset.location().display,
                row::ts_type()
            )));
        }
    }
    let partition_by = snapshot.partition_columns();
    let write = &options.write;
    let properties = encode::properties(&schema, write.zstd, write.row_group_rows, &partition_by, &sort);
    let mut sorter = Sorter::new(schema.clone(), &sort, write.memory_bytes)?;
    let mut expected = 0u64;
    for file in &group.files {
        let mut rows = read::rows(dataset, file, Choice::all(schema.clone())).await?;
        while let Some(batch) = rows.try_next().await? {
            expected += batch.num_rows() as u64;
            let pushed = tokio::task::spawn_blocking(move || {
                sorter.push(batch)?;
                Ok(sorter)
            });
            sorter = pushed.await.unwrap_or_else(|e| Err(ArchiveError::rows("sort rows", e)))?;
        }
    }
    let runtime = tokio::runtime::Handle::current();
    let files = FileWriter::new(dataset, runtime, schema, &[], properties, write.file_bytes, origin)?
        .in_folder(&group.folder);
    let added = tokio::task::spawn_blocking(move || drain(sorter.finish()?, files)).await;
    let added = added.unwrap_or_else(|e| Err(ArchiveError::rows("write rows", e)))?;
    let written: u64 = added.iter().map(|f| f.rows).sum();
    if written != expected {
        let reason = format!("{expected} rows were read, {written} written; nothing was changed");
        return Err(ArchiveError::rows(format!("compact `{}`", group.folder), reason));
    }
    Ok(added)
}

/// The columns of all files of a group: no column is lost, none changes its type.
async fn union(dataset: &Dataset, group: &Group) -> Result<SchemaRef, ArchiveError> {
    let mut fields: Vec<Field> = Vec::new();
    for (i, file) in group.files.iter().enumerate() {
        let footer = read::footer(dataset, file).await?;
        for field in &mut fields {
            if footer.schema.index_of(field.name()).is_err() {
                *field = field.clone().with_nullable(true);
            }
        }
        for field in footer.schema.fields() {
            match fields.iter_mut().find(|f| f.name() == field.name()) {
                None => {
                    let nullable = field.is_nullable() || i > 0;
                    fields.push(Field::new(field.name(), field.data_type().clone(), nullable));
                }
                Some(f) if kind(f.data_type()) == kind(field.data_type()) => {
                    *f = f.clone().with_nullable(f.is_nullable() || field.is_nullable());
                }
                Some(f) => {
                    return Err(ArchiveError::Invalid(format!(
                        "cannot compact `{}`: column `{}` is {} in `{}`, but {} in files before it",
                        dataset.location().display,
                        f.name(),
                        field.data_type(),
                        file.path,
                        f.data_type()
                    )));
                }
            }
        }
    }
    Ok(std::sync::Arc::new(Schema::new(fields)))
}

/// Types that hold the same values are the same.
fn kind(t: &DataType) -> DataType {
    match t {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Dictionary(_, value) => kind(value),
        other => other.clone(),
    }
}
