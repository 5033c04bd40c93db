//! The store of spilled keys: one for the process, a table for each instance of a node, on a local disk.
//!
//! It is a scratch: the truth is the checkpoint, so nothing is synced, and the folder is emptied when a run begins and
//! removed when it ends. A lock keeps a second process out. fjall, a log-structured merge tree: evicted keys are
//! written in sorted runs, looked up in batches, and read as of an instant for snapshots.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, Readable, Slice};

use super::StateMemoryError;

/// Longest key with its group.
const KEY_MAX: usize = u16::MAX as usize;

/// The store of a process.
pub struct Scratch {
    folder: PathBuf,
    db: Option<Database>,
    memtable_bytes: u64,
    tables: AtomicU64,
    _lock: File,
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Scratch {
    /// Takes the folder, empties it and opens a store that uses about `bytes` of memory.
    pub fn open(folder: &Path, bytes: u64) -> Result<Self, StateMemoryError> {
        let failed = |e: std::io::Error| failed_io(folder, &e);
        std::fs::create_dir_all(folder).map_err(failed)?;
        let lock = File::create(folder.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StateMemoryError::InUse(folder.to_owned())),
            Err(TryLockError::Error(e)) => return Err(failed(e)),
        }
        let store = folder.join("store");
        if store.exists() {
            std::fs::remove_dir_all(&store).map_err(failed)?;
        }
        let memtable_bytes = (bytes / 8).clamp(256 << 10, 64 << 20);
        let db = Database::builder(&store)
            .cache_size((bytes / 2).max(1 << 20))
            .max_journaling_size((64 << 20).max(4 * memtable_bytes))
            .manual_journal_persist(true)
            .worker_threads(2)
            .open()
            .map_err(|e| failed_store(folder, &e))?;
        Ok(Self {
            folder: folder.to_owned(),
            db: Some(db),
            memtable_bytes,
            tables: AtomicU64::new(0),
            _lock: lock,
        })
    }

    /// A table with no rows.
    pub fn table(&self) -> Result<Table, StateMemoryError> {
        let name = format!("t{}", self.tables.fetch_add(1, Relaxed));
        let Some(db) = self.db.clone() else {
            return Err(failed_io(&self.folder, &std::io::Error::other("the store is closed")));
        };
        let memtable_bytes = self.memtable_bytes;
        let options = move || KeyspaceCreateOptions::default().max_memtable_size(memtable_bytes);
        let rows = db.keyspace(&name, options).map_err(|e| failed_store(&self.folder, &e))?;
        Ok(Table { folder: self.folder.clone(), name, db, rows, memtable_bytes })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.db = None;
        if let Err(error) = std::fs::remove_dir_all(self.folder.join("store")) {
            tracing::debug!(folder = %self.folder.display(), %error, "the spilled state was not removed");
        }
    }
}

fn failed_io(folder: &Path, error: &std::io::Error) -> StateMemoryError {
    if error.kind() == std::io::ErrorKind::StorageFull {
        return StateMemoryError::Full(folder.to_owned());
    }
    StateMemoryError::Folder { folder: folder.to_owned(), reason: error.to_string() }
}

fn failed_store(folder: &Path, error: &fjall::Error) -> StateMemoryError {
    let folder_ = folder.to_owned();
    match error {
        fjall::Error::Io(e) | fjall::Error::Storage(fjall::LsmError::Io(e)) => match e.kind() {
            std::io::ErrorKind::StorageFull => StateMemoryError::Full(folder_),
            _ => StateMemoryError::Store { folder: folder_, reason: e.to_string() },
        },
        fjall::Error::Poisoned => {
            let reason = "an earlier write failed (is the disk full?)".to_owned();
            StateMemoryError::Store { folder: folder_, reason }
        }
        other => StateMemoryError::Store { folder: folder_, reason: format!("{other:?}") },
    }
}

/// Rows by key: a key group in two bytes, then the key.
#[derive(Clone)]
pub struct Table {
    folder: PathBuf,
    name: String,
    db: Database,
    rows: Keyspace,
    memtable_bytes: u64,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A row of a table.
pub type Row = (Slice, Slice);

impl Table {
    /// The row of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Slice>, StateMemoryError> {
        self.rows.get(key).map_err(|e| self.failed(&e))
    }

    /// Writes for this table, made together by [`Writes::commit`].
    pub fn writes(&self) -> Writes<'_> {
        Writes { table: self, batch: self.db.batch() }
    }

    /// The table as it is now.
    pub fn view(&self) -> View {
        View { table: self.clone(), at: self.db.snapshot() }
    }

    /// At most `n` rows after a key, in order.
    pub fn after(&self, key: &[u8], n: usize) -> Result<Vec<Row>, StateMemoryError> {
        let from = (std::ops::Bound::Excluded(key.to_vec()), std::ops::Bound::Unbounded);
        let rows = self.rows.range::<Vec<u8>, _>(from).take(n);
        rows.map(|row| row.into_inner().map_err(|e| self.failed(&e))).collect()
    }

    /// An empty table beside this one.
    pub fn beside(&self, name: &str) -> Result<Self, StateMemoryError> {
        let (name, memtable_bytes) = (format!("{}-{name}", self.name), self.memtable_bytes);
        let options = move || KeyspaceCreateOptions::default().max_memtable_size(memtable_bytes);
        let rows = self.db.keyspace(&name, options).map_err(|e| self.failed(&e))?;
        Ok(Self { name, rows, ..self.clone() })
    }

    /// Removes the table with its rows.
    pub fn remove(self) -> Result<(), StateMemoryError> {
        let Self { folder, db, rows, .. } = self;
        db.delete_keyspace(rows).map_err(|e| failed_store(&folder, &e))
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.rows.disk_space()
    }

    fn failed(&self, error: &fjall::Error) -> StateMemoryError {
        failed_store(&self.folder, error)
    }
}

/// Writes that are made together.
pub struct Writes<'a> {
    table: &'a Table,
    batch: OwnedWriteBatch,
}

impl Writes<'_> {
    /// Sets a row.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateMemoryError> {
        if key.len() > KEY_MAX {
            let reason = format!("a key of {} bytes is too long to spill (64 KiB at most)", key.len());
            return Err(StateMemoryError::Store { folder: self.table.folder.clone(), reason });
        }
        self.batch.insert(&self.table.rows, key, value);
        Ok(())
    }

    /// Removes a row.
    pub fn remove(&mut self, key: &[u8]) {
        self.batch.remove(&self.table.rows, key);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Makes them.
    pub fn commit(self) -> Result<(), StateMemoryError> {
        crate::fault::io("spill-write").map_err(|e| failed_io(&self.table.folder, &e))?;
        self.batch.commit().map_err(|e| self.table.failed(&e))
    }
}

/// A table as it was at an instant.
pub struct View {
    table: Table,
    at: fjall::Snapshot,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("table", &self.table.name).finish_non_exhaustive()
    }
}

impl View {
    /// The rows of a key group, in order of their keys.
    pub fn group(&self, group: u16) -> impl Iterator<Item = Result<Row, StateMemoryError>> + '_ {
        let rows = self.at.prefix(&self.table.rows, group.to_be_bytes());
        rows.map(|row| row.into_inner().map_err(|e| self.table.failed(&e)))
    }
}
