//! Decisions about a source's partitions that do not follow from its log, written before they take effect.
//!
//! A partition that joins a running job, or that was passed as idle and comes back, is judged against a watermark that wall-clock
//! time had a part in. A replay must judge it the same, so the watermark is written first: a *floor*. Under the job's folder lie
//! `decisions/<start>/<epoch>-<process>-<n>.json`, created only if absent, where `start` identifies the start of the job that decided,
//! and checkpoint `epoch` is the first that knows of the decision. The next start reads what the starts it follows have written;
//! decisions of a start that no manifest follows are never read, and those that all kept checkpoints know are removed.

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::{Deserialize, Serialize};

use super::store::{CheckpointError, CheckpointStore};

/// What holds for the rows of a partition at position `from_seq` and after it. Applying one twice changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Floor {
    /// The first position it holds for.
    pub from_seq: u64,
    /// What holds.
    pub rule: Rule,
}

/// What a floor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The partition joined a running job: its watermark is at least this.
    Joined(i64),
    /// The watermark may pass the partition; its next row needs a [`Rule::Woke`] first.
    Idle,
    /// Rows came after it was idle: its watermark is at least this.
    Woke(i64),
}

impl Rule {
    /// The watermark that it sets.
    pub fn ts(self) -> Option<i64> {
        match self {
            Self::Joined(ts) | Self::Woke(ts) => Some(ts),
            Self::Idle => None,
        }
    }
}

/// A floor of one partition, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Node name of the source.
    pub source: String,
    /// The partition.
    pub partition: u32,
    /// What holds.
    pub floor: Floor,
}

/// Files that are read at once.
const FILES_AT_ONCE: usize = 16;

fn folder(start: u64) -> String {
    format!("decisions/{start:016x}")
}

impl CheckpointStore {
    /// Writes decisions of a start under a name that it uses once. Writing the same again is no error: an answer may be lost.
    pub async fn put_decisions(
        &self,
        start: u64,
        name: &str,
        decisions: &[Decision],
    ) -> Result<(), CheckpointError> {
        let what = "write decisions about partitions";
        let path = self.at(&format!("{}/{name}.json", folder(start)));
        let body = serde_json::to_vec(decisions).map_err(|e| self.damaged(path.to_string(), e))?;
        let options = PutOptions { mode: PutMode::Create, ..Default::default() };
        match self.location.store.put_opts(&path, PutPayload::from(body), options).await {
            Ok(_) => self.location.sync(&path).await.map_err(|e| self.not_synced(what, &e)),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. })
                if self.read_decisions(&path).await? == decisions =>
            {
                Ok(())
            }
            Err(e) => Err(self.failed(what, &e)),
        }
    }

    /// All decisions of a start.
    pub async fn decisions(&self, start: u64) -> Result<Vec<Decision>, CheckpointError> {
        let prefix = self.at(&folder(start));
        let found: Result<Vec<_>, _> = self.location.store.list(Some(&prefix)).try_collect().await;
        let found = found.map_err(|e| self.failed("list decisions about partitions", &e))?;
        let reads = found.into_iter().map(async |object| self.read_decisions(&object.location).await);
        let all: Vec<Vec<Decision>> =
            futures::stream::iter(reads).buffered(FILES_AT_ONCE).try_collect().await?;
        Ok(all.concat())
    }

    async fn read_decisions(&self, path: &Path) -> Result<Vec<Decision>, CheckpointError> {
        let what = format!("read decisions about partitions ({path})");
        let found = self.location.store.get(path).await.map_err(|e| self.failed(&what, &e))?;
        let bytes = found.bytes().await.map_err(|e| self.failed(&what, &e))?;
        serde_json::from_slice(&bytes).map_err(|e| self.damaged(path.to_string(), e))
    }

    /// The stored decisions. To be listed before the manifests that may follow them.
    pub(super) async fn decision_files(&self) -> Result<Vec<DecisionFile>, CheckpointError> {
        let prefix = self.at("decisions");
        let found: Result<Vec<_>, _> = self.location.store.list(Some(&prefix)).try_collect().await;
        let found = found.map_err(|e| self.failed("list decisions about partitions", &e))?;
        let file = |path: Path| {
            let parts: Vec<_> = path.parts().collect();
            let start = u64::from_str_radix(parts.iter().rev().nth(1)?.as_ref(), 16).ok()?;
            let mut name = parts.last()?.as_ref().split('-');
            let epoch = name.next().filter(|_| name.count() == 2).and_then(|epoch| epoch.parse().ok());
            Some(DecisionFile { start, epoch, path })
        };
        Ok(found.into_iter().filter_map(|object| file(object.location)).collect())
    }
}

/// A file of decisions.
pub(super) struct DecisionFile {
    /// The start that decided.
    pub start: u64,
    /// The first checkpoint that knows of it; `None` where it is of an earlier start or version.
    pub epoch: Option<u64>,
    /// Where it is.
    pub path: Path,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Given a write whose answer was lost, when it is repeated, then it is there once; another content under its name is refused.
    #[tokio::test]
    async fn a_decision_is_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let location = crate::storage::open(folder.path().to_str().unwrap(), folder.path()).unwrap();
        let store = CheckpointStore::new(location, "j", 2);
        let decision = |ts| Decision {
            source: "s".into(),
            partition: 1,
            floor: Floor { from_seq: 7, rule: Rule::Woke(ts) },
        };
        store.put_decisions(5, "0-0", &[decision(1)]).await.unwrap();
        store.put_decisions(5, "0-0", &[decision(1)]).await.unwrap();
        assert!(store.put_decisions(5, "0-0", &[decision(2)]).await.is_err());
        store.put_decisions(6, "0-0", &[decision(3)]).await.unwrap();
        assert_eq!(store.decisions(5).await.unwrap(), [decision(1)]);
        assert_eq!(store.decisions(7).await.unwrap(), []);
    }
}
