//! Reads one partition's archived rows in order of their offsets.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, UInt64Array};
use arrow::compute::{filter_record_batch, interleave_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use arrow::error::ArrowError;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use tidemill_archive::ArchiveError;
use tidemill_archive::read::{self, Choice};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::row;
use tidemill_engine::source::{Chunk, PartitionWriter, Position, Seqs};
use tokio_util::sync::CancellationToken;

use super::{Archive, History, SLICE_ROWS, failed, position};
use crate::kafka::source::Fixed;

/// One partition's history, about to be read.
pub struct Past {
    history: History,
    archive: Arc<Archive>,
    topic: String,
    partition: u32,
    offsets: Range<u64>,
    fixed: Fixed,
}

impl Past {
    /// The archived rows of `partition` whose offsets are in `offsets`.
    pub(in crate::kafka) fn new(
        history: &History,
        archive: &Arc<Archive>,
        topic: &str,
        partition: u32,
        offsets: Range<u64>,
        fixed: Fixed,
    ) -> Self {
        let (history, archive, topic) = (history.clone(), archive.clone(), topic.to_owned());
        Self { history, archive, topic, partition, offsets, fixed }
    }

    /// Where it begins.
    pub(in crate::kafka) fn position(&self) -> Position {
        self.fixed.within(position(&self.topic, self.offsets.start))
    }

    /// Sends all rows; false where the job stops first.
    pub async fn run(
        self,
        mut out: PartitionWriter,
        chunk_rows: usize,
        stop: CancellationToken,
    ) -> Result<Option<PartitionWriter>, ConnectorError> {
        // Decoding is work: it stays off the async threads.
        let runtime = tokio::runtime::Handle::current();
        let work = move || {
            runtime.block_on(async move {
                let start = RecordBatch::new_empty(self.history.columns.clone());
                let mut merge = Merge::new(&self)?;
                let mut next = self.offsets.start;
                let mut chunk = Some((start, Vec::new()));
                while let Some((rows, seqs)) = chunk {
                    let mut at = 0;
                    loop {
                        let n = (rows.num_rows() - at).min(chunk_rows);
                        let part = seqs[at..at + n].to_vec();
                        next = part.last().map_or(next, |last| last + 1);
                        let chunk = Chunk {
                            rows: rows.slice(at, n),
                            seqs: Seqs::List(part),
                            position: self.fixed.within(position(&self.topic, next)),
                            rejects: Vec::new(),
                        };
                        let sent = tokio::select! {
                            sent = out.send(chunk) => sent.is_ok(),
                            () = stop.cancelled() => false,
                        };
                        if !sent {
                            return Ok(None);
                        }
                        at += n;
                        if at >= rows.num_rows() {
                            break;
                        }
                    }
                    chunk = merge.next().await?;
                }
                if merge.doubles > 0 {
                    tracing::warn!(
                        partition = self.partition,
                        rows = merge.doubles,
                        "the archive has rows twice; one of each was read"
                    );
                }
                Ok(Some(out))
            })
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|e| Err(ConnectorError::fatal("the reader of the archive stopped", e)))
    }
}

type Rows = BoxStream<'static, Result<RecordBatch, ArchiveError>>;

/// A file that is merged.
struct Cursor {
    file: usize,
    rows: Option<Rows>,
    /// The chosen slices: rows up to and with each, and the least offset in it and all behind it.
    slices: Vec<(usize, u64)>,
    selection: Vec<RowSelector>,
    at: usize,
    read: usize,
}

impl Cursor {
    /// No row still to be read has a smaller offset.
    fn bound(&self) -> u64 {
        self.slices.get(self.at).map_or(u64::MAX, |(_, least)| *least)
    }
}

/// Rows that wait, in order of offsets.
struct Waiting {
    rows: RecordBatch,
    seqs: Vec<u64>,
    at: usize,
    bytes: usize,
}

/// Puts one partition's rows in order of offsets.
pub(super) struct Merge<'a> {
    past: &'a Past,
    schema: SchemaRef,
    src: u64,
    /// Files not yet opened, that with the least offset last.
    unopened: Vec<Cursor>,
    open: Vec<Cursor>,
    waiting: Vec<Waiting>,
    last: Option<u64>,
    doubles: u64,
}

