//! An append-only log of checked lines in object storage: one object, a segment, for each append.
//!
//! Segments are numbered from 1 without gaps, and a number is put only where there is no object of it (`if-none-match`). So of two
//! writers that both believe the log to be theirs one meets the segment of the other, and is fenced. A writer begins with a segment of
//! its own ([`Segments::claim`]); from then on no earlier one can append. A segment that holds the whole log takes the place of all
//! before it, which are removed; since an old writer could find a removed number free, each append looks for newer segments too.
//!
//! State: nothing but numbers and what was not put yet. Requests: an append is one put and one list that begins behind it.

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::storage::Location;

use super::lines::{line, whole};
use super::place::store_failed;

/// Segments from which on it is worth to put them into one.
pub const SEGMENTS_MAX: u64 = 256;
/// Segments that are read at once.
const PARALLEL: usize = 16;
const SUFFIX: &str = ".lines";

/// The first line of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    segment: u64,
    /// A random number of who wrote it.
    writer: u64,
    /// It holds all of the log up to here.
    whole: bool,
}

/// A log, open for more.
#[derive(Debug)]
pub struct Segments {
    location: Location,
    writer: u64,
    /// The number of the next segment.
    next: u64,
    /// Lines that were appended and not put.
    pending: Vec<u8>,
    /// Bytes and segments since the last whole one, that included.
    bytes: u64,
    count: u64,
    /// A put failed and may have been done all the same: the log must be read again.
    broken: bool,
}

/// A segment that was read.
struct Read<T> {
    n: u64,
    whole: bool,
    bytes: u64,
    records: Vec<T>,
}

fn path(location: &Location, n: u64) -> Path {
    location.path.clone().join(format!("{n:020}{SUFFIX}"))
}

