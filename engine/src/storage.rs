//! Object storage by URL: `s3://`, `gs://`, `az://`, `file://`, or a path.
//!
//! Credentials and endpoints come from the environment (`AWS_*`, `GOOGLE_*`, `AZURE_*`), as
//! object_store documents them; they are never part of a graph or a message.

use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreScheme};
use url::Url;

/// A place in an object store.
#[derive(Clone, Debug)]
pub struct Location {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// The place in it.
    pub path: Path,
    /// How users call it (without credentials).
    pub display: String,
    /// Whether it is a folder of this machine, whose files must be synced to survive a power cut.
    pub local: bool,
}

impl Location {
    /// Makes a file that was put, and its name in its folder, survive a power cut. Object stores do so by themselves.
    pub async fn sync(&self, path: &Path) -> std::io::Result<()> {
        if !self.local {
            return Ok(());
        }
        let file = PathBuf::from(format!("/{path}"));
        let synced = tokio::task::spawn_blocking(move || {
            std::fs::File::open(&file)?.sync_all()?;
            // The folder may be new itself, and its parent.
            for folder in file.ancestors().skip(1).take(3) {
                std::fs::File::open(folder)?.sync_all()?;
            }
            Ok(())
        });
        synced.await.unwrap_or_else(|e| Err(std::io::Error::other(e)))
    }
}

/// Whether an error of a store may pass by itself: not one of permission or of what the store can do.
pub fn may_pass(error: &object_store::Error) -> bool {
    use std::io::ErrorKind as K;

    use object_store::Error as E;
    let lasting = matches!(
        error,
        E::PermissionDenied { .. }
            | E::Unauthenticated { .. }
            | E::InvalidPath { .. }
            | E::NotSupported { .. }
            | E::NotImplemented { .. }
            | E::NotFound { .. }
            | E::UnknownConfigurationKey { .. }
    );
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut io = None;
    while let Some(e) = cause {
        io = io.or_else(|| e.downcast_ref::<std::io::Error>());
        cause = e.source();
    }
    let lasting_io = io.is_some_and(|io| {
        matches!(io.kind(), K::PermissionDenied | K::ReadOnlyFilesystem | K::NotADirectory | K::IsADirectory)
    });
    !lasting && !lasting_io
}

/// A URL that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open storage `{url}`: {reason}")]
pub struct StorageError {
    url: String,
    reason: String,
}

/// Opens `url`; a path without a scheme is relative to `base`. Folders of local paths are made.
pub fn open(url: &str, base: &FsPath) -> Result<Location, StorageError> {
    let fail = |reason: String| StorageError { url: redact(url), reason };
    if let Some(path) = local_path(url, base) {
        let path = std::path::absolute(&path).map_err(|e| fail(e.to_string()))?;
        let store = LocalFileSystem::new();
        let location = Path::from_absolute_path(&path).map_err(|e| fail(e.to_string()))?;
        let display = path.display().to_string();
        return Ok(Location { store: Arc::new(store), path: location, display, local: true });
    }
    let parsed = Url::parse(url).map_err(|e| fail(e.to_string()))?;
    let options = std::env::vars().filter_map(|(name, value)| {
        let name = name.to_ascii_lowercase();
        let ours = ["aws_", "google_", "azure_"].iter().any(|p| name.starts_with(p));
        ours.then_some((name, value))
    });
    let (scheme, path) = ObjectStoreScheme::parse(&parsed).map_err(|e| fail(e.to_string()))?;
    if matches!(scheme, ObjectStoreScheme::Http) {
        return Err(fail("use s3://, gs://, az://, file:// or a path".into()));
    }
    let (store, _) = object_store::parse_url_opts(&parsed, options).map_err(|e| fail(e.to_string()))?;
    Ok(Location { store: Arc::from(store), path, display: redact(url), local: false })
}

/// The local path that `url` names, if it names one.
pub fn local_path(url: &str, base: &FsPath) -> Option<PathBuf> {
    if let Some(path) = url.strip_prefix("file://") {
        return Some(PathBuf::from(path));
    }
    (!url.contains("://")).then(|| base.join(url))
}

/// A URL without user and password.
pub fn redact(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut parsed) if parsed.password().is_some() || !parsed.username().is_empty() => {
            let _ = parsed.set_password(None);
            let _ = parsed.set_username("");
            parsed.to_string()
        }
        _ => url.to_owned(),
    }
}
