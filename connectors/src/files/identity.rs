//! Which files a position counts: sizes, and hashes of first and last bytes.
//!
//! A row count means nothing in another file. So a position carries an [`Identity`] of the file that is being read, as far as it
//! was read, and what the files before it were ([`Finished`]). A resume compares both with what is there: the file being read may
//! have grown behind what was read; a finished one must be what it was, because its rows are never looked at again.

use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::{FileRef, Place};

/// Bytes at either end that are hashed.
const END_BYTES: u64 = 4096;
/// Finished files that are remembered one by one, so that a message can name the one that differs.
const NAMED_MAX: usize = 8;
/// Up to so many finished files in an object store are compared by content, beyond that by name and size alone: each costs requests.
const REMOTE_MAX: usize = 256;
/// Files that are compared at once.
const AT_ONCE: usize = 16;

/// The first `bytes` bytes of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// How many bytes.
    pub bytes: u64,
    /// Hash of the first and the last of them.
    pub hash: u64,
}

/// What is left to do about a difference.
pub const REMEDY: &str = "put the files back, or run with `--from none` to start over with what is there";

impl Identity {
    fn new(bytes: u64, head: &[u8], tail: &[u8]) -> Self {
        let mut hash = Xxh3::new();
        hash.update(head);
        hash.update(tail);
        Self { bytes, hash: hash.digest() }
    }

    /// The whole of `file` as it is now.
    pub async fn of(file: &FileRef) -> Result<Self, String> {
        let size = size(file).await?;
        Self::prefix(file, size).await
    }

    /// The whole of `file` as it was listed, for one that never changes.
    pub async fn listed(file: &FileRef) -> Result<Self, String> {
        Self::prefix(file, file.size).await
    }

    /// The first `bytes` bytes of `file`, which has as many.
    async fn prefix(file: &FileRef, bytes: u64) -> Result<Self, String> {
        let ends = END_BYTES.min(bytes);
        let (head, tail) = tokio::try_join!(range(file, 0, ends), range(file, bytes - ends, ends))?;
        Ok(Self::new(bytes, &head, &tail))
    }

    /// Whether `file` still begins with what was read; with `whole`, whether it is that and no more. The error says what differs.
    pub async fn check(&self, file: &FileRef, whole: bool) -> Result<(), Difference> {
        let name = &file.display;
        let now = size(file).await.map_err(Difference::Unreadable)?;
        if now < self.bytes {
            return Err(Difference::Other(format!(
                "`{name}` has {now} bytes, but {} bytes of it had been read: it was cut short or replaced",
                self.bytes
            )));
        }
        if Self::prefix(file, self.bytes).await.map_err(Difference::Unreadable)? != *self {
            return Err(Difference::Other(format!(
                "`{name}` is not the file of that name that had been read: its first {} bytes differ",
                self.bytes
            )));
        }
        if whole && now > self.bytes {
            return Err(Difference::Other(format!(
                "`{name}` had been read to its end at {} bytes and has {now} bytes now: what was added would be skipped",
                self.bytes
            )));
        }
        Ok(())
    }
}

/// Why files are not those that were read.
#[derive(Debug)]
pub enum Difference {
    /// They are others.
    Other(String),
    /// They cannot be looked at; that may pass.
    Unreadable(String),
}

/// Files that were read to their end, or opened and never to change, in the order in which they were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// Digest of their names and sizes.
    names: u64,
    /// Digest of their identities.
    content: u64,
    /// The last of them.
    last: Vec<(String, Identity)>,
}

impl Finished {
    /// Adds the next one.
    pub fn push(&mut self, name: &str, identity: Identity) {
        let link = |before: u64, more: u64| {
            let mut hash = Xxh3::new();
            hash.update(&before.to_le_bytes());
            hash.update(&xxh3_64(name.as_bytes()).to_le_bytes());
            hash.update(&more.to_le_bytes());
            hash.digest()
        };
        (self.names, self.content) = (link(self.names, identity.bytes), link(self.content, identity.hash));
        if self.last.len() == NAMED_MAX {
            self.last.remove(0);
        }
        self.last.push((name.to_owned(), identity));
    }

    /// Whether `files`, in this order, are those that were added.
    pub async fn check(&self, files: &[&FileRef]) -> Result<(), Difference> {
        let recent = &files[files.len().saturating_sub(self.last.len())..];
        for (file, (name, identity)) in recent.iter().zip(&self.last) {
            if file.name != *name {
                let reason = format!("`{name}` had been read, where now `{}` is", file.display);
                return Err(Difference::Other(reason));
            }
            identity.check(file, true).await?;
        }
        if files.len() <= self.last.len() {
            return Ok(());
        }
        let deep =
            files.len() <= REMOTE_MAX || files.iter().all(|file| matches!(file.place, Place::Local(_)));
        let look = async |file: &FileRef| {
            let identity = match deep {
                true => Identity::of(file).await?,
                false => Identity { bytes: file.size, hash: 0 },
            };
            Ok::<_, String>((file.name.clone(), identity))
        };
        let looks: Vec<_> = files.iter().map(|file| Box::pin(look(file))).collect();
        let mut looks = futures::stream::iter(looks).buffered(AT_ONCE);
        let mut now = Self::default();
        while let Some((name, identity)) = looks.try_next().await.map_err(Difference::Unreadable)? {
            now.push(&name, identity);
        }
        if now.names != self.names || (deep && now.content != self.content) {
            let last = files.last().map_or("", |file| file.display.as_str());
            return Err(Difference::Other(format!(
                "of the {} files up to `{last}` that had been read, at least one is another now (name, size or content)",
                files.len()
            )));
        }
        Ok(())
    }
}

