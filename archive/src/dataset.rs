//! One dataset: its layout, its log, its snapshots.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use object_store::path::Path;
use tidemill_engine::clock::Clock;
use tidemill_engine::storage::Location;

use crate::ArchiveError;
use crate::layout::Layout;
use crate::log::store::{LogStore, Put};
use crate::log::{Action, Added, Commit, Covered, Gap, State};
use crate::snapshot::{self, Snapshot};

/// Attempts at a commit before giving up: each fails only because another's succeeded.
const ATTEMPTS_MAX: usize = 100;

/// A dataset. Clones share what has been read of the log.
#[derive(Clone, Debug)]
pub struct Dataset {
    name: String,
    pub(crate) location: Location,
    pub(crate) local: Option<PathBuf>,
    pub(crate) clock: Clock,
    log: LogStore,
    known: Arc<Mutex<Arc<State>>>,
}

/// A change to commit.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// What makes it: `backfill`, `compact`, …
    pub by: String,
    /// A new layout.
    pub layout: Option<Layout>,
    /// Own files that count from now on.
    pub add: Vec<Added>,
    /// Files that do not any more. Where another commit has removed one of them already, the change fails.
    pub remove: Vec<String>,
    /// Removed files that have been deleted.
    pub forget: Vec<String>,
    /// Ranges filled.
    pub ranges: Vec<Covered>,
    /// Gaps found.
    pub gaps: Vec<Gap>,
    /// Time (ns) before which ranges and gaps are void.
    pub uncover: Option<i64>,
    /// The change fails where, since the version it builds on, another commit has added files of
    /// ranges of this source.
    pub alone_in: Option<String>,
}

impl Dataset {
    pub(crate) fn new(name: &str, location: Location, local: Option<PathBuf>, clock: Clock) -> Self {
        let log = LogStore::new(location.clone());
        Self { name: name.to_owned(), location, local, clock, log, known: Arc::default() }
    }

    /// Its name: that of its folder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The place of a file, given its path relative to the dataset.
    pub fn path(&self, relative: &str) -> Result<Path, ArchiveError> {
        let base = self.location.path.as_ref();
        let full = if base.is_empty() { relative.to_owned() } else { format!("{base}/{relative}") };
        Path::parse(&full).map_err(|e| ArchiveError::Invalid(format!("`{full}` is not a path: {e}")))
    }

