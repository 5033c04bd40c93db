//! Reads and writes checkpoints on object storage, and fences older runs.

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::checkpoint::manifest::Manifest;
use crate::storage::Location;

/// The checkpoints of one job.
#[derive(Clone, Debug)]
pub struct CheckpointStore {
    location: Location,
    job: String,
    /// Committed checkpoints that are kept.
    keep: usize,
}

/// Which checkpoint a run starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartFrom {
    /// The last one, unless the run it belongs to had ended.
    #[default]
    Latest,
    /// None: a run begins from nothing.
    None,
    /// This one.
    Id(u64),
}

impl std::str::FromStr for StartFrom {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "latest" => Ok(Self::Latest),
            "none" => Ok(Self::None),
            id => id
                .parse()
                .map(Self::Id)
                .map_err(|_| format!("`{id}` is not latest, none or a checkpoint's id")),
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
        /// What the store said.
        reason: String,
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

    fn at(&self, rest: &str) -> Path {
        let mut path = self.location.path.clone().join(self.job.as_str());
        for part in rest.split('/') {
            path = path.join(part);
        }
        path
    }

    fn failed(&self, what: impl Into<String>, error: &dyn std::error::Error) -> CheckpointError {
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            reason = cause.to_string();
            source = cause.source();
        }
        CheckpointError::Storage { what: what.into(), place: self.place(), reason }
    }

    /// Ids of the committed checkpoints, in order.
    pub async fn ids(&self) -> Result<Vec<u64>, CheckpointError> {
        let prefix = self.at("manifests");
        let found: Result<Vec<_>, _> = self.location.store.list(Some(&prefix)).try_collect().await;
        let objects = found.map_err(|e| self.failed("list checkpoints", &e))?;
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
        match self.location.store.get(&self.manifest_path(id)).await {
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.failed(what, &e)),
            Ok(found) => {
                let bytes = found.bytes().await.map_err(|e| self.failed(&what, &e))?;
                serde_json::from_slice(&bytes).map(Some).map_err(|e| self.failed(what, &e))
            }
        }
    }

    fn manifest_path(&self, id: u64) -> Path {
        self.at(&format!("manifests/{id:020}.json"))
    }

    /// All manifests, in order.
    pub async fn manifests(&self) -> Result<Vec<Manifest>, CheckpointError> {
        let mut all = Vec::new();
        for id in self.ids().await? {
            all.extend(self.manifest(id).await?);
        }
        Ok(all)
    }

    /// Commits a manifest: only one process can ever write a given id.
    pub async fn commit(&self, manifest: &Manifest) -> Result<(), CheckpointError> {
        let what = format!("commit checkpoint {}", manifest.id);
        let body = serde_json::to_vec_pretty(manifest).map_err(|e| self.failed(&what, &e))?;
        let options = PutOptions { mode: PutMode::Create, ..Default::default() };
        crate::fault::io("manifest-put").map_err(|e| self.failed(&what, &e))?;
        match self
            .location
            .store
            .put_opts(&self.manifest_path(manifest.id), PutPayload::from(body), options)
            .await
        {
            // The id was free because it has been pruned: newer runs are far ahead already.
            Ok(_) => match self.ids().await?.last() {
                Some(last) if *last > manifest.id => Err(CheckpointError::Fenced {
                    job: self.job.clone(),
                    newer: self.manifest(*last).await?.map_or(0, |m| m.generation),
                    own: manifest.generation,
                }),
                _ => Ok(()),
            },
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                let winner = self.manifest(manifest.id).await?;
                match winner {
                    // The store's answer to our own write was lost and the write was tried again.
                    Some(m) if m.generation == manifest.generation => Ok(()),
                    winner => Err(CheckpointError::Fenced {
                        job: self.job.clone(),
                        newer: winner.map_or(0, |m| m.generation),
                        own: manifest.generation,
                    }),
                }
            }
            Err(e) => Err(self.failed(what, &e)),
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
        let what = format!("write the state of `{node}`");
        crate::fault::io("state-put").map_err(|e| self.failed(&what, &e))?;
        let put = self.location.store.put(&self.at(&path), PutPayload::from(bytes)).await;
        put.map_err(|e| self.failed(what, &e))?;
        Ok(path)
    }

    /// Reads a state file.
    pub async fn get_state(&self, path: &str) -> Result<Vec<u8>, CheckpointError> {
        let what = format!("read state file {path}");
        let found = self.location.store.get(&self.at(path)).await.map_err(|e| self.failed(&what, &e))?;
        Ok(found.bytes().await.map_err(|e| self.failed(what, &e))?.to_vec())
    }

    /// Removes checkpoints beyond the number kept, and state no manifest names. Errors are not
    /// fatal: what stays is removed the next time.
    pub async fn prune(&self) -> Result<(), CheckpointError> {
        let ids = self.ids().await?;
        let Some(cut) = ids.len().checked_sub(self.keep) else { return Ok(()) };
        let mut named = std::collections::BTreeSet::new();
        for id in &ids[cut..] {
            if let Some(manifest) = self.manifest(*id).await? {
                named.extend(manifest.state.into_values().flatten().map(|f| f.path));
            }
        }
        for id in &ids[..cut] {
            let _ = self.location.store.delete(&self.manifest_path(*id)).await;
        }
        let oldest = ids.get(cut).copied().unwrap_or_default();
        let prefix = self.at("state");
        let found: Result<Vec<_>, _> = self.location.store.list(Some(&prefix)).try_collect().await;
        for object in found.map_err(|e| self.failed("list state files", &e))? {
            let path = object.location.to_string();
            let Some(at) = path.find("state/") else { continue };
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
            committed_at: String::new(),
            reason: Reason::Interval,
            workers: 1,
            graph: serde_json::Value::Null,
            sources: Default::default(),
            state: Default::default(),
            sinks: Default::default(),
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
        for id in 3..6 {
            store.put_state(id, 2, "n", 0, vec![1]).await.unwrap();
            store.commit(&manifest(id, 2)).await.unwrap();
            store.prune().await.unwrap();
        }
        assert_eq!(store.ids().await.unwrap(), [4, 5]);
        // A zombie from before finds its id free again, and is fenced all the same.
        let lost = store.commit(&manifest(3, 1)).await.unwrap_err();
        assert!(matches!(lost, CheckpointError::Fenced { newer: 2, own: 1, .. }), "{lost}");
    }
}
