//! An append-only log of checked lines: `CRC32 JSON\n`, each appended whole and synced before it counts.
//!
//! In a local file, or in [segments](super::segments) in object storage. What a crash left half-written stands at the end of the file
//! and is cut off when it is opened. A line that is damaged and has good ones behind it is no crash: the log is refused.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tidemill_engine::connector::ConnectorError;

use super::place::Place;
use super::segments::{SegmentTail, Segments};

/// A log of lines, open for more.
#[derive(Debug)]
pub struct Lines(Kept);

#[derive(Debug)]
enum Kept {
    File(FileLines),
    Store(Segments),
}

/// A file of lines, open for more.
#[derive(Debug)]
struct FileLines {
    file: File,
    path: PathBuf,
    bytes: u64,
}

/// An error at a file; a full disk may be freed, a missing permission stays missing.
pub fn failed(path: &Path, e: &std::io::Error) -> ConnectorError {
    use std::io::ErrorKind::*;
    let what = format!("`{}`", path.display());
    match e.kind() {
        PermissionDenied | ReadOnlyFilesystem | NotADirectory | IsADirectory | NotFound | InvalidInput
        | AlreadyExists => ConnectorError::fatal(what, e),
        _ => ConnectorError::transient(what, e),
    }
}

pub(super) fn line<T: Serialize>(record: &T, out: &mut Vec<u8>) -> std::io::Result<()> {
    let json = serde_json::to_vec(record)?;
    write!(out, "{:08x} ", crc32fast::hash(&json))?;
    out.extend_from_slice(&json);
    out.push(b'\n');
    Ok(())
}

/// A line without its end; nothing where it is damaged.
fn parse<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    let (crc, json) = (line.get(..8)?, line.get(9..)?);
    let crc = u32::from_str_radix(std::str::from_utf8(crc).ok()?, 16).ok()?;
    (crc32fast::hash(json) == crc).then(|| serde_json::from_slice(json).ok()).flatten()
}

/// The whole lines of `text`, and the bytes that they have. Damaged ones at the end do not count.
pub fn whole<T: DeserializeOwned>(text: &[u8]) -> Result<(Vec<T>, usize), String> {
    let (mut records, mut good, mut at, mut damaged) = (Vec::new(), 0, 0, None);
    while let Some(end) = text[at..].iter().position(|b| *b == b'\n') {
        match parse(&text[at..at + end]) {
            Some(_) if damaged.is_some() => {
                let at = damaged.unwrap_or(0);
                return Err(format!("the line at byte {at} is damaged, and good ones follow"));
            }
            Some(record) => {
                records.push(record);
                good = at + end + 1;
            }
            None => damaged = damaged.or(Some(at)),
        }
        at += end + 1;
    }
    Ok((records, good))
}

impl Lines {
    /// Opens or makes the file at `path`; cuts off what a crash left half-written; gives its records.
    pub fn open<T: DeserializeOwned>(path: &Path) -> Result<(Self, Vec<T>), ConnectorError> {
        let (lines, records) = FileLines::open(path)?;
        Ok((Self(Kept::File(lines)), records))
    }

    /// Opens or makes the log at `place`; gives its records.
    pub async fn open_at<T: DeserializeOwned>(place: &Place) -> Result<(Self, Vec<T>), ConnectorError> {
        match place {
            Place::Local(path) => {
                if let Some(folder) = path.parent() {
                    std::fs::create_dir_all(folder).map_err(|e| failed(folder, &e))?;
                }
                Self::open(path)
            }
            Place::Store(location) => {
                let (segments, records) = Segments::open(location.clone()).await?;
                Ok((Self(Kept::Store(segments)), records))
            }
        }
    }

    /// Takes the log over: from now on earlier writers of it in object storage are fenced. A local file's are kept out by its owner's lock.
    pub async fn claim(&mut self) -> Result<(), ConnectorError> {
        match &mut self.0 {
            Kept::File(_) => Ok(()),
            Kept::Store(segments) => segments.claim().await,
        }
    }

    /// Appends records whole; they count when [`sync`](Self::sync) has returned.
    pub fn append<T: Serialize>(&mut self, records: &[T]) -> Result<(), ConnectorError> {
        match &mut self.0 {
            Kept::File(lines) => lines.append(records),
            Kept::Store(segments) => segments.append(records),
        }
    }

    /// Waits until everything that was appended is on the disk, or in object storage.
    pub async fn sync(&mut self) -> Result<(), ConnectorError> {
        match &mut self.0 {
            Kept::File(lines) => lines.sync().await,
            Kept::Store(segments) => segments.sync().await,
        }
    }

