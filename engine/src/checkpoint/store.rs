//! Reads and writes checkpoints on object storage, and fences older runs.

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::checkpoint::manifest::Manifest;
use crate::checkpoint::retry::retried;
use crate::checkpoint::savepoint::SavepointName;
use crate::storage::{Location, may_pass};

/// The checkpoints of one job.
#[derive(Clone, Debug)]
pub struct CheckpointStore {
    pub(super) location: Location,
    job: String,
    /// Committed checkpoints that are kept.
    keep: usize,
}

/// Which checkpoint a run starts from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StartFrom {
    /// The last one, unless the run it belongs to had ended.
    #[default]
    Latest,
    /// None: a run begins from nothing.
    None,
    /// This one.
    Id(u64),
    /// The one that was kept under this name.
    Savepoint(SavepointName),
}

impl std::str::FromStr for StartFrom {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "latest" => Ok(Self::Latest),
            "none" => Ok(Self::None),
            other => match other.strip_prefix("savepoint:") {
                Some(name) => name.parse().map(Self::Savepoint),
                None => other.parse().map(Self::Id).map_err(|_| {
                    format!("`{other}` is not latest, none, a checkpoint's id or savepoint:NAME")
                }),
            },
        }
    }
}

/// What can go wrong with checkpoints.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Storage failed.
    #[error("cannot {what} in {place}: {reason}")]
    Storage {
        /// What was tried.
        what: String,
        /// Where.
        place: String,
        /// What the store answered.
        reason: String,
        /// Whether it may go away by itself.
        may_pass: bool,
    },
    /// A file is not what was written: cut short, or changed.
    #[error("`{path}` in {place} is damaged: {reason}")]
    Damaged {
        /// The file, in the job's folder.
        path: String,
        /// Where that is.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The store lets two runs write one manifest.
    #[error(
        "{place} does not keep a file that is there when it is put with `if-none-match`, so two runs of a job could not be told apart: \
         keep checkpoints in a store with conditional writes"
    )]
    Unconditional {
        /// The store.
        place: String,
    },
    /// Another run has written the manifest that this one was about to write.
    #[error(
        "fenced: generation {newer} of job `{job}` has taken over (this is generation {own}); this run stops"
    )]
    Fenced {
        /// The job.
        job: String,
        /// The generation that took over.
        newer: u64,
        /// The generation that lost.
        own: u64,
    },
    /// A savepoint has this name already.
    #[error("{place} has a savepoint `{name}` already: give another name, or replace it with --replace")]
    NameTaken {
        /// The name.
        name: String,
        /// Where.
        place: String,
    },
    /// There is no such savepoint.
    #[error("{place} has no savepoint `{name}`; `tidemill savepoint GRAPH` lists those there are")]
    NoSavepoint {
        /// The name.
        name: String,
        /// Where.
        place: String,
    },
    /// There is no such checkpoint.
    #[error("job `{job}` has no checkpoint {id}; `tidemill checkpoints` lists those there are")]
    Missing {
        /// The job.
        job: String,
        /// The id asked for.
        id: u64,
    },
}

impl CheckpointStore {
    /// The checkpoints of `job` at `location`, of which `keep` are kept.
    pub fn new(location: Location, job: &str, keep: usize) -> Self {
        Self { location, job: job.to_owned(), keep: keep.max(1) }
    }

    /// Where they are.
    pub fn place(&self) -> String {
        format!("{}/{}", self.location.display.trim_end_matches('/'), self.job)
    }

    pub(super) fn at(&self, rest: &str) -> Path {
        let mut path = self.location.path.clone().join(self.job.as_str());
        for part in rest.split('/') {
            path = path.join(part);
        }
        path
    }

