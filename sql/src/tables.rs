//! Tables: the archive's datasets, as they are when a query is planned, and files named by the user.

mod archive;
mod dataset;
pub(crate) mod files;
mod hive;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;

use crate::config::EngineConfig;
use crate::engine::TableInfo;
use crate::error::{ErrorKind, SqlError};

/// Tables of files by name: where the files are, and how they are read.
type Files = BTreeMap<String, (String, Arc<dyn TableProvider>)>;

/// The schema that SQL sees: files first, then datasets.
#[derive(Debug)]
pub struct Tables {
    files: RwLock<Files>,
    archive: Option<archive::Archive>,
}

impl Tables {
    pub(crate) async fn open(config: &EngineConfig, context: &SessionContext) -> Result<Self, SqlError> {
        let archive = match &config.archive {
            Some(url) => Some(archive::Archive::open(url, &config.base, context).await?),
            None => None,
        };
        Ok(Self { files: RwLock::default(), archive })
    }

    pub(crate) fn add(
        &self,
        name: &str,
        origin: &str,
        table: Arc<dyn TableProvider>,
    ) -> Result<(), SqlError> {
        let good = name.chars().next().is_some_and(|c| c.is_ascii_lowercase() || c == '_')
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !good {
            let message = format!("`{name}` cannot be the name of a table");
            return Err(SqlError::new(ErrorKind::Plan, message).hint("use a-z, 0-9 and _, a letter first"));
        }
        let mut files = self.files.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        files.insert(name.to_owned(), (tidemill_engine::storage::redact(origin), table));
        Ok(())
    }

    /// Looks at the archive again.
    pub(crate) async fn refresh(&self) -> Result<(), SqlError> {
        match &self.archive {
            Some(archive) => archive.refresh().await,
            None => Ok(()),
        }
    }

    pub(crate) async fn list(&self) -> Result<Vec<TableInfo>, SqlError> {
        let mut infos: BTreeMap<String, TableInfo> = BTreeMap::new();
        if let Some(archive) = &self.archive {
            for (name, dataset) in archive.names() {
                if let Some(table) = archive.table(&name).await? {
                    let origin = format!("{}/{dataset}", archive.display().trim_end_matches('/'));
                    let schema = table.schema();
                    infos.insert(name.clone(), TableInfo { name, origin, schema });
                }
            }
        }
        let files = self.files.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        for (name, (origin, table)) in files.iter() {
            let info = TableInfo { name: name.clone(), origin: origin.clone(), schema: table.schema() };
            infos.insert(name.clone(), info);
        }
        Ok(infos.into_values().collect())
    }
}

#[async_trait]
impl SchemaProvider for Tables {
    fn table_names(&self) -> Vec<String> {
        let files = self.files.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut names: Vec<String> = files.keys().cloned().collect();
        names.extend(self.archive.iter().flat_map(archive::Archive::names).map(|(name, _)| name));
        names.sort_unstable();
        names.dedup();
        names
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let file = {
            let files = self.files.read().unwrap_or_else(|poisoned| poisoned.into_inner());
            files.get(name).map(|(_, table)| table.clone())
        };
        let archive = match (file, &self.archive) {
            (Some(table), _) => return Ok(Some(table)),
            (None, Some(archive)) => archive,
            (None, None) => return Ok(None),
        };
        let table = archive.table(name).await.map_err(|e| DataFusionError::External(Box::new(e)))?;
        Ok(table.map(|table| Arc::new(table) as Arc<dyn TableProvider>))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.table_names().iter().any(|n| n == name)
    }
}