    /// What the log says now.
    pub async fn state(&self) -> Result<Arc<State>, ArchiveError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let state = Arc::new(self.log.catch_up(&known).await?);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if state.version > known.version {
            *known = state.clone();
        }
        Ok(state)
    }

    /// The newest version of the log, given that `version` exists.
    pub(crate) async fn latest_version(&self, version: u64) -> Result<u64, ArchiveError> {
        self.log.latest(version).await
    }

    /// What readers see now: see [`Snapshot`].
    pub async fn snapshot(&self) -> Result<Snapshot, ArchiveError> {
        snapshot::take(self).await
    }

    /// The columns: of the log, or of the first file where nobody has created the dataset.
    pub async fn schema(&self) -> Result<SchemaRef, ArchiveError> {
        self.snapshot().await?.schema().await
    }

    /// Creates the dataset, or widens it so that rows of `layout` fit; the layout it has then.
    pub async fn create_or_open(&self, layout: &Layout) -> Result<Layout, ArchiveError> {
        layout.check()?;
        for _ in 0..ATTEMPTS_MAX {
            let state = self.state().await?;
            let wanted = match &state.layout {
                None => layout.clone(),
                Some(old) => old.widened(layout)?,
            };
            if state.layout.as_ref() == Some(&wanted) {
                return Ok(wanted);
            }
            let change = Change { by: "create".into(), layout: Some(wanted.clone()), ..Change::default() };
            // At this version only: otherwise another's columns could be lost.
            if self.attempt(&state, &change).await?.is_some() {
                return Ok(wanted);
            }
        }
        Err(self.conflict("it never came to rest"))
    }

    /// Commits `change`, which was made up in the light of `base`; the new version.
    pub async fn commit(&self, base: &State, change: Change) -> Result<u64, ArchiveError> {
        for _ in 0..ATTEMPTS_MAX {
            let state = self.state().await?;
            self.agrees(base, &state, &change)?;
            if let Some(version) = self.attempt(&state, &change).await? {
                return Ok(version);
            }
        }
        Err(self.conflict("it never came to rest"))
    }

    fn conflict(&self, reason: impl Into<String>) -> ArchiveError {
        ArchiveError::Conflict { place: self.location.display.clone(), reason: reason.into() }
    }

    /// Whether `change` still means the same at `now` as it did at `base`.
    fn agrees(&self, base: &State, now: &State, change: &Change) -> Result<(), ArchiveError> {
        for path in &change.remove {
            let was_own = base.files.contains_key(path);
            if now.removed.contains_key(path) || was_own && !now.files.contains_key(path) {
                return Err(self.conflict(format!(
                    "version {} has removed `{path}` already; nothing was changed, run it again",
                    now.version
                )));
            }
        }
        if let Some(source) = &change.alone_in {
            let own = |added: &&Added| added.origin.writer() == ("range", source.as_str());
            if let Some(new) = now.files.values().filter(own).find(|f| !base.files.contains_key(&f.path)) {
                return Err(self.conflict(format!("`{}` of `{source}` has been added", new.path)));
            }
        }
        Ok(())
    }

    /// One attempt at the version after `state`'s; `None` where another commit has it.
    async fn attempt(&self, state: &State, change: &Change) -> Result<Option<u64>, ArchiveError> {
        let mut actions: Vec<Action> = Vec::new();
        actions.extend(change.layout.clone().map(Action::Layout));
        actions.extend(change.remove.iter().map(|path| Action::Remove { path: path.clone() }));
        actions.extend(change.add.iter().cloned().map(Action::Add));
        actions.extend(change.forget.iter().map(|path| Action::Forget { path: path.clone() }));
        actions.extend(change.uncover.map(|to| Action::Uncover { to }));
        actions.extend(change.ranges.iter().cloned().map(Action::Cover));
        actions.extend(change.gaps.iter().cloned().map(Action::Miss));
        let commit = Commit {
            version: state.version + 1,
            id: unique_id(&self.clock, &self.location.display),
            at_ms: self.clock.now_ns() / 1_000_000,
            by: change.by.clone(),
            actions,
        };
        tidemill_engine::fault::point("archive-before-commit");
        if self.log.put(&commit).await? == Put::Lost {
            return Ok(None);
        }
        tidemill_engine::fault::point("archive-after-commit");
        if let Some(folder) = &self.local {
            let folder = folder.join(crate::name::LOG_FOLDER);
            let name = format!("{:020}.json", commit.version);
            let synced = tokio::task::spawn_blocking(move || crate::upload::sync(&folder.join(name))).await;
            synced.map_err(std::io::Error::other).and_then(|r| r).map_err(|e| ArchiveError::Storage {
                what: "commit".into(),
                place: self.location.display.clone(),
                reason: e.to_string(),
                passing: false,
            })?;
        }
        let mut next = state.clone();
        next.apply(&commit);
        self.log.checkpoint(&next).await;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if next.version > known.version {
            *known = Arc::new(next);
        }
        Ok(Some(commit.version))
    }
}

/// A name that nobody else gives: the time, the process, a count, where.
pub(crate) fn unique_id(clock: &Clock, salt: &str) -> String {
    use std::hash::{BuildHasher, Hasher};
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    // Seeded by the system's randomness.
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write(salt.as_bytes());
    hasher.write_u64(COUNT.fetch_add(1, Ordering::Relaxed));
    hasher.write_u32(std::process::id());
    format!("{:016x}{:016x}", clock.now_ns(), hasher.finish())
}
