//! Savepoints: checkpoints that are kept under a name until they are removed, however many come after them.
//!
//! `savepoints/<name>.json` is a copy of a manifest; what it names is kept with it. A later start from it repeats decisions of all starts
//! since (which partitions joined late or were idle), so that sinks which know what they have written find the same rows again:
//! `savepoint-starts/<name>/<start>` remembers these starts once their own checkpoints are removed.
//!
//! Pinning needs no help of a running job. The newest manifest is taken: removing old checkpoints never touches what it names, and reads
//! the savepoints first; that all files are there is checked afterwards.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::retry::retried;
use super::{CheckpointError, CheckpointStore, Manifest};

/// Longest name.
const NAME_MAX: usize = 100;
/// How often a newer checkpoint is taken where the one that was found has gone meanwhile.
const TRIES: usize = 5;

/// A name that may be given to a savepoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavepointName(String);

impl std::str::FromStr for SavepointName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text.is_empty() || text.len() > NAME_MAX || text.starts_with('.') || !text.chars().all(fits) {
            return Err(format!(
                "`{text}` is not a savepoint's name: write up to {NAME_MAX} letters, digits, `-`, `_` or `.`"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl std::fmt::Display for SavepointName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the savepoints of a job keep from being removed.
#[derive(Debug)]
pub(super) struct Pinned {
    /// State files.
    pub files: BTreeSet<String>,
    /// The oldest content of a savepoint: decisions before it are known to all of them.
    pub oldest_content: u64,
    /// Starts whose decisions are needed.
    pub starts: BTreeSet<u64>,
    /// Names with their run, id and the starts that are remembered for them.
    names: Vec<(String, u64, u64, BTreeSet<u64>)>,
}

impl CheckpointStore {
    /// Keeps the newest checkpoint under `name`; its manifest. `None` where the job has no checkpoint yet.
    ///
    /// # Errors
    /// [`CheckpointError::NameTaken`] where there is one of this name, unless it is to be replaced.
    pub async fn pin(
        &self,
        name: &SavepointName,
        replace: bool,
    ) -> Result<Option<Manifest>, CheckpointError> {
        for attempt in 0..TRIES {
            let (Some(newest), _) = self.newest(u64::MAX).await? else { return Ok(None) };
            let body = serde_json::to_vec_pretty(&newest).map_err(|e| self.damaged("the savepoint", e))?;
            self.put_savepoint(name, body, replace || attempt > 0).await?;
            if self.lacks(&newest).await?.is_none() {
                return Ok(Some(newest));
            }
        }
        self.unpin(name).await?;
        Err(self.damaged("the newest checkpoint", "state files are missing"))
    }

    async fn put_savepoint(
        &self,
        name: &SavepointName,
        body: Vec<u8>,
        replace: bool,
    ) -> Result<(), CheckpointError> {
        let path = self.savepoint_path(name);
        let what = format!("write savepoint {name}");
        let body = bytes::Bytes::from(body);
        let put = || async {
            let mode = if replace { PutMode::Overwrite } else { PutMode::Create };
            let options = PutOptions { mode, ..Default::default() };
            match self.location.store.put_opts(&path, PutPayload::from(body.clone()), options).await {
                Ok(_) => Ok(true),
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                    Ok(false)
                }
                Err(e) => Err(self.failed(&what, &e)),
            }
        };
        // A put whose answer was lost finds its own.
        if !retried(put).await? && self.read_savepoint(&path).await?.as_deref() != Some(&body[..]) {
            return Err(CheckpointError::NameTaken { name: name.to_string(), place: self.place() });
        }
        self.location.sync(&path).await.map_err(|e| self.not_synced(&what, &e))
    }

    /// Forgets a savepoint; whether there was one. Its files go with the next checkpoint of the job.
    pub async fn unpin(&self, name: &SavepointName) -> Result<bool, CheckpointError> {
        let path = self.savepoint_path(name);
        let there = self.read_savepoint(&path).await?.is_some();
        if there {
            let delete = || async {
                let gone = self.location.store.delete(&path).await;
                gone.map_err(|e| self.failed(format!("remove savepoint {name}"), &e))
            };
            retried(delete).await?;
            for start in self.listed(&format!("savepoint-starts/{name}")).await? {
                let _ = self.location.store.delete(&start).await;
            }
        }
        Ok(there)
    }

    /// The manifest under a name.
    ///
    /// # Errors
    /// [`CheckpointError::NoSavepoint`] where there is none.
    pub async fn savepoint(&self, name: &SavepointName) -> Result<Manifest, CheckpointError> {
        let found = self.read_savepoint(&self.savepoint_path(name)).await?;
        let Some(bytes) = found else {
            return Err(CheckpointError::NoSavepoint { name: name.to_string(), place: self.place() });
        };
        serde_json::from_slice(&bytes).map_err(|e| self.damaged(format!("savepoints/{name}.json"), e))
    }

    /// All savepoints, by name.
    pub async fn savepoints(&self) -> Result<BTreeMap<String, Manifest>, CheckpointError> {
        let mut all = BTreeMap::new();
        for path in self.listed("savepoints").await? {
            let Some(name) = path.filename().and_then(|file| file.strip_suffix(".json")) else { continue };
            let Some(bytes) = self.read_savepoint(&path).await? else { continue };
            let manifest = serde_json::from_slice(&bytes).map_err(|e| self.damaged(path.to_string(), e))?;
            all.insert(name.to_owned(), manifest);
        }
        Ok(all)
    }

    /// Starts whose decisions hold for a run that goes on from a savepoint, beside those that checkpoints still name.
    pub async fn starts_since(&self, name: &SavepointName) -> Result<BTreeSet<u64>, CheckpointError> {
        self.remembered(&name.0).await
    }

    async fn remembered(&self, name: &str) -> Result<BTreeSet<u64>, CheckpointError> {
        let found = self.listed(&format!("savepoint-starts/{name}")).await?;
        Ok(found.iter().filter_map(|path| u64::from_str_radix(path.filename()?, 16).ok()).collect())
    }

    /// What savepoints keep. A savepoint that cannot be read keeps everything: the error.
    pub(super) async fn pinned(&self) -> Result<Pinned, CheckpointError> {
        let (files, starts, names) = Default::default();
        let mut pinned = Pinned { files, starts, names, oldest_content: u64::MAX };
        for (name, manifest) in self.savepoints().await? {
            let remembered = self.remembered(&name).await?;
            pinned.files.extend(manifest.state.into_values().flatten().map(|file| file.path));
            pinned.oldest_content = pinned.oldest_content.min(manifest.content);
            pinned.starts.insert(manifest.start);
            pinned.starts.extend(manifest.follows);
            pinned.starts.extend(&remembered);
            pinned.names.push((name, manifest.run, manifest.id, remembered));
        }
        Ok(pinned)
    }

    /// Remembers the start of a checkpoint that is about to be removed, for savepoints of its run that are older.
    pub(super) async fn remember(
        &self,
        pinned: &mut Pinned,
        manifest: &Manifest,
    ) -> Result<(), CheckpointError> {
        for (name, run, id, remembered) in &mut pinned.names {
            if *run != manifest.run || *id > manifest.id || !remembered.insert(manifest.start) {
                continue;
            }
            let path = self.at(&format!("savepoint-starts/{name}/{:016x}", manifest.start));
            let put = || async {
                let put = self.location.store.put(&path, PutPayload::from_static(b"")).await;
                put.map_err(|e| self.failed("remember a start", &e))
            };
            retried(put).await?;
            pinned.starts.insert(manifest.start);
        }
        Ok(())
    }

    fn savepoint_path(&self, name: &SavepointName) -> Path {
        self.at(&format!("savepoints/{name}.json"))
    }

    async fn read_savepoint(&self, path: &Path) -> Result<Option<Vec<u8>>, CheckpointError> {
        let what = format!("read {path}");
        let read = || async {
            let found = match self.location.store.get(path).await {
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                found => found.map_err(|e| self.failed(&what, &e))?,
            };
            found.bytes().await.map(|bytes| Some(bytes.to_vec())).map_err(|e| self.failed(&what, &e))
        };
        retried(read).await
    }

    async fn listed(&self, folder: &str) -> Result<Vec<Path>, CheckpointError> {
        let prefix = self.at(folder);
        let list = || async {
            let found: Result<Vec<_>, _> = self.location.store.list(Some(&prefix)).try_collect().await;
            found.map_err(|e| self.failed(format!("list {folder}"), &e))
        };
        Ok(retried(list).await?.into_iter().map(|object| object.location).collect())
    }
}

impl Pinned {
    /// Whether there are savepoints.
    pub fn any(&self) -> bool {
        !self.names.is_empty()
    }
}

#[cfg(test)]
mod tests;
