//! The archive's datasets as tables: each query sees the files there are when it is planned.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError, RwLock};

use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::prelude::SessionContext;
use tidemill_archive::{ArchiveError, Catalog, Snapshot};

use super::dataset::DatasetTable;
use crate::error::{ErrorKind, SqlError};

/// The archive's URL within the session: whatever the store, its paths are looked up there.
const STORE: &str = "tidemill-archive://archive";

/// First and last time and rows of files that the log does not tell of, by path, size and time of change.
type Footers = Mutex<HashMap<(String, u64, i64), (Option<u64>, Option<(i64, i64)>)>>;

/// An open archive.
#[derive(Debug)]
pub(super) struct Archive {
    catalog: Catalog,
    store: ObjectStoreUrl,
    /// Names in SQL, and the datasets they are of, as last listed.
    names: RwLock<Vec<(String, String)>>,
    footers: Footers,
}

/// What goes wrong in the archive, as an error of a query.
pub(super) fn explain(error: &ArchiveError) -> SqlError {
    SqlError::new(ErrorKind::Storage, error.to_string())
}

impl Archive {
    pub(super) async fn open(url: &str, base: &Path, context: &SessionContext) -> Result<Self, SqlError> {
        let catalog = Catalog::open(url, base).map_err(|e| explain(&e))?;
        let fail = |e: datafusion::error::DataFusionError| SqlError::of(&e, "", &Default::default());
        let store = ObjectStoreUrl::parse(STORE).map_err(fail)?;
        context.register_object_store(store.as_ref(), catalog.location().store.clone());
        let archive = Self { catalog, store, names: RwLock::default(), footers: Mutex::default() };
        archive.refresh().await?;
        Ok(archive)
    }

    /// Lists the datasets again.
    pub(super) async fn refresh(&self) -> Result<(), SqlError> {
        let datasets = self.catalog.datasets().await.map_err(|e| explain(&e))?;
        let mut names: Vec<(String, String)> = Vec::new();
        for dataset in datasets {
            let simple = simple(&dataset);
            // Where two datasets would have one name, the second keeps its own, in quotes.
            let name = if names.iter().any(|(n, _)| *n == simple) { dataset.clone() } else { simple };
            names.push((name, dataset));
        }
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = names;
        Ok(())
    }

    pub(super) fn names(&self) -> Vec<(String, String)> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn display(&self) -> &str {
        self.catalog.display()
    }

    /// The table as it is now; `None` where there is no such dataset.
    pub(super) async fn table(&self, name: &str) -> Result<Option<DatasetTable>, SqlError> {
        let find = || self.names().into_iter().find(|(n, d)| n == name || d == name).map(|(_, d)| d);
        let dataset = match find() {
            Some(dataset) => dataset,
            None => {
                self.refresh().await?;
                match find() {
                    Some(dataset) => dataset,
                    None => return Ok(None),
                }
            }
        };
        let dataset = self.catalog.dataset(&dataset).map_err(|e| explain(&e))?;
        let snapshot = dataset.snapshot().await.map_err(|e| explain(&e))?;
        if snapshot.files().is_empty() && snapshot.layout().is_none() {
            return Ok(None);
        }
        let snapshot = self.with_statistics(snapshot).await?;
        let table = DatasetTable::open(snapshot, self.store.clone()).await.map_err(|e| explain(&e))?;
        Ok(Some(table))
    }

    /// Adds what footers say of foreign files; each footer is read once while the archive is open.
    async fn with_statistics(&self, snapshot: Snapshot) -> Result<super::dataset::Files, SqlError> {
        let key = |f: &tidemill_archive::FileEntry| (f.path.clone(), f.bytes, f.modified_ms);
        let name = snapshot.dataset().name().to_owned();
        let known = |footers: &Footers, f: &tidemill_archive::FileEntry| {
            let footers = footers.lock().unwrap_or_else(PoisonError::into_inner);
            let (path, bytes, modified) = key(f);
            footers.get(&(format!("{name}/{path}"), bytes, modified)).copied()
        };
        let missing = snapshot.files().iter().any(|f| f.rows.is_none() && known(&self.footers, f).is_none());
        if missing {
            let read = snapshot.clone().with_statistics().await.map_err(|e| explain(&e))?;
            let mut footers = self.footers.lock().unwrap_or_else(PoisonError::into_inner);
            for (file, read) in snapshot.files().iter().zip(read.files()).filter(|(f, _)| f.rows.is_none()) {
                let (path, bytes, modified) = key(file);
                footers.insert((format!("{name}/{path}"), bytes, modified), (read.rows, read.ts));
            }
        }
        let entries = snapshot.files().iter().map(|file| {
            let mut file = file.clone();
            if let Some((rows, ts)) = known(&self.footers, &file) {
                file.rows = file.rows.or(rows);
                file.ts = file.ts.or(ts);
            }
            file
        });
        let entries = entries.collect();
        Ok(super::dataset::Files { snapshot, entries })
    }
}

/// A dataset's name as SQL takes it without quotes.
fn simple(dataset: &str) -> String {
    let mut name: String = dataset
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
        .collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert(0, '_');
    }
    name
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_need_no_quotes() {
        assert_eq!(super::simple("Binance-trades.v2"), "binance_trades_v2");
        assert_eq!(super::simple("5m"), "_5m");
    }
}
