//! Drops old partitions, and deletes files that no reader needs any more.
//!
//! Both in two steps that a crash may part: what is dropped is removed in the log first (readers that
//! have begun go on), and deleted by a later `expire`, once it has been removed for `older_than`.

use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;

use crate::ArchiveError;
use crate::dataset::{Change, Dataset};
use crate::snapshot::{FileEntry, Snapshot, Stray};

/// Files deleted at once.
const DELETES_AT_ONCE: usize = 16;
/// Own files that no commit has added are deleted when they are older than this: a backfill that
/// still writes has younger ones.
pub const STRAY_MS: i64 = 24 * 3_600_000;
/// Files removed by one commit.
const COMMIT_FILES: usize = 10_000;

/// What `expire` would do.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Files to drop: all their rows are before the date.
    pub drop: Vec<FileEntry>,
    /// The date's first instant (ns), where there is one.
    pub before: Option<i64>,
    /// Removed files to delete.
    delete: Vec<Stray>,
    /// Files nobody has added, to delete.
    strays: Vec<Stray>,
    /// Removed files that are gone already.
    gone: Vec<String>,
}

impl Plan {
    /// Removed files that would be deleted, and their bytes.
    pub fn deletes(&self) -> (usize, u64) {
        (self.delete.len(), self.delete.iter().map(|f| f.bytes).sum())
    }

    /// Files of crashed work that would be deleted, and their bytes.
    pub fn strays(&self) -> (usize, u64) {
        (self.strays.len(), self.strays.iter().map(|f| f.bytes).sum())
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.drop.is_empty() && self.delete.is_empty() && self.strays.is_empty() && self.gone.is_empty()
    }
}

/// Finds what has expired: removed files since `older_than_ms`, and rows before `before` (ns), of which
/// only whole files are dropped. For `before` the snapshot needs statistics.
pub fn plan(snapshot: &Snapshot, now_ms: i64, older_than_ms: i64, before: Option<i64>) -> Plan {
    let state = snapshot.state();
    let old = |path: &str| state.removed.get(path).is_some_and(|at| *at <= now_ms - older_than_ms);
    let listed: std::collections::HashSet<&str> = snapshot.removed.iter().map(|f| f.path.as_str()).collect();
    let drop = |file: &&FileEntry| before.is_some_and(|before| file.ts.is_some_and(|ts| ts.1 < before));
    let stray = |f: &&Stray| f.modified_ms <= now_ms - older_than_ms.max(STRAY_MS);
    Plan {
        drop: snapshot.files().iter().filter(drop).cloned().collect(),
        before,
        delete: snapshot.removed.iter().filter(|f| old(&f.path)).cloned().collect(),
        strays: snapshot.strays.iter().filter(stray).cloned().collect(),
        gone: state.removed.keys().filter(|p| !listed.contains(p.as_str()) && old(p)).cloned().collect(),
    }
}

/// Does it.
pub async fn run(snapshot: &Snapshot, plan: &Plan) -> Result<(), ArchiveError> {
    let dataset = snapshot.dataset();
    let change = || Change { by: "expire".into(), ..Change::default() };
    for files in plan.drop.chunks(COMMIT_FILES) {
        let remove = files.iter().map(|f| f.path.clone()).collect();
        dataset.commit(snapshot.state(), Change { remove, uncover: plan.before, ..change() }).await?;
    }
    // Deleted first, then forgotten: what is gone but still noted as removed harms nobody.
    let paths = plan.delete.iter().chain(&plan.strays).map(|f| f.path.clone());
    delete(dataset, paths.collect()).await?;
    let gone: Vec<String> =
        plan.delete.iter().map(|f| f.path.clone()).chain(plan.gone.iter().cloned()).collect();
    for forget in gone.chunks(COMMIT_FILES) {
        dataset.commit(snapshot.state(), Change { forget: forget.to_vec(), ..change() }).await?;
    }
    Ok(())
}

async fn delete(dataset: &Dataset, paths: Vec<String>) -> Result<(), ArchiveError> {
    let deletes = paths.into_iter().map(|relative| async move {
        let path = dataset.path(&relative)?;
        match dataset.location().store.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(ArchiveError::storage("delete", relative, &e)),
        }
    });
    let deletes: Vec<_> = deletes.map(futures::FutureExt::boxed).collect();
    futures::stream::iter(deletes).buffer_unordered(DELETES_AT_ONCE).try_collect::<Vec<()>>().await?;
    Ok(())
}
