//! Which files a URL means: one file, a folder, or a glob, on disk or in an object store.
//!
//! Files are listed in order of their names relative to the folder (or the part of the URL before
//! the first wildcard), so the order never depends on the store. Hidden files and those that
//! start with `_` (`_SUCCESS`, `_delta_log/`) are passed over. Of an archive's dataset those files are
//! listed that count by its log ([`datasets`]).

use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tidemill_engine::storage;

mod datasets;
pub mod identity;

/// Files that one URL may match.
pub const FILES_MAX: usize = 100_000;
/// How deep folders may nest.
const DEPTH_MAX: usize = 32;

/// A file to read.
#[derive(Clone, Debug)]
pub struct FileRef {
    /// Its name relative to the folder of the listing, with `/` between the parts.
    pub name: String,
    /// How messages call it.
    pub display: String,
    /// Its size in bytes when it was listed.
    pub size: u64,
    /// Where it is.
    pub place: Place,
}

/// Where a file is.
#[derive(Clone, Debug)]
pub enum Place {
    /// On disk.
    Local(PathBuf),
    /// In an object store.
    Remote(Arc<dyn ObjectStore>, Path),
}

impl FileRef {
    /// A sequential reader over the whole file, for use on a blocking thread of `runtime`.
    pub fn read(&self, runtime: &tokio::runtime::Handle) -> std::io::Result<Box<dyn std::io::Read + Send>> {
        match &self.place {
            Place::Local(path) => Ok(Box::new(std::fs::File::open(path)?)),
            Place::Remote(store, path) => {
                let get = runtime.block_on(store.get(path)).map_err(std::io::Error::other)?;
                let stream = get.into_stream().map_err(std::io::Error::other);
                Ok(Box::new(RemoteRead {
                    stream: Box::pin(stream),
                    runtime: runtime.clone(),
                    part: bytes::Bytes::new(),
                }))
            }
        }
    }
}

/// Bytes of an object, pulled from a blocking thread.
struct RemoteRead {
    stream: std::pin::Pin<Box<dyn futures::Stream<Item = std::io::Result<bytes::Bytes>> + Send>>,
    runtime: tokio::runtime::Handle,
    part: bytes::Bytes,
}

impl std::io::Read for RemoteRead {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.part.is_empty() {
            match self.runtime.block_on(self.stream.try_next())? {
                Some(part) => self.part = part,
                None => return Ok(0),
            }
        }
        let n = buffer.len().min(self.part.len());
        buffer[..n].copy_from_slice(&self.part.split_to(n));
        Ok(n)
    }
}

/// Lists what `url` means. `extensions` (such as `.parquet`) choose files of a folder; a glob or
/// the name of one file chooses by itself. The error is the reason, without the URL's secrets.
pub async fn list(url: &str, base: &FsPath, extensions: &[&str]) -> Result<Vec<FileRef>, String> {
    if url.is_empty() {
        return Err("is empty: give a file, a folder or a glob".into());
    }
    let (prefix, pattern) = split(url);
    let pattern = match pattern {
        Some(text) => Some(glob::Pattern::new(text).map_err(|e| format!("`{text}` is not a glob: {e}"))?),
        None => None,
    };
    let chosen = |name: &str| match &pattern {
        Some(pattern) => {
            let options = glob::MatchOptions { require_literal_separator: true, ..Default::default() };
            pattern.matches_with(name, options)
        }
        None => extensions.iter().any(|e| name.ends_with(e)),
    };
    let mut files = match storage::local_path(prefix, base) {
        Some(path) => list_local(&path, &chosen)?,
        None => list_remote(prefix, base, pattern.is_some(), &chosen).await?,
    };
    if files.iter().any(|f| f.name.ends_with(".parquet")) && !is_one_file(&files, prefix, base) {
        let local = storage::local_path(prefix, base);
        // Store paths have no `..`.
        let whole = local.as_deref().and_then(|path| path.canonicalize().ok());
        let whole = whole.as_ref().map_or(prefix.into(), |path| path.to_string_lossy());
        let location = storage::open(&whole, base).map_err(|e| e.to_string())?;
        files = datasets::settle(files, &location, local.as_deref(), &chosen).await?;
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    if files.len() > FILES_MAX {
        return Err(format!("matches {} files, more than the limit of {FILES_MAX}", files.len()));
    }
    if files.is_empty() {
        let what = match &pattern {
            Some(pattern) => format!("`{pattern}`"),
            None => format!("a file ending in {}", extensions.join(" or ")),
        };
        let place =
            storage::local_path(prefix, base).map_or(storage::redact(prefix), |p| p.display().to_string());
        return Err(format!("no file matches {what} in `{place}`"));
    }
    Ok(files)
}

/// Whether the URL named a file, not a folder.
fn is_one_file(files: &[FileRef], prefix: &str, base: &FsPath) -> bool {
    match files {
        [one] => match &one.place {
            Place::Local(path) => storage::local_path(prefix, base).as_deref() == Some(path),
            Place::Remote(_, path) => storage::open(prefix, base).is_ok_and(|l| l.path == *path),
        },
        _ => false,
    }
}

/// The part of a URL before its first segment with a wildcard, and the rest.
fn split(url: &str) -> (&str, Option<&str>) {
    let Some(wild) = url.find(['*', '?', '[']) else { return (url, None) };
    match url[..wild].rfind('/') {
        Some(0) => ("/", Some(&url[1..])),
        Some(slash) => (&url[..slash], Some(&url[slash + 1..])),
        None => ("", Some(url)),
    }
}

fn is_hidden(name: &str) -> bool {
    name.starts_with(['.', '_']) || name.contains('#')
}

fn list_local(path: &FsPath, chosen: &(dyn Fn(&str) -> bool + Sync)) -> Result<Vec<FileRef>, String> {
    let meta = std::fs::metadata(path).map_err(|e| format!("`{}`: {e}", path.display()))?;
    let mut files = Vec::new();
    if meta.is_file() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.push(local_file(name, path.to_owned(), meta.len()));
    } else {
        walk(path, "", 0, chosen, &mut files)?;
    }
    Ok(files)
}

