//! One file on its way to the store: invisible until it is complete.

use std::path::PathBuf;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::sink::SinkContext;

use super::name::FileName;

/// Bytes of one part; a file smaller than this is put at once.
const PART_BYTES: usize = 8 << 20;

/// A file that is being written.
pub struct Upload {
    path: Path,
    waiting: Vec<u8>,
    parts: Option<Box<dyn MultipartUpload>>,
    bytes: usize,
}

impl Upload {
    /// Nothing is sent before a part is full.
    pub fn new(path: Path) -> Self {
        Self { path, waiting: Vec::new(), parts: None, bytes: 0 }
    }

    /// Where it will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes bytes; sends the parts that are full.
    pub async fn push(&mut self, store: &dyn ObjectStore, bytes: Vec<u8>) -> Result<(), ConnectorError> {
        self.bytes += bytes.len();
        if self.waiting.is_empty() {
            self.waiting = bytes;
        } else {
            self.waiting.extend_from_slice(&bytes);
        }
        let fail = |e| failed(self.path.as_ref(), e);
        while self.waiting.len() >= PART_BYTES {
            let rest = self.waiting.split_off(PART_BYTES);
            let part = Bytes::from(std::mem::replace(&mut self.waiting, rest));
            let parts = match &mut self.parts {
                Some(parts) => parts,
                none => none.insert(store.put_multipart(&self.path).await.map_err(fail)?),
            };
            parts.put_part(part.into()).await.map_err(fail)?;
        }
        Ok(())
    }

    /// Sends all there is as the last part, so that nothing of it stays in memory until it is completed.
    pub async fn send_rest(&mut self, store: &dyn ObjectStore) -> Result<(), ConnectorError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let fail = |e| failed(self.path.as_ref(), e);
        let part = PutPayload::from(std::mem::take(&mut self.waiting));
        let parts = match &mut self.parts {
            Some(parts) => parts,
            none => none.insert(store.put_multipart(&self.path).await.map_err(fail)?),
        };
        parts.put_part(part).await.map_err(fail)
    }

    /// Makes the file visible.
    pub async fn complete(mut self, store: &dyn ObjectStore) -> Result<(), ConnectorError> {
        let fail = |e| failed(self.path.as_ref(), e);
        tidemill_engine::fault::io("parquet-write")
            .map_err(|e| crate::jsonl::failed(std::path::Path::new(self.path.as_ref()), &e))?;
        let last = PutPayload::from(std::mem::take(&mut self.waiting));
        match &mut self.parts {
            None => {
                let options = PutOptions { mode: PutMode::Create, ..Default::default() };
                let bytes: Bytes = last.clone().into();
                match store.put_opts(&self.path, last, options).await {
                    Ok(_) => {}
                    // The answer to our own put was lost, and the store's client tried again.
                    Err(object_store::Error::AlreadyExists { .. })
                        if holds(store, &self.path, &bytes).await.map_err(fail)? => {}
                    Err(e) => return Err(fail(e)),
                }
            }
            Some(parts) => {
                if last.content_length() > 0 {
                    parts.put_part(last).await.map_err(fail)?;
                }
                parts.complete().await.map_err(fail)?;
            }
        }
        Ok(())
    }
}

/// Whether the file is there and holds these bytes.
async fn holds(store: &dyn ObjectStore, path: &Path, bytes: &Bytes) -> object_store::Result<bool> {
    let found = store.get(path).await?;
    if found.meta.size != bytes.len() as u64 {
        return Ok(false);
    }
    Ok(found.bytes().await? == *bytes)
}

/// An error of the store; what a person must put right is fatal, the rest may pass.
pub fn failed(path: &str, error: object_store::Error) -> ConnectorError {
    use object_store::Error as E;
    let what = format!("cannot write `{path}`");
    if let E::AlreadyExists { .. } = error {
        return ConnectorError::Fenced(format!(
            "`{path}` is there already: another run of this job writes to the same place"
        ));
    }
    let lasting = matches!(
        error,
        E::PermissionDenied { .. }
            | E::Unauthenticated { .. }
            | E::InvalidPath { .. }
            | E::NotSupported { .. }
            | E::NotImplemented { .. }
    );
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    let mut found = None;
    while let Some(e) = cause {
        found = found.or_else(|| e.downcast_ref::<std::io::Error>());
        cause = e.source();
    }
    match found {
        Some(io) => match crate::jsonl::failed(std::path::Path::new(path), io) {
            ConnectorError::Fatal(_) => ConnectorError::fatal(what, error),
            _ => ConnectorError::transient(what, error),
        },
        None if lasting => ConnectorError::fatal(what, error),
        None => ConnectorError::transient(what, error),
    }
}

/// Removes the parts that an older run's crash left in a local folder (object_store stages them
/// as `NAME#N`). Those of this run carry its generation and stay.
pub fn remove_staged(folder: &std::path::Path, cx: &SinkContext) -> Result<(), ConnectorError> {
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        let fail = |e: std::io::Error| crate::jsonl::failed(&folder, &e);
        for entry in std::fs::read_dir(&folder).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().map_err(fail)?.is_dir() {
                folders.push(entry.path());
            } else if let Some((name, _)) = name.split_once('#')
                && FileName::parse(name, &cx.job, &cx.name).is_some_and(|f| f.generation < cx.generation)
            {
                std::fs::remove_file(entry.path()).map_err(fail)?;
            }
        }
    }
    Ok(())
}

/// Makes a completed local file survive a power cut.
pub fn sync(root: &std::path::Path, relative: &str) -> std::io::Result<()> {
    let file = root.join(relative);
    std::fs::File::open(&file)?.sync_all()?;
    match file.parent() {
        Some(folder) => std::fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