impl<'a> Merge<'a> {
    pub(super) fn new(past: &'a Past) -> Result<Self, ConnectorError> {
        let src = past.archive.source << 32 | u64::from(past.partition);
        let mut unopened = Vec::new();
        for (file, slices) in past.archive.files.iter().enumerate() {
            let mut cursor =
                Cursor { file, rows: None, slices: Vec::new(), selection: Vec::new(), at: 0, read: 0 };
            let mut rows = 0;
            for slice in slices {
                let span = slice.spans.get(&src);
                let span = span.filter(|(min, max)| *max >= past.offsets.start && *min < past.offsets.end);
                match span {
                    Some((min, _)) => {
                        rows += slice.rows;
                        cursor.selection.push(RowSelector::select(slice.rows));
                        cursor.slices.push((rows, *min));
                    }
                    None => cursor.selection.push(RowSelector::skip(slice.rows)),
                }
            }
            let mut least = u64::MAX;
            for slice in cursor.slices.iter_mut().rev() {
                least = least.min(slice.1);
                slice.1 = least;
            }
            if !cursor.slices.is_empty() {
                unopened.push(cursor);
            }
        }
        unopened.sort_by_key(|cursor| std::cmp::Reverse(cursor.bound()));
        let origin = |name| Arc::new(Field::new(name, DataType::UInt64, false));
        let mut fields = vec![origin(row::SRC), origin(row::SEQ)];
        fields.extend(past.history.columns.fields().iter().cloned());
        let schema = Arc::new(Schema::new(fields));
        Ok(Self {
            past,
            schema,
            src,
            unopened,
            open: Vec::new(),
            waiting: Vec::new(),
            last: None,
            doubles: 0,
        })
    }