/// Numbers of the segments behind `n`, in order.
async fn behind(location: &Location, n: u64) -> Result<Vec<u64>, ConnectorError> {
    let found = location.store.list_with_offset(Some(&location.path), &path(location, n));
    let found: Vec<_> = found
        .try_collect()
        .await
        .map_err(|e| store_failed(format!("cannot list `{}`", location.display), &e))?;
    let number = |path: &Path| path.filename()?.strip_suffix(SUFFIX)?.parse().ok();
    let mut numbers: Vec<u64> = found.iter().filter_map(|object| number(&object.location)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

async fn get(location: &Location, n: u64) -> Result<Option<bytes::Bytes>, ConnectorError> {
    let failed = |e: &object_store::Error| {
        store_failed(format!("cannot read segment {n} of `{}`", location.display), e)
    };
    match location.store.get(&path(location, n)).await {
        Ok(found) => found.bytes().await.map(Some).map_err(|e| failed(&e)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(e) => Err(failed(&e)),
    }
}

/// A segment's records; nothing where it has been removed meanwhile.
async fn read<T: DeserializeOwned>(location: &Location, n: u64) -> Result<Option<Read<T>>, ConnectorError> {
    let Some(body) = get(location, n).await? else { return Ok(None) };
    let damaged = |reason: String| {
        ConnectorError::Fatal(format!(
            "segment {n} of `{}` is damaged: {reason}: put a good copy back",
            location.display
        ))
    };
    let end = body.iter().position(|b| *b == b'\n').map_or(0, |end| end + 1);
    let (headers, _) = whole::<Header>(&body[..end]).map_err(damaged)?;
    let header = headers.first().filter(|header| header.segment == n);
    let Some(header) = header else {
        return Err(damaged("its first line is not that of this segment".into()));
    };
    let (records, good) = whole(&body[end..]).map_err(damaged)?;
    if end + good != body.len() {
        return Err(damaged(format!("it is readable to byte {} of {}", end + good, body.len())));
    }
    Ok(Some(Read { n, whole: header.whole, bytes: body.len() as u64, records }))
}

/// Segments of these numbers, those that are still there, in order.
async fn read_all<T: DeserializeOwned>(
    location: &Location,
    numbers: Vec<u64>,
) -> Result<Vec<Read<T>>, ConnectorError> {
    let reads = futures::stream::iter(numbers).map(|n| read(location, n));
    let found: Vec<Option<Read<T>>> = reads.buffered(PARALLEL).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// Removes segments before number `n`, which holds all that they hold.
async fn remove_before(location: Location, n: u64) {
    let numbers = match behind(&location, 0).await {
        Ok(numbers) => numbers,
        Err(error) => return tracing::warn!(%error, "old segments are not removed"),
    };
    let old = futures::stream::iter(numbers.into_iter().filter(|old| *old < n));
    let remove = |old| {
        let location = &location;
        async move { drop(location.store.delete(&path(location, old)).await) }
    };
    old.for_each_concurrent(PARALLEL, remove).await;
}

/// Leaves out what stands before the last whole segment.
fn from_whole<T>(mut found: Vec<Read<T>>) -> Vec<Read<T>> {
    let from = found.iter().rposition(|segment| segment.whole).unwrap_or(0);
    found.split_off(from)
}

impl Segments {
    /// Reads the log at `location`. [`claim`](Self::claim) makes this its writer.
    pub async fn open<T: DeserializeOwned>(location: Location) -> Result<(Self, Vec<T>), ConnectorError> {
        let numbers = behind(&location, 0).await?;
        let last = numbers.last().copied().unwrap_or(0);
        let found = from_whole(read_all::<T>(&location, numbers).await?);
        let first = found.first().map_or(1, |segment| if segment.whole { segment.n } else { 1 });
        let missing = (first..=last).zip(found.iter().map(|s| Some(s.n)).chain(std::iter::repeat(None)));
        if let Some((missing, _)) = missing.into_iter().find(|(n, found)| Some(*n) != *found) {
            return Err(ConnectorError::Transient(format!(
                "segment {missing} of `{}` is missing: another run is writing the log, or the object was removed: put it back",
                location.display
            )));
        }
        let segments = Self {
            writer: rand::random(),
            next: last + 1,
            pending: Vec::new(),
            bytes: found.iter().map(|segment| segment.bytes).sum(),
            count: found.len() as u64,
            broken: false,
            location,
        };
        Ok((segments, found.into_iter().flat_map(|segment| segment.records).collect()))
    }

    /// Takes the log over: earlier writers can append no more.
    pub async fn claim(&mut self) -> Result<(), ConnectorError> {
        match self.put(false).await {
            Err(ConnectorError::Fenced(_)) => Err(ConnectorError::Transient(format!(
                "another run opens `{}` at the same time",
                self.location.display
            ))),
            put => put,
        }
    }

    /// Appends records; they count when [`sync`](Self::sync) has returned.
    pub fn append<T: Serialize>(&mut self, records: &[T]) -> Result<(), ConnectorError> {
        let written = records.iter().try_for_each(|record| line(record, &mut self.pending));
        written.map_err(|e| ConnectorError::fatal(format!("cannot write to `{}`", self.location.display), e))
    }

    /// Puts what was appended.
    pub async fn sync(&mut self) -> Result<(), ConnectorError> {
        if self.pending.is_empty() { self.usable() } else { self.put(false).await }
    }

    /// Replaces the whole log.
    pub async fn rewrite<T: Serialize>(&mut self, records: &[T]) -> Result<(), ConnectorError> {
        self.pending.clear();
        self.append(records)?;
        self.put(true).await?;
        // Orders must not wait for it. What is not removed now is removed the next time; a run that is replaced removes nothing that counts.
        tokio::spawn(remove_before(self.location.clone(), self.next - 1));
        Ok(())
    }

    /// Whether no other writer has taken the log over.
    pub async fn is_ours(&self) -> Result<bool, ConnectorError> {
        self.usable()?;
        Ok(behind(&self.location, self.next - 1).await?.is_empty())
    }

    /// Whether the log should be rewritten.
    pub fn is_long(&self, bytes_max: u64) -> bool {
        self.count >= SEGMENTS_MAX || self.bytes >= bytes_max
    }

    fn usable(&self) -> Result<(), ConnectorError> {
        if !self.broken {
            return Ok(());
        }
        let place = &self.location.display;
        Err(ConnectorError::Transient(format!(
            "`{place}`: an earlier write failed: the log must be opened again"
        )))
    }

    async fn put(&mut self, whole: bool) -> Result<(), ConnectorError> {
        self.usable()?;
        self.broken = true;
        let n = self.next;
        let mut body = Vec::new();
        let header = Header { segment: n, writer: self.writer, whole };
        line(&header, &mut body)
            .map_err(|e| ConnectorError::fatal(format!("cannot write to `{}`", self.location.display), e))?;
        body.append(&mut self.pending);
        let body = bytes::Bytes::from(body);
        let options = PutOptions { mode: PutMode::Create, ..Default::default() };
        let payload = PutPayload::from(body.clone());
        match self.location.store.put_opts(&path(&self.location, n), payload, options).await {
            Ok(_) => {}
            // The answer to the put may have been lost, and it was tried again.
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                if get(&self.location, n).await?.is_none_or(|found| found != body) {
                    return Err(self.fenced());
                }
            }
            Err(e) => {
                return Err(store_failed(
                    format!("cannot write segment {n} of `{}`", self.location.display),
                    &e,
                ));
            }
        }
        // The number may have been free because the segments of newer writers were put into one.
        if !behind(&self.location, n).await?.is_empty() {
            return Err(self.fenced());
        }
        self.next += 1;
        (self.bytes, self.count) = match whole {
            true => (body.len() as u64, 1),
            false => (self.bytes + body.len() as u64, self.count + 1),
        };
        self.broken = false;
        Ok(())
    }

    fn fenced(&self) -> ConnectorError {
        ConnectorError::Fenced(format!(
            "another run of the job, or another sink of it, writes `{}`",
            self.location.display
        ))
    }
}

/// Reads what another writes: records as they come, all of them again where they were put into one segment.
#[derive(Debug)]
pub struct SegmentTail {
    location: Location,
    /// The last segment that was seen.
    seen: u64,
}

impl SegmentTail {
    /// Of the log at `location`, which need not be there yet.
    pub fn new(location: Location) -> Self {
        Self { location, seen: 0 }
    }

    /// Records that have come since the last call.
    pub async fn poll<T: DeserializeOwned>(&mut self) -> Result<Vec<T>, ConnectorError> {
        let numbers = behind(&self.location, self.seen).await?;
        let Some(last) = numbers.last().copied() else { return Ok(Vec::new()) };
        let found = from_whole(read_all(&self.location, numbers).await?);
        self.seen = last;
        Ok(found.into_iter().flat_map(|segment: Read<T>| segment.records).collect())
    }
}

#[cfg(test)]
pub(crate) mod tests;