/// Bytes that are being read, and what they were so far.
#[derive(Debug, Default)]
pub struct Seen {
    bytes: u64,
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Seen {
    /// Takes the next bytes in.
    pub fn push(&mut self, bytes: &[u8]) {
        let ends = END_BYTES as usize;
        self.bytes += bytes.len() as u64;
        let head = (ends - self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..head]);
        let tail = &bytes[bytes.len().saturating_sub(ends)..];
        let excess = (self.tail.len() + tail.len()).saturating_sub(ends);
        self.tail.drain(..excess);
        self.tail.extend_from_slice(tail);
    }

    /// What was read.
    pub fn identity(&self) -> Identity {
        Identity::new(self.bytes, &self.head, &self.tail)
    }
}

/// The size of a file now.
async fn size(file: &FileRef) -> Result<u64, String> {
    let failed = |e: &dyn std::fmt::Display| format!("cannot look at `{}`: {e}", file.display);
    match &file.place {
        Place::Local(path) => Ok(std::fs::metadata(path).map_err(|e| failed(&e))?.len()),
        Place::Remote(store, path) => Ok(store.head(path).await.map_err(|e| failed(&e))?.size),
    }
}

/// `len` bytes of a file from `from` on.
async fn range(file: &FileRef, from: u64, len: u64) -> Result<Vec<u8>, String> {
    use std::io::{Read, Seek, SeekFrom};
    if len == 0 {
        return Ok(Vec::new());
    }
    let failed = |e: &dyn std::fmt::Display| format!("cannot read `{}`: {e}", file.display);
    match &file.place {
        Place::Local(path) => {
            let mut bytes = vec![0; len as usize];
            let read = || {
                let mut file = std::fs::File::open(path)?;
                file.seek(SeekFrom::Start(from))?;
                file.read_exact(&mut bytes)?;
                Ok::<_, std::io::Error>(bytes)
            };
            read().map_err(|e| failed(&e))
        }
        Place::Remote(store, path) => {
            let bytes = store.get_range(path, from..from + len).await.map_err(|e| failed(&e))?;
            Ok(bytes.to_vec())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &std::path::Path) -> FileRef {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let display = path.display().to_string();
        FileRef { name, display, size: 0, place: Place::Local(path.to_owned()) }
    }

    /// Given bytes that come in pieces of any size, what was seen is what lies in the file, also once the file has grown.
    #[tokio::test]
    async fn what_was_seen_in_pieces_is_the_beginning_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let bytes: Vec<u8> = (0..20_000u32).map(|i| (i * 7 + i / 256) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        for len in [0, 1, 4095, 4096, 4097, 8191, 8193, 20_000] {
            for piece in [1, 100, 4096, 5000, 30_000] {
                let mut seen = Seen::default();
                bytes[..len].chunks(piece).for_each(|piece| seen.push(piece));
                assert!(
                    seen.identity().check(&file(&path), false).await.is_ok(),
                    "{len} in pieces of {piece}"
                );
                assert_eq!(seen.identity().check(&file(&path), true).await.is_ok(), len == 20_000);
            }
        }
        let mut seen = Seen::default();
        seen.push(&bytes);
        for change in [0, 4000, 19_999] {
            let mut other = bytes.clone();
            other[change] ^= 1;
            std::fs::write(&path, &other).unwrap();
            let Err(Difference::Other(reason)) = seen.identity().check(&file(&path), false).await else {
                panic!("byte {change} has changed")
            };
            assert!(reason.contains("its first 20000 bytes differ"), "{reason}");
        }
        std::fs::write(&path, &bytes[..100]).unwrap();
        let Err(Difference::Other(reason)) = seen.identity().check(&file(&path), false).await else {
            panic!("it is shorter")
        };
        assert!(reason.contains("has 100 bytes, but 20000 bytes of it had been read"), "{reason}");
    }

    /// Given more files than are remembered by name, when the first of them changes, it is noticed.
    #[tokio::test]
    async fn a_file_read_long_ago_counts_too() {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<_> = (0..20).map(|i| folder.path().join(format!("{i:02}"))).collect();
        let mut finished = Finished::default();
        for (i, path) in paths.iter().enumerate() {
            std::fs::write(path, format!("rows {i}")).unwrap();
            finished.push(&file(path).name, Identity::of(&file(path)).await.unwrap());
        }
        let text = serde_json::to_string(&finished).unwrap();
        let finished: Finished = serde_json::from_str(&text).unwrap();
        let files: Vec<FileRef> = paths.iter().map(|path| file(path)).collect();
        let files: Vec<&FileRef> = files.iter().collect();
        finished.check(&files).await.unwrap();
        std::fs::write(&paths[0], "rows x").unwrap();
        assert!(
            matches!(finished.check(&files).await, Err(Difference::Other(reason)) if reason.contains("20 files"))
        );
        std::fs::write(&paths[0], "rows 0").unwrap();
        std::fs::write(&paths[19], "rows 1x").unwrap();
        assert!(
            matches!(finished.check(&files).await, Err(Difference::Other(reason)) if reason.contains("19`"))
        );
    }
}