    pub(super) fn failed(&self, what: impl Into<String>, error: &object_store::Error) -> CheckpointError {
        let mut reason = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            reason = cause.to_string();
            source = cause.source();
        }
        CheckpointError::Storage { what: what.into(), place: self.place(), reason, may_pass: may_pass(error) }
    }

    pub(super) fn not_synced(&self, what: &str, error: &std::io::Error) -> CheckpointError {
        let (what, reason) = (what.to_owned(), error.to_string());
        CheckpointError::Storage { what, place: self.place(), reason, may_pass: true }
    }

    pub(super) fn damaged(&self, path: impl Into<String>, reason: impl ToString) -> CheckpointError {
        CheckpointError::Damaged { path: path.into(), place: self.place(), reason: reason.to_string() }
    }

    /// Ids of the committed checkpoints, in order.
    pub async fn ids(&self) -> Result<Vec<u64>, CheckpointError> {
        let prefix = self.at("manifests");
        let list = || async {
            let found: Result<Vec<_>, _> = self.location.store.list(Some(&prefix)).try_collect().await;
            found.map_err(|e| self.failed("list checkpoints", &e))
        };
        let objects = retried(list).await?;
        let mut ids: Vec<u64> = objects
            .iter()
            .filter_map(|o| o.location.filename()?.strip_suffix(".json")?.parse().ok())
            .collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Reads a manifest; `None` where there is none of this id.
    pub async fn manifest(&self, id: u64) -> Result<Option<Manifest>, CheckpointError> {
        let what = format!("read checkpoint {id}");
        let read = || async {
            let found = match self.location.store.get(&self.manifest_path(id)).await {
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                found => found.map_err(|e| self.failed(&what, &e))?,
            };
            found.bytes().await.map(Some).map_err(|e| self.failed(&what, &e))
        };
        let Some(bytes) = retried(read).await? else { return Ok(None) };
        let parsed = serde_json::from_slice(&bytes).map(Some);
        parsed.map_err(|e| self.damaged(format!("manifests/{id:020}.json"), e))
    }

    /// The newest manifest that is whole, below `below`, and how many newer ones are damaged. A write that was cut off by a
    /// power cut must not keep a job from going on.
    pub async fn newest(&self, below: u64) -> Result<(Option<Manifest>, u64), CheckpointError> {
        let mut damaged = 0;
        for id in self.ids().await?.into_iter().rev().filter(|id| *id < below) {
            match self.manifest(id).await {
                Ok(Some(manifest)) => return Ok((Some(manifest), damaged)),
                Ok(None) => {}
                Err(error @ CheckpointError::Damaged { .. }) => {
                    tracing::warn!(%error, "the checkpoint before it counts");
                    damaged += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok((None, damaged))
    }

    /// The first of a manifest's state files that is not there, or not of its size.
    pub async fn lacks(&self, manifest: &Manifest) -> Result<Option<String>, CheckpointError> {
        for file in manifest.state.values().flatten() {
            let what = format!("look for state file {}", file.path);
            let size = || async {
                match self.location.store.head(&self.at(&file.path)).await {
                    Ok(meta) => Ok(Some(meta.size)),
                    Err(object_store::Error::NotFound { .. }) => Ok(None),
                    Err(e) => Err(self.failed(&what, &e)),
                }
            };
            if retried(size).await? != Some(file.bytes) {
                return Ok(Some(file.path.clone()));
            }
        }
        Ok(None)
    }

    /// Finds out whether the store refuses to put a file that is there already, as fencing needs. `start` names the probe.
    pub async fn probe(&self, start: u64) -> Result<(), CheckpointError> {
        let path = self.at(&format!("probes/{start:016x}"));
        let what = "write to the folder of checkpoints";
        let put = || async {
            let options = PutOptions { mode: PutMode::Create, ..Default::default() };
            match self.location.store.put_opts(&path, PutPayload::from_static(b"probe"), options).await {
                Ok(_) => Ok(true),
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                    Ok(false)
                }
                Err(
                    object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. },
                ) => Err(CheckpointError::Unconditional { place: self.place() }),
                Err(e) => Err(self.failed(what, &e)),
            }
        };
        // The first may find its own file: its answer was lost, and it was tried again.
        retried(put).await?;
        let overwritten = retried(put).await?;
        let _ = self.location.store.delete(&path).await;
        if overwritten { Err(CheckpointError::Unconditional { place: self.place() }) } else { Ok(()) }
    }

    fn manifest_path(&self, id: u64) -> Path {
        self.at(&format!("manifests/{id:020}.json"))
    }

    /// All manifests, in order; those that are damaged are warned of and left out.
    pub async fn manifests(&self) -> Result<Vec<Manifest>, CheckpointError> {
        let mut all = Vec::new();
        for id in self.ids().await? {
            match self.manifest(id).await {
                Ok(manifest) => all.extend(manifest),
                Err(error @ CheckpointError::Damaged { .. }) => tracing::warn!(%error, "left out"),
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Commits the checkpoint that comes after `last` of the same start. Checkpoints that failed meanwhile leave ids free: those get
    /// copies of `last` first, so that a start which has taken one of them is met there. Without them a run that
    /// could not reach its checkpoints for a while would take the job back from the one that replaced it.
    pub async fn commit_after(&self, last: &Manifest, manifest: &Manifest) -> Result<(), CheckpointError> {
        for id in last.id + 1..manifest.id {
            self.put(&Manifest { id, ..last.clone() }).await?;
        }
        self.commit(manifest).await
    }

    /// Commits a manifest: only one start can ever write a given id. What fails and may pass is tried again for a while.
    pub async fn commit(&self, manifest: &Manifest) -> Result<(), CheckpointError> {
        let path = self.put(manifest).await?;
        let what = format!("commit checkpoint {}", manifest.id);
        self.location.sync(&path).await.map_err(|e| self.not_synced(&what, &e))?;
        match self.ids().await?.last() {
            // The id was free because it has been pruned: newer runs are far ahead already.
            Some(last) if *last > manifest.id => {
                let newer = self.generation_from(*last).await?;
                Err(CheckpointError::Fenced { job: self.job.clone(), newer, own: manifest.generation })
            }
            _ => Ok(()),
        }
    }

    /// Puts a manifest under its id, unless another start has.
    async fn put(&self, manifest: &Manifest) -> Result<Path, CheckpointError> {
        let what = format!("commit checkpoint {}", manifest.id);
        let body = match serde_json::to_vec_pretty(manifest) {
            Ok(body) => bytes::Bytes::from(body),
            Err(e) => return Err(self.damaged("the manifest to be written", e)),
        };
        let path = self.manifest_path(manifest.id);
        let put = || async {
            let options = PutOptions { mode: PutMode::Create, ..Default::default() };
            crate::fault::io("manifest-put").map_err(|e| self.not_synced(&what, &e))?;
            match self.location.store.put_opts(&path, PutPayload::from(body.clone()), options).await {
                Ok(_) => Ok(true),
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                    Ok(false)
                }
                Err(e) => Err(self.failed(&what, &e)),
            }
        };
        if !retried(put).await? && !self.wrote(manifest).await? {
            let newer = self.generation_from(manifest.id).await?;
            return Err(CheckpointError::Fenced { job: self.job.clone(), newer, own: manifest.generation });
        }
        Ok(path)
    }

    /// Whether what stands under the manifest's id is of the same start, which writes one thing under it: the answer to its put
    /// was lost.
    async fn wrote(&self, manifest: &Manifest) -> Result<bool, CheckpointError> {
        match self.manifest(manifest.id).await {
            Ok(Some(found)) => Ok(found.start == manifest.start),
            Ok(None) | Err(CheckpointError::Damaged { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The generation of a manifest; 0 where it cannot be read any more.
    async fn generation_from(&self, id: u64) -> Result<u64, CheckpointError> {
        match self.manifest(id).await {
            Ok(found) => Ok(found.map_or(0, |m| m.generation)),
            Err(CheckpointError::Damaged { .. }) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Writes a state file; its path in the job's folder.
    pub async fn put_state(
        &self,
        id: u64,
        generation: u64,
        node: &str,
        worker: usize,
        bytes: Vec<u8>,
    ) -> Result<String, CheckpointError> {
        let path = format!("state/{id:020}/{generation}-{node}-{worker}.bin");
        let (what, bytes, at) =
            (format!("write the state of `{node}`"), bytes::Bytes::from(bytes), self.at(&path));
        let put = || async {
            crate::fault::io("state-put").map_err(|e| self.not_synced(&what, &e))?;
            let put = self.location.store.put(&at, PutPayload::from(bytes.clone())).await;
            put.map_err(|e| self.failed(&what, &e))?;
            self.location.sync(&at).await.map_err(|e| self.not_synced(&what, &e))
        };
        retried(put).await.map(|()| path)
    }

    /// Reads a state file.
    pub async fn get_state(&self, path: &str) -> Result<Vec<u8>, CheckpointError> {
        let what = format!("read state file {path}");
        let read = || async {
            let found = self.location.store.get(&self.at(path)).await.map_err(|e| self.failed(&what, &e))?;
            found.bytes().await.map_err(|e| self.failed(&what, &e))
        };
        Ok(retried(read).await?.to_vec())
    }

    /// Removes checkpoints beyond the number kept, and state no manifest names. Errors are not
    /// fatal: what stays is removed the next time.
    pub async fn prune(&self) -> Result<(), CheckpointError> {
        // Before the manifests: a start that has decided something has committed one.
        let decisions = self.decision_files().await?;
        let ids = self.ids().await?;
        let mut pinned = self.pinned().await?;
        let mut named = std::mem::take(&mut pinned.files);
        let mut starts = std::collections::BTreeSet::new();
        let (mut cut, mut whole, mut oldest_content) = (ids.len(), 0, u64::MAX);
        // Only whole ones count: what a run could begin from.
        while cut > 0 && whole < self.keep {
            cut -= 1;
            match self.manifest(ids[cut]).await {
                Ok(None) | Err(CheckpointError::Damaged { .. }) => {}
                Ok(Some(manifest)) => {
                    whole += 1;
                    oldest_content = oldest_content.min(manifest.content);
                    starts.insert(manifest.start);
                    starts.extend(manifest.follows.iter().copied());
                    named.extend(manifest.state.into_values().flatten().map(|f| f.path));
                }
                Err(error) => return Err(error),
            }
        }
        if cut == 0 {
            return Ok(());
        }
        for id in &ids[..cut] {
            if pinned.any() {
                match self.manifest(*id).await {
                    Ok(Some(manifest)) => self.remember(&mut pinned, &manifest).await?,
                    Ok(None) | Err(CheckpointError::Damaged { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            let _ = self.location.store.delete(&self.manifest_path(*id)).await;
        }
        let oldest_content = oldest_content.min(pinned.oldest_content);
        for decision in decisions {
            let known = decision.epoch.is_some_and(|epoch| epoch <= oldest_content);
            let needed = starts.contains(&decision.start) || pinned.starts.contains(&decision.start);
            if known || !needed {
                let _ = self.location.store.delete(&decision.path).await;
            }
        }
        let oldest = ids.get(cut).copied().unwrap_or_default();
        let prefix = self.at("state");
        let found: Result<Vec<_>, _> = self.location.store.list(Some(&prefix)).try_collect().await;
        for object in found.map_err(|e| self.failed("list state files", &e))? {
            let path = object.location.to_string();
            let Some(at) = path.rfind("state/") else { continue };
            let relative = &path[at..];
            let id: u64 = relative.split('/').nth(1).and_then(|p| p.parse().ok()).unwrap_or(u64::MAX);
            // Files of checkpoints being written now have ids above the newest manifest.
            if id < oldest && !named.contains(relative) {
                let _ = self.location.store.delete(&object.location).await;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::manifest::Reason;

    fn manifest(id: u64, generation: u64) -> Manifest {
        Manifest {
            id,
            content: id,
            job: "j".into(),
            generation,
            run: 1,
            start: generation,
            follows: Vec::new(),
            committed_at: String::new(),
            reason: Reason::Interval,
            workers: 1,
            graph: serde_json::Value::Null,
            sources: Default::default(),
            state: Default::default(),
            sinks: Default::default(),
            former: Default::default(),
        }
    }

    #[tokio::test]
    async fn an_id_is_written_once_and_the_loser_learns_who_won() {
        let folder = tempfile::tempdir().unwrap();
        let location = crate::storage::open(folder.path().to_str().unwrap(), folder.path()).unwrap();
        let store = CheckpointStore::new(location, "j", 2);
        store.commit(&manifest(1, 1)).await.unwrap();
        store.commit(&manifest(2, 2)).await.unwrap();
        let lost = store.commit(&manifest(2, 1)).await.unwrap_err();
        assert!(matches!(lost, CheckpointError::Fenced { newer: 2, own: 1, .. }), "{lost}");
        store.commit(&manifest(2, 2)).await.unwrap();
        let decision = super::super::decisions::Decision {
            source: "s".into(),
            partition: 0,
            floor: super::super::decisions::Floor { from_seq: 0, rule: super::super::decisions::Rule::Idle },
        };
        for start in [1, 2] {
            store.put_decisions(start, "0-0", std::slice::from_ref(&decision)).await.unwrap();
        }
        for id in 3..6 {
            store.put_state(id, 2, "n", 0, vec![1]).await.unwrap();
            store.commit(&manifest(id, 2)).await.unwrap();
            store.prune().await.unwrap();
        }
        assert_eq!(store.ids().await.unwrap(), [4, 5]);
        assert_eq!(store.decisions(1).await.unwrap(), [], "no kept manifest names start 1");
        assert_eq!(store.decisions(2).await.unwrap().len(), 1);
        // A zombie from before finds its id free again, and is fenced all the same.
        let lost = store.commit(&manifest(3, 1)).await.unwrap_err();
        assert!(matches!(lost, CheckpointError::Fenced { newer: 2, own: 1, .. }), "{lost}");
    }
}