    /// Waits until others can read everything that was appended; it need not survive a power cut.
    pub async fn publish(&mut self) -> Result<(), ConnectorError> {
        match &mut self.0 {
            Kept::File(_) => Ok(()),
            Kept::Store(segments) => segments.sync().await,
        }
    }

    /// Replaces all records at once.
    pub async fn rewrite<T: Serialize>(&mut self, records: &[T]) -> Result<(), ConnectorError> {
        match &mut self.0 {
            Kept::File(lines) => lines.rewrite(records),
            Kept::Store(segments) => segments.rewrite(records).await,
        }
    }

    /// Whether it should be rewritten: it has `bytes_max`, or many segments.
    pub fn is_long(&self, bytes_max: u64) -> bool {
        match &self.0 {
            Kept::File(lines) => lines.bytes >= bytes_max,
            Kept::Store(segments) => segments.is_long(bytes_max),
        }
    }

    /// Whether the log is still the one that was opened, and no other process has written to it.
    pub async fn is_ours(&self) -> Result<bool, ConnectorError> {
        match &self.0 {
            Kept::File(lines) => Ok(lines.is_ours()),
            Kept::Store(segments) => segments.is_ours().await,
        }
    }
}

impl FileLines {
    /// Opens or makes the file; cuts off what a crash left half-written; gives its records.
    fn open<T: DeserializeOwned>(path: &Path) -> Result<(Self, Vec<T>), ConnectorError> {
        let fail = |e: std::io::Error| failed(path, &e);
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(path)
            .map_err(fail)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(fail)?;
        let (records, good) = whole(&text).map_err(|reason| {
            ConnectorError::Fatal(format!("`{}`: {reason}: put a good copy back", path.display()))
        })?;
        if good < text.len() {
            tracing::warn!(
                path = %path.display(),
                "{} bytes at the end were half-written by a crash: cut off",
                text.len() - good
            );
            file.set_len(good as u64).map_err(fail)?;
        }
        file.seek(SeekFrom::Start(good as u64)).map_err(fail)?;
        Ok((Self { file, path: path.to_owned(), bytes: good as u64 }, records))
    }

    /// Appends records whole; they count when [`sync`](Self::sync) has returned.
    fn append<T: Serialize>(&mut self, records: &[T]) -> Result<(), ConnectorError> {
        let mut text = Vec::new();
        let fail = |e: std::io::Error| failed(&self.path, &e);
        records.iter().try_for_each(|record| line(record, &mut text)).map_err(fail)?;
        self.file.write_all(&text).map_err(fail)?;
        self.bytes += text.len() as u64;
        Ok(())
    }

    /// Waits until everything that was appended is on the disk.
    async fn sync(&self) -> Result<(), ConnectorError> {
        let fail = |e: std::io::Error| failed(&self.path, &e);
        let file = self.file.try_clone().map_err(fail)?;
        let synced = tokio::task::spawn_blocking(move || file.sync_data()).await;
        synced.map_err(std::io::Error::other).and_then(|r| r).map_err(fail)
    }

    /// Replaces all of the file's records at once.
    fn rewrite<T: Serialize>(&mut self, records: &[T]) -> Result<(), ConnectorError> {
        let fail = |e: std::io::Error| failed(&self.path, &e);
        let mut text = Vec::new();
        records.iter().try_for_each(|record| line(record, &mut text)).map_err(fail)?;
        let beside = self.path.with_extension("new");
        let mut file =
            OpenOptions::new().create(true).write(true).truncate(true).open(&beside).map_err(fail)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(fail)?;
        std::fs::rename(&beside, &self.path).map_err(fail)?;
        if let Some(folder) = self.path.parent().and_then(|folder| File::open(folder).ok()) {
            let _ = folder.sync_all();
        }
        self.file = file;
        self.bytes = text.len() as u64;
        Ok(())
    }

    /// Whether the file is still the one that was opened, and nobody else has written to it.
    fn is_ours(&self) -> bool {
        let found = std::fs::metadata(&self.path);
        found.is_ok_and(|found| found.len() == self.bytes && same(&found, &self.file))
    }
}

#[cfg(unix)]
fn same(found: &std::fs::Metadata, file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (found.dev(), found.ino()))
}

#[cfg(not(unix))]
fn same(_: &std::fs::Metadata, _: &File) -> bool {
    true
}

/// Reads what another writes: whole lines, as they come.
#[derive(Debug)]
pub struct Tail(Read);

#[derive(Debug)]
enum Read {
    File(FileTail),
    Store(SegmentTail),
}

