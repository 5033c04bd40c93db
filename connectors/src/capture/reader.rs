//! Reads captures back: their files in order, run by run.

use std::path::Path;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path as ObjectPath;
use tidemill_engine::storage::{self, Location};

use super::record::{FileReader, Header};

/// The ending of a capture's files.
pub const ENDING: &str = ".frames.zst";
/// Bytes from the start of a file in which its header is looked for first.
const HEADER_BYTES: u64 = 64 << 10;

/// A capture of one feed.
pub struct Capture {
    place: Location,
    /// Its files in the order in which they were written.
    pub files: Vec<CaptureFile>,
    /// The folder of the feed, relative to the capture's URL; empty where files lie there at once.
    pub feed: String,
    /// How users call it.
    pub display: String,
}

/// A file of a capture.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CaptureFile {
    /// Its name: start of the run, number in the run.
    pub name: String,
    /// Where it is.
    pub path: ObjectPath,
    /// Bytes.
    pub size: u64,
}

impl CaptureFile {
    /// Whether a run begins with it.
    pub fn begins_run(&self) -> bool {
        self.name.trim_end_matches(ENDING).ends_with("-00000")
    }

    /// Its number in its session.
    pub fn number(&self) -> Option<u64> {
        self.name.trim_end_matches(ENDING).rsplit_once('-')?.1.parse().ok()
    }

    /// The session that it belongs to, by its start.
    pub fn session_ns(&self) -> Option<i64> {
        self.name.trim_end_matches(ENDING).rsplit_once('-')?.0.parse().ok()
    }
}

impl Capture {
    /// All captures below `url`, by feed.
    pub async fn list(url: &str, base: &Path) -> Result<Vec<Self>, String> {
        let place = storage::open(url, base).map_err(|e| e.to_string())?;
        let listed: Vec<object_store::ObjectMeta> =
            match place.store.list(Some(&place.path)).try_collect().await {
                Ok(listed) => listed,
                Err(object_store::Error::NotFound { .. }) => Vec::new(),
                Err(e) => return Err(format!("cannot list {}: {e}", place.display)),
            };
        let mut feeds: std::collections::BTreeMap<String, Vec<CaptureFile>> = Default::default();
        for object in listed {
            let Some(parts) = object.location.prefix_match(&place.path) else { continue };
            let parts: Vec<String> = parts.map(|p| p.as_ref().to_owned()).collect();
            // …/<date>/<name>
            let Some((name, folders)) = parts.split_last().filter(|(name, _)| name.ends_with(ENDING)) else {
                continue;
            };
            let feed = folders[..folders.len().saturating_sub(1)].join("/");
            let file = CaptureFile { name: name.clone(), path: object.location.clone(), size: object.size };
            feeds.entry(feed).or_default().push(file);
        }
        let captures = feeds.into_iter().map(|(feed, mut files)| {
            files.sort();
            let display = match feed.is_empty() {
                true => place.display.clone(),
                false => format!("{}/{feed}", place.display.trim_end_matches('/')),
            };
            Self { place: place.clone(), files, feed, display }
        });
        Ok(captures.collect())
    }

    /// The capture of the feed that source `node` should replay from `url`: the one of its name, else the only one there is.
    pub async fn open(url: &str, base: &Path, node: &str) -> Result<Self, String> {
        let mut captures = Self::list(url, base).await?;
        if let Some(i) = captures.iter().position(|c| c.feed == node) {
            return Ok(captures.swap_remove(i));
        }
        match captures.len() {
            0 => Err(format!("there is no capture in {url}: it has no file that ends with {ENDING}")),
            1 => Ok(captures.swap_remove(0)),
            _ => {
                let feeds: Vec<&str> = captures.iter().map(|c| c.feed.as_str()).collect();
                Err(format!(
                    "{url} holds captures of {}, none of `{node}`: name one of them",
                    feeds.join(", ")
                ))
            }
        }
    }

    /// The capture of source `node` below `url`, if there is one.
    pub async fn own(url: &str, base: &Path, node: &str) -> Result<Option<Self>, String> {
        Ok(Self::list(url, base).await?.into_iter().find(|capture| capture.feed == node))
    }

    /// Opens a file.
    pub async fn file(&self, i: usize) -> Result<FileReader, String> {
        let fail = |e: object_store::Error| format!("cannot read {}: {e}", self.files[i].path);
        let bytes =
            self.place.store.get(&self.files[i].path).await.map_err(fail)?.bytes().await.map_err(fail)?;
        FileReader::new(bytes).map_err(|e| format!("{}: {e}", self.files[i].path))
    }

    /// What a file says of itself.
    pub async fn header(&self, i: usize) -> Result<Header, String> {
        let file = &self.files[i];
        let range = 0..file.size.min(HEADER_BYTES);
        let bytes: Bytes = self
            .place
            .store
            .get_range(&file.path, range)
            .await
            .map_err(|e| format!("cannot read {}: {e}", file.path))?;
        match FileReader::new(bytes) {
            Ok(reader) => Ok(reader.header),
            Err(_) => Ok(self.file(i).await?.header),
        }
    }
}