fn local_file(name: String, path: PathBuf, size: u64) -> FileRef {
    FileRef { name, display: path.display().to_string(), size, place: Place::Local(path) }
}

fn walk(
    folder: &FsPath,
    prefix: &str,
    depth: usize,
    chosen: &(dyn Fn(&str) -> bool + Sync),
    files: &mut Vec<FileRef>,
) -> Result<(), String> {
    let fail = |e: std::io::Error| format!("`{}`: {e}", folder.display());
    if depth > DEPTH_MAX {
        return Err(format!("`{}`: folders nest deeper than {DEPTH_MAX}", folder.display()));
    }
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_hidden(&name) {
            continue;
        }
        let path = entry.path();
        let meta = std::fs::metadata(&path).map_err(|e| format!("`{}`: {e}", path.display()))?;
        let name = format!("{prefix}{name}");
        if meta.is_dir() {
            walk(&path, &format!("{name}/"), depth + 1, chosen, files)?;
        } else if chosen(&name) {
            files.push(local_file(name, path, meta.len()));
        }
        if files.len() > FILES_MAX {
            return Ok(());
        }
    }
    Ok(())
}

async fn list_remote(
    prefix: &str,
    base: &FsPath,
    is_glob: bool,
    chosen: &(dyn Fn(&str) -> bool + Sync),
) -> Result<Vec<FileRef>, String> {
    let location = storage::open(prefix, base).map_err(|e| e.to_string())?;
    let fail = |e: object_store::Error| format!("`{}`: {e}", location.display);
    let remote = |name: String, meta: object_store::ObjectMeta| FileRef {
        display: format!("{}/{name}", location.display.trim_end_matches('/')),
        name,
        size: meta.size,
        place: Place::Remote(location.store.clone(), meta.location),
    };
    if !is_glob && !location.path.as_ref().is_empty() {
        match location.store.head(&location.path).await {
            Ok(meta) => {
                let name = location.path.filename().unwrap_or_default().to_owned();
                let file = FileRef { display: location.display.clone(), ..remote(name, meta) };
                return Ok(vec![file]);
            }
            Err(object_store::Error::NotFound { .. }) => {}
            Err(e) => return Err(fail(e)),
        }
    }
    let mut files = Vec::new();
    let mut found = location.store.list(Some(&location.path));
    while let Some(meta) = found.try_next().await.map_err(fail)? {
        let Some(parts) = meta.location.prefix_match(&location.path) else { continue };
        let parts: Vec<String> = parts.map(|p| p.as_ref().to_owned()).collect();
        let name = parts.join("/");
        if !parts.iter().any(|p| is_hidden(p)) && chosen(&name) {
            files.push(remote(name, meta));
        }
        if files.len() > FILES_MAX {
            break;
        }
    }
    Ok(files)
}

/// The folder of real data that tests read: `TIDEMILL_DATA`, or `../shared/data` beside the
/// workspace. `None` where it is absent: the caller skips, loudly; with `CI=true` it is an error.
#[doc(hidden)]
pub fn real_data() -> Option<PathBuf> {
    // Cargo runs a test in its package's folder. Absolute, for graphs whose folder is another.
    let path = std::env::var_os("TIDEMILL_DATA").map_or_else(|| "../../shared/data".into(), PathBuf::from);
    let path = path.canonicalize().unwrap_or(path);
    if path.is_dir() {
        return Some(path);
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "real data is absent at {}", path.display());
    eprintln!("SKIPPED: no real data at {} (set TIDEMILL_DATA)", path.display());
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn names(url: &str, base: &FsPath) -> Result<Vec<String>, String> {
        Ok(list(url, base, &[".parquet"]).await?.into_iter().map(|f| f.name).collect())
    }

    #[tokio::test]
    async fn files_folders_and_globs() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path();
        for name in [
            "b_1.parquet",
            "a_1.parquet",
            "a_2.parquet",
            "x.csv",
            "_tmp.parquet",
            "date=2013-10-07/c.parquet",
        ] {
            let path = base.join("data").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"x").unwrap();
        }
        let all = ["a_1.parquet", "a_2.parquet", "b_1.parquet", "date=2013-10-07/c.parquet"];
        assert_eq!(names("data", base).await.unwrap(), all);
        assert_eq!(names("data/a_*.parquet", base).await.unwrap(), all[..2]);
        assert_eq!(names("data/*.parquet", base).await.unwrap(), all[..3]);
        assert_eq!(names("data/**/*.parquet", base).await.unwrap(), all);
        assert_eq!(names("data/x.csv", base).await.unwrap(), ["x.csv"]);
        let absolute = format!("file://{}/data/date=*/c.parquet", base.display());
        assert_eq!(names(&absolute, base).await.unwrap(), ["date=2013-10-07/c.parquet"]);
        let none = names("data/z*.parquet", base).await.unwrap_err();
        assert!(none.starts_with("no file matches `z*.parquet` in `"), "{none}");
        assert!(names("nowhere", base).await.unwrap_err().contains("nowhere"));
        assert!(names("data/[.parquet", base).await.unwrap_err().contains("is not a glob"));
    }
}