    /// The next rows and their offsets; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<(RecordBatch, Vec<u64>)>, ConnectorError> {
        loop {
            let open = self.open.iter().map(Cursor::bound).min().unwrap_or(u64::MAX);
            let bound = open.min(self.unopened.last().map_or(u64::MAX, Cursor::bound));
            if let Some(ready) =
                self.ready(bound).map_err(|e| ConnectorError::fatal("cannot merge archived rows", e))?
            {
                return Ok(Some(ready));
            }
            if bound == u64::MAX {
                return Ok(None);
            }
            self.load(bound).await.map_err(failed)?;
            let bytes: usize = self.waiting.iter().map(|w| w.bytes).sum();
            if bytes > self.past.history.memory_bytes {
                return Err(ConnectorError::Fatal(format!(
                    "archived rows of partition {} in `{}` are so far out of the order of their offsets that more than {} MiB of \
                     them must wait: compact the dataset into fewer folders, or raise `history.memory_mb`",
                    self.past.partition,
                    self.past.history.place_name(),
                    self.past.history.memory_bytes >> 20
                )));
            }
        }
    }

    /// Reads on in the file that has the least offset.
    async fn load(&mut self, bound: u64) -> Result<(), ArchiveError> {
        let dataset = &self.past.history.dataset;
        let i = match self.open.iter().position(|c| c.bound() == bound) {
            Some(i) => i,
            None => {
                let Some(mut cursor) = self.unopened.pop() else { return Ok(()) };
                let file = &self.past.archive.snapshot.files()[cursor.file];
                let choice = Choice {
                    schema: self.schema.clone(),
                    batch_rows: SLICE_ROWS,
                    groups: None,
                    rows: Some(RowSelection::from(std::mem::take(&mut cursor.selection))),
                };
                cursor.rows = Some(read::rows(dataset, file, choice).await?);
                self.open.push(cursor);
                self.open.len() - 1
            }
        };
        let cursor = &mut self.open[i];
        let batch = match &mut cursor.rows {
            Some(rows) => rows.try_next().await?,
            None => None,
        };
        let Some(batch) = batch else {
            self.open.swap_remove(i);
            return Ok(());
        };
        cursor.read += batch.num_rows();
        while cursor.slices.get(cursor.at).is_some_and(|(rows, _)| *rows <= cursor.read) {
            cursor.at += 1;
        }
        if cursor.at == cursor.slices.len() {
            self.open.swap_remove(i);
        }
        let fail =
            |e: ArrowError| ArchiveError::Rows { what: "merge archived rows".into(), reason: e.to_string() };
        if let Some(waiting) = self.wait(&batch).map_err(fail)? {
            self.waiting.push(waiting);
        }
        Ok(())
    }

    /// The partition's rows of a batch, in order of offsets.
    fn wait(&self, batch: &RecordBatch) -> Result<Option<Waiting>, ArrowError> {
        let src = batch.column(0).as_primitive::<UInt64Type>().values();
        let seq = batch.column(1).as_primitive::<UInt64Type>().values();
        let offsets = &self.past.offsets;
        let own: BooleanArray =
            src.iter().zip(seq).map(|(src, seq)| Some(*src == self.src && offsets.contains(seq))).collect();
        let count = own.true_count();
        if count == 0 {
            return Ok(None);
        }
        let mut own_rows =
            if count == batch.num_rows() { batch.clone() } else { filter_record_batch(batch, &own)? };
        let seqs = |rows: &RecordBatch| rows.column(1).as_primitive::<UInt64Type>().values().to_vec();
        let mut offsets = seqs(&own_rows);
        if !offsets.is_sorted() {
            let mut order: Vec<u64> = (0..offsets.len() as u64).collect();
            order.sort_by_key(|i| offsets[*i as usize]);
            own_rows = take_record_batch(&own_rows, &UInt64Array::from(order))?;
            offsets = seqs(&own_rows);
        }
        let columns: Vec<usize> = (2..own_rows.num_columns()).collect();
        let rows = own_rows.project(&columns)?;
        // Of the rows, not of what they were sliced from.
        let bytes = rows.columns().iter().map(|c| c.to_data().get_slice_memory_size().unwrap_or(0)).sum();
        Ok(Some(Waiting { rows, seqs: offsets, at: 0, bytes }))
    }

    /// Waiting rows whose offsets are below `bound`, in order.
    fn ready(&mut self, bound: u64) -> Result<Option<(RecordBatch, Vec<u64>)>, ArrowError> {
        let mut picked: Vec<(u64, usize, usize)> = Vec::new();
        for (w, waiting) in self.waiting.iter_mut().enumerate() {
            let end = waiting.seqs.partition_point(|seq| *seq < bound);
            picked.extend((waiting.at..end).map(|i| (waiting.seqs[i], w, i)));
            waiting.at = waiting.at.max(end);
        }
        if picked.is_empty() {
            return Ok(None);
        }
        picked.sort_unstable();
        let before = picked.len();
        let mut last = self.last;
        picked.retain(|(seq, _, _)| last.replace(*seq) != Some(*seq));
        self.last = last;
        self.doubles += (before - picked.len()) as u64;
        let batches: Vec<&RecordBatch> = self.waiting.iter().map(|w| &w.rows).collect();
        let order: Vec<(usize, usize)> = picked.iter().map(|(_, w, i)| (*w, *i)).collect();
        let straight = order.windows(2).all(|p| p[0].0 == p[1].0 && p[0].1 + 1 == p[1].1);
        let rows = match order.first() {
            None => RecordBatch::new_empty(self.past.history.columns.clone()),
            Some((w, i)) if straight => batches[*w].slice(*i, order.len()),
            _ => interleave_record_batch(&batches, &order)?,
        };
        let rows = RecordBatch::try_new(self.past.history.columns.clone(), rows.columns().to_vec())?;
        self.waiting.retain(|w| w.at < w.seqs.len());
        Ok(Some((rows, picked.into_iter().map(|(seq, _, _)| seq).collect())))
    }
}