impl Tail {
    /// Of the log at `place`, which need not be there yet.
    pub fn new(place: &Place) -> Self {
        Self(match place {
            Place::Local(path) => Read::File(FileTail::new(path.clone())),
            Place::Store(location) => Read::Store(SegmentTail::new(location.clone())),
        })
    }

    /// Whether a call of [`poll`](Self::poll) costs no request.
    pub fn is_local(&self) -> bool {
        matches!(self.0, Read::File(_))
    }

    /// Lines that have come since the last call; all of them again where the log was rewritten.
    pub async fn poll<T: DeserializeOwned>(&mut self) -> Result<Vec<T>, ConnectorError> {
        match &mut self.0 {
            Read::File(tail) => tail.poll().map_err(ConnectorError::Transient),
            Read::Store(tail) => tail.poll().await,
        }
    }
}

#[derive(Debug)]
struct FileTail {
    path: PathBuf,
    file: Option<(File, u64)>,
}

impl FileTail {
    /// Of the file at `path`, which need not be there yet.
    fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }

    /// Lines that have come since the last call; all of them again where the file was rewritten.
    fn poll<T: DeserializeOwned>(&mut self) -> Result<Vec<T>, String> {
        let Ok(found) = std::fs::metadata(&self.path) else { return Ok(Vec::new()) };
        if self.file.as_ref().is_some_and(|(file, at)| !same(&found, file) || found.len() < *at) {
            self.file = None;
        }
        if self.file.as_ref().is_some_and(|(_, at)| found.len() == *at) {
            return Ok(Vec::new());
        }
        let said = |e: std::io::Error| format!("cannot read `{}`: {e}", self.path.display());
        let (mut file, at) = match self.file.take() {
            Some(open) => open,
            None => (File::open(&self.path).map_err(said)?, 0),
        };
        let mut text = Vec::new();
        file.seek(SeekFrom::Start(at)).map_err(said)?;
        file.read_to_end(&mut text).map_err(said)?;
        let (records, good) = whole(&text).map_err(|e| format!("`{}`: {e}", self.path.display()))?;
        self.file = Some((file, at + good as u64));
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_half_written_end_is_cut_off_and_damage_in_the_middle_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        let (mut lines, none) = Lines::open::<String>(&path).unwrap();
        assert!(none.is_empty());
        lines.append(&["one", "two"]).unwrap();
        lines.append(&["three"]).unwrap();
        lines.sync().await.unwrap();
        let text = std::fs::read(&path).unwrap();
        let ends: Vec<usize> =
            text.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1).collect();
        for cut in 0..=text.len() {
            std::fs::write(&path, &text[..cut]).unwrap();
            let (mut lines, read) = Lines::open::<String>(&path).unwrap();
            assert_eq!(read.len(), ends.iter().filter(|end| **end <= cut).count(), "cut at {cut}");
            lines.append(&["more"]).unwrap();
            let (_, again) = Lines::open::<String>(&path).unwrap();
            assert_eq!(again.len(), read.len() + 1, "cut at {cut}");
        }
        // Zeros at the end, as some file systems leave them after a loss of power.
        std::fs::write(&path, [&text[..], &[0; 100], b"\n"].concat()).unwrap();
        assert_eq!(Lines::open::<String>(&path).unwrap().1, ["one", "two", "three"]);
        let mut damaged = text.clone();
        damaged[12] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        let error = Lines::open::<String>(&path).unwrap_err().to_string();
        assert!(error.contains("the line at byte 0 is damaged"), "{error}");
    }

    #[tokio::test]
    async fn a_tail_sees_whole_lines_and_a_rewritten_file_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        let mut tail = Tail::new(&Place::Local(path.clone()));
        assert_eq!(tail.poll::<u32>().await.unwrap(), [0u32; 0]);
        let (mut lines, _) = Lines::open::<u32>(&path).unwrap();
        lines.append(&[1, 2]).unwrap();
        assert_eq!(tail.poll::<u32>().await.unwrap(), [1, 2]);
        assert_eq!(tail.poll::<u32>().await.unwrap(), [0u32; 0]);
        lines.append(&[3]).unwrap();
        assert_eq!(tail.poll::<u32>().await.unwrap(), [3]);
        assert!(lines.is_ours().await.unwrap());
        lines.rewrite(&[3]).await.unwrap();
        lines.append(&[4]).unwrap();
        assert_eq!(tail.poll::<u32>().await.unwrap(), [3, 4]);
        assert!(lines.is_ours().await.unwrap());
        let (mut other, _) = Lines::open::<u32>(&path).unwrap();
        other.append(&[5]).unwrap();
        assert!(!lines.is_ours().await.unwrap() && other.is_ours().await.unwrap());
    }
}
