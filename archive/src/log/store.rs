//! Reads and extends the log on object storage.

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tidemill_engine::storage::Location;

use super::{Commit, State};
use crate::ArchiveError;
use crate::name::LOG_FOLDER;

/// Commits between two checkpoints of the log.
const CHECKPOINT_EVERY: u64 = 32;
/// Commits that are read at once.
const READS_AT_ONCE: usize = 16;

/// How an attempt at a version ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is ours.
    Won,
    /// Somebody else has it.
    Lost,
}

/// The log of one dataset.
#[derive(Clone, Debug)]
pub struct LogStore {
    location: Location,
}

impl LogStore {
    /// The log of the dataset at `location`.
    pub fn new(location: Location) -> Self {
        Self { location }
    }

    fn place(&self) -> String {
        self.location.display.clone()
    }

    fn folder(&self) -> Path {
        self.location.path.clone().join(LOG_FOLDER)
    }

    fn commit_path(&self, version: u64) -> Path {
        self.folder().join(format!("{version:020}.json"))
    }

    fn checkpoint_path(&self, version: u64) -> Path {
        self.folder().join(format!("{version:020}.checkpoint.json"))
    }

    /// Whether the dataset has a log, and commits past `version` in it: their numbers, and the newest
    /// checkpoint past it.
    async fn list(&self, version: u64) -> Result<(Vec<u64>, Option<u64>), ArchiveError> {
        // Sorts behind every file of this version and before those of the next.
        let offset = self.folder().join(format!("{version:020}.json~"));
        let mut found = self.location.store.list_with_offset(Some(&self.folder()), &offset);
        let (mut commits, mut checkpoint) = (Vec::new(), None);
        loop {
            let meta = match found.try_next().await {
                Ok(Some(meta)) => meta,
                Ok(None) | Err(object_store::Error::NotFound { .. }) => break,
                Err(e) => return Err(ArchiveError::storage("list the log", self.place(), &e)),
            };
            let Some(stem) = meta.location.filename().and_then(|n| n.strip_suffix(".json")) else { continue };
            match stem.strip_suffix(".checkpoint") {
                Some(number) => checkpoint = checkpoint.max(number.parse::<u64>().ok()),
                None => commits.extend(stem.parse::<u64>().ok()),
            }
        }
        commits.retain(|v| *v > version);
        commits.sort_unstable();
        Ok((commits, checkpoint.filter(|c| *c > version)))
    }

    /// The newest version there is, given that `version` exists.
    pub async fn latest(&self, version: u64) -> Result<u64, ArchiveError> {
        Ok(self.list(version).await?.0.last().copied().unwrap_or(version))
    }

    /// Brings `state` up to the newest commit.
    pub async fn catch_up(&self, state: &State) -> Result<State, ArchiveError> {
        let (commits, checkpoint) = self.list(state.version).await?;
        let mut state = match checkpoint {
            Some(version) => self.read::<State>(&self.checkpoint_path(version)).await?,
            None => state.clone(),
        };
        let wanted: Vec<u64> = commits.into_iter().filter(|v| *v > state.version).collect();
        let reads = wanted.into_iter().map(|v| {
            let path = self.commit_path(v);
            async move { self.read::<Commit>(&path).await }
        });
        let reads: Vec<_> = reads.map(futures::FutureExt::boxed).collect();
        let mut reads = futures::stream::iter(reads).buffered(READS_AT_ONCE);
        while let Some(commit) = reads.try_next().await? {
            if commit.version != state.version + 1 {
                return Err(ArchiveError::Damaged {
                    path: self.commit_path(state.version + 1).to_string(),
                    reason: format!("it is missing from the log, though version {} is there", commit.version),
                });
            }
            state.apply(&commit);
        }
        Ok(state)
    }

    async fn read<T: serde::de::DeserializeOwned>(&self, path: &Path) -> Result<T, ArchiveError> {
        let fail = |e| ArchiveError::storage("read", path.to_string(), &e);
        let bytes = self.location.store.get(path).await.map_err(fail)?.bytes().await.map_err(fail)?;
        serde_json::from_slice(&bytes)
            .map_err(|e| ArchiveError::Damaged { path: path.to_string(), reason: e.to_string() })
    }

    /// Tries to make `commit` the next version.
    pub async fn put(&self, commit: &Commit) -> Result<Put, ArchiveError> {
        let path = self.commit_path(commit.version);
        let body = serde_json::to_vec(commit).map_err(|e| ArchiveError::rows("write a commit", e))?;
        let options = PutOptions { mode: PutMode::Create, ..Default::default() };
        match self.location.store.put_opts(&path, PutPayload::from(body), options).await {
            Ok(_) => Ok(Put::Won),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                // The store's answer may have been lost and our own write tried again.
                let winner: Commit = self.read(&path).await?;
                Ok(if winner.id == commit.id { Put::Won } else { Put::Lost })
            }
            Err(e) => Err(ArchiveError::storage("commit", self.place(), &e)),
        }
    }

    /// Leaves a checkpoint where one is due. Failing does no harm.
    pub async fn checkpoint(&self, state: &State) {
        if !state.version.is_multiple_of(CHECKPOINT_EVERY) {
            return;
        }
        let path = self.checkpoint_path(state.version);
        let body = match serde_json::to_vec(state) {
            Ok(body) => body,
            Err(error) => return tracing::warn!(%error, "the archive's log has no new checkpoint"),
        };
        if let Err(error) = self.location.store.put(&path, PutPayload::from(body)).await {
            tracing::warn!(%error, dataset = self.place(), "the archive's log has no new checkpoint");
        }
    }
}
