//! The datasets of an archive.

use std::path::{Path as FsPath, PathBuf};

use futures::TryStreamExt;
use object_store::ObjectStore;
use tidemill_engine::clock::Clock;
use tidemill_engine::storage::{self, Location};

use crate::ArchiveError;
use crate::dataset::Dataset;
use crate::name::{LOG_FOLDER, is_foreign};

/// An archive: a folder of datasets.
#[derive(Clone, Debug)]
pub struct Catalog {
    location: Location,
    local: Option<PathBuf>,
    clock: Clock,
}

impl Catalog {
    /// The archive at `url` (`s3://`, `gs://`, `az://`, `file://`, or a path relative to `base`). A
    /// place without files is an empty archive.
    pub fn open(url: &str, base: &FsPath) -> Result<Self, ArchiveError> {
        let location = storage::open(url, base).map_err(|e| ArchiveError::Invalid(e.to_string()))?;
        let local = storage::local_path(url, base).map(|p| std::path::absolute(&p).unwrap_or(p));
        Ok(Self { location, local, clock: Clock::System })
    }

    /// The archive at a place that is open already.
    pub fn at(location: Location) -> Self {
        Self { location, local: None, clock: Clock::System }
    }

    /// With another clock, for tests.
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// How users call it.
    pub fn display(&self) -> &str {
        &self.location.display
    }

    /// Where it is.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The dataset `name`, which need not exist yet.
    pub fn dataset(&self, name: &str) -> Result<Dataset, ArchiveError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || name.starts_with(['.', '_']) || !name.chars().all(plain) {
            return Err(ArchiveError::Invalid(format!(
                "`{name}` is no name of a dataset: use letters, digits, `-`, `_` and `.`, and begin with a letter or digit"
            )));
        }
        let location = Location {
            store: self.location.store.clone(),
            path: self.location.path.clone().join(name),
            display: format!("{}/{name}", self.location.display.trim_end_matches('/')),
            local: self.location.local,
        };
        let local = self.local.as_ref().map(|folder| folder.join(name));
        Ok(Dataset::new(name, location, local, self.clock.clone()))
    }

    /// The folder itself as one dataset: for URLs that name a dataset, not an archive.
    pub fn as_dataset(&self) -> Dataset {
        let name = self.location.path.filename().unwrap_or("dataset").to_owned();
        Dataset::new(&name, self.location.clone(), self.local.clone(), self.clock.clone())
    }

    /// The dataset `name` if it exists: if it has a log, or a Parquet file.
    pub async fn existing(&self, name: &str) -> Result<Dataset, ArchiveError> {
        let dataset = self.dataset(name)?;
        if exists(&dataset).await? {
            return Ok(dataset);
        }
        let names = self.datasets().await?;
        let hint = match names.is_empty() {
            true => "there is none".to_owned(),
            false => format!("there are: {}", names.join(", ")),
        };
        Err(ArchiveError::Invalid(format!("no dataset `{name}` in `{}`; {hint}", self.display())))
    }

    /// The names of all datasets, in order.
    pub async fn datasets(&self) -> Result<Vec<String>, ArchiveError> {
        let listed = self.location.store.list_with_delimiter(Some(&self.location.path)).await;
        let listed = match listed {
            Ok(listed) => listed,
            Err(object_store::Error::NotFound { .. }) => return Ok(Vec::new()),
            Err(e) => return Err(ArchiveError::storage("list", self.display(), &e)),
        };
        let folders: Vec<String> =
            listed.common_prefixes.iter().filter_map(|p| Some(p.filename()?.to_owned())).collect();
        if folders.iter().any(|f| f == LOG_FOLDER || f.contains('=')) {
            return Err(ArchiveError::Invalid(format!(
                "`{}` is a dataset, not an archive of datasets: give the folder above it",
                self.display()
            )));
        }
        let mut names = Vec::new();
        for name in folders {
            if let Ok(dataset) = self.dataset(&name)
                && exists(&dataset).await?
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

/// Whether there is a log or a Parquet file in a dataset's folder.
async fn exists(dataset: &Dataset) -> Result<bool, ArchiveError> {
    let location = dataset.location();
    let mut found = location.store.list(Some(&location.path));
    loop {
        match found.try_next().await {
            Ok(Some(meta)) => {
                let logged = meta.location.parts().any(|part| part.as_ref() == LOG_FOLDER);
                if logged || meta.location.filename().is_some_and(is_foreign) {
                    return Ok(true);
                }
            }
            Ok(None) | Err(object_store::Error::NotFound { .. }) => return Ok(false),
            Err(e) => return Err(ArchiveError::storage("list", &location.display, &e)),
        }
    }
}
