//! Rows as lines of JSON in one local file, exactly once.
//!
//! A checkpoint remembers the file: its path, its length after an fsync, and a hash of its first bytes. A run that goes on
//! from it cuts the file back to that length, and replay writes the same lines again. Where a source that feeds it cannot be
//! read again, nothing would bring the lines behind the checkpoint a second time: they stay, and the file goes on after its last
//! whole line. Nothing else is ever cut: a file that the sink does not remember is another's, and `existing` says what becomes
//! of it. One writer, in the order of time. Memory: the lines since the last flush, at most [`BUFFER_MAX`] bytes.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidemill_engine::component::{PlanContext, Problems, SinkKind, SinkPlan, StreamInfo};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::json::{EncodeOptions, Encoder};
use tidemill_engine::problem::Problem;
use tidemill_engine::sink::{Delivery, FlushPolicy, Guarantee, Placement, Sink, SinkContext, SinkWriter};
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of lines that wait for a flush.
const BUFFER_MAX: usize = 1 << 20;
/// The first bytes of a file, by whose hash it is known again.
const HEAD_MAX: usize = 4096;

/// Rows as lines of JSON in one local file.
///
/// Times are RFC 3339. Lines are in the order of time, each exactly once: a run that goes on from a
/// checkpoint cuts the file back to what the checkpoint knew, unless a source that feeds it cannot be read again
/// (`tidemill plan` says so): then lines behind the checkpoint stay, at least once across a crash. A run that begins from
/// nothing removes what this sink wrote in an earlier run, and what the file held before that stays; with any
/// other file that is there it does what `existing` says.
///
/// ```yaml
/// sinks:
///   signals: { kind: jsonl, from: signal, with: { path: out/signals.jsonl } }
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The file, relative to the graph's folder; folders on the way are made.
    pub path: String,
    /// Whether lines carry `_src` and `_seq`, the origin of each row.
    #[serde(default)]
    pub origin: bool,
    /// What becomes of a file that is there already and that this sink has not written.
    #[serde(default)]
    pub existing: Existing,
}

/// What becomes of lines that a sink finds and has not written.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Existing {
    /// The run refuses to start: the file may be another's.
    #[default]
    Fail,
    /// They are removed.
    Replace,
    /// They stay, also when the job begins from nothing again, and the run's lines come behind them.
    Append,
}

/// The kind.
pub struct Jsonl;

impl SinkKind for Jsonl {
    const KIND: &'static str = "jsonl";
    type Params = Params;

    fn plan(params: Params, _: &StreamInfo, cx: &PlanContext) -> Result<SinkPlan, Problems> {
        if params.path.is_empty() {
            return Err(vec![Problem::new("path", "is empty: name a file")]);
        }
        if params.path.contains("://") && !params.path.starts_with("file://") {
            let problem = Problem::new("path", format!("`{}` is not a local file", params.path));
            return Err(vec![problem.hint("for object stores use the `parquet` sink")]);
        }
        let path = cx.base.join(params.path.trim_start_matches("file://"));
        if path.is_dir() {
            return Err(vec![
                Problem::new("path", format!("`{}` is a folder", path.display())).hint("name a file in it"),
            ]);
        }
        Ok(SinkPlan {
            delivery: Delivery::Ordered,
            placement: Placement::Shards { count: 1, by: Vec::new() },
            flush: FlushPolicy::default(),
            sink: Arc::new(JsonlSink {
                path,
                target: params.path,
                origin: params.origin,
                existing: params.existing,
            }),
        })
    }
}

struct JsonlSink {
    path: PathBuf,
    /// The path as the graph has it, by which checkpoints name the file.
    target: String,
    origin: bool,
    existing: Existing,
}

/// What a checkpoint remembers.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Remembered {
    bytes: u64,
    /// The path as the graph has it; checkpoints of older versions do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// Hash of the first bytes, as many as there were up to [`HEAD_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    head: Option<u64>,
    /// How many of the bytes the file held before this sink first wrote to it; checkpoints of older versions do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    foreign: Option<u64>,
}

/// What stays of the file that was found.
struct Kept {
    bytes: u64,
    /// How many of them, from the start, this sink has not written.
    foreign: Option<u64>,
    /// Whether the checkpoint that the run goes on from remembers the file.
    remembered: bool,
}

impl Remembered {
    /// What shard 0 remembers of the file at `target`, if it is that file.
    fn of(values: &[(usize, Value)], target: &str) -> Result<Option<Self>, serde_json::Error> {
        let Some((_, value)) = values.iter().find(|(shard, value)| *shard == 0 && !value.is_null()) else {
            return Ok(None);
        };
        let remembered: Self = serde_json::from_value(value.clone())?;
        Ok(Some(remembered).filter(|r| r.path.as_ref().is_none_or(|path| path == target)))
    }

    /// Whether a file that begins with `head` is the one.
    fn is_of(&self, head: &[u8]) -> bool {
        let known = (self.bytes as usize).min(HEAD_MAX);
        self.head.is_none_or(|hash| head.len() >= known && hash == xxh3_64(&head[..known]))
    }
}

/// The file itself, whichever way its path is spelled and whether or not it is there yet.
fn resolved(path: &std::path::Path) -> PathBuf {
    let in_folder = || Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    path.canonicalize().ok().or_else(in_folder).unwrap_or_else(|| {
        // Its folder is not there yet.
        let mut plain = PathBuf::new();
        for part in std::path::absolute(path).unwrap_or_else(|_| path.into()).components() {
            match part {
                std::path::Component::ParentDir => {
                    plain.pop();
                }
                part => plain.push(part),
            }
        }
        plain
    })
}

impl JsonlSink {
    /// What of a file of `found` bytes that begins with `head` stays.
    fn keeps(&self, cx: &SinkContext, found: u64, head: &[u8]) -> Result<Kept, ConnectorError> {
        let path = self.path.display();
        let unreadable = |e| {
            ConnectorError::fatal(format!("what the checkpoint remembers of `{path}` is not readable"), e)
        };
        if cx.start_checkpoint > 0
            && let Some(known) = Remembered::of(&cx.restored, &self.target).map_err(unreadable)?
        {
            if found < known.bytes {
                return Err(ConnectorError::Fatal(format!(
                    "`{path}` has {found} bytes, but {} had been written at the checkpoint: put the file back, or start from none",
                    known.bytes
                )));
            }
            if !known.is_of(head) {
                return Err(ConnectorError::Fatal(format!(
                    "`{path}` is not the file that was written up to the checkpoint, it begins otherwise: put that file back, or name \
                     another path"
                )));
            }
            return Ok(Kept { bytes: known.bytes, foreign: known.foreign, remembered: true });
        }
        // A run that begins from nothing starts over what an earlier one of this sink wrote, and nothing else.
        let earlier = Remembered::of(&cx.former, &self.target)
            .map_err(unreadable)?
            .filter(|e| e.head.is_some() && e.bytes > 0 && found >= e.bytes && e.is_of(head));
        let from = |bytes| Ok(Kept { bytes, foreign: Some(bytes), remembered: false });
        match (self.existing, earlier) {
            _ if found == 0 => from(0),
            (Existing::Replace, _) => from(0),
            (_, Some(Remembered { foreign: Some(foreign), .. })) => from(foreign),
            // An older version may have appended to a file that was there, and does not say how long that was.
            (Existing::Append, _) => from(found),
            (Existing::Fail, Some(_)) => from(0),
            (Existing::Fail, None) => Err(ConnectorError::Fatal(format!(
                "`{path}` is there already ({found} bytes), and sink `{}` does not remember having written it: set `existing: append` \
                 to write behind it, `existing: replace` to remove what it holds, or name another path",
                cx.name
            ))),
        }
    }
}

#[async_trait]
impl Sink for JsonlSink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn exclusive(&self) -> Option<(&'static str, String)> {
        Some(("path", resolved(&self.path).display().to_string()))
    }

    async fn open(&self, cx: SinkContext) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        let path = self.path.clone();
        let fail = |e: std::io::Error| failed(&path, &e);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(fail)?;
        }
        let options = || {
            let mut options = OpenOptions::new();
            options.create(true).write(true).truncate(false);
            options
        };
        // Not everything that can be written can be read (a pipe, a device).
        let file = options().read(true).open(&path).or_else(|_| options().open(&path)).map_err(fail)?;
        // Two runs must not share the file; the lock goes with its process, however that ends.
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(ConnectorError::transient(
                    format!("`{}`", path.display()),
                    "another run is writing this file",
                ));
            }
            // Some file systems have no locks.
            Err(TryLockError::Error(e)) => {
                tracing::warn!(path = %path.display(), "the file cannot be locked: {e}")
            }
        }
        let meta = file.metadata().map_err(fail)?;
        let found = if meta.is_file() { meta.len() } else { 0 };
        let mut head = Vec::new();
        if found > 0 {
            (&file).take(HEAD_MAX as u64).read_to_end(&mut head).map_err(fail)?;
        }
        let Kept { mut bytes, foreign, remembered } = self.keeps(&cx, found, &head)?;
        // Lines behind the checkpoint that nothing will write again stay; a torn last line goes.
        if remembered && !cx.replayable && cx.resumed {
            bytes = whole_lines(&path, bytes, found).map_err(fail)?;
        }
        head.truncate(bytes.min(HEAD_MAX as u64) as usize);
        let options = EncodeOptions { origin: self.origin, lines: true };
        Ok(Box::new(Writer {
            file,
            path,
            target: self.target.clone(),
            bytes,
            foreign,
            head,
            cut: false,
            lines: Vec::new(),
            encoder: Encoder::new(cx.schema, options),
        }))
    }
}

/// Length of the file at `path` up to the end of its last whole line; at least `from`, where a line ends.
fn whole_lines(path: &std::path::Path, from: u64, len: u64) -> std::io::Result<u64> {
    let mut file = File::open(path)?;
    let mut part = vec![0; 64 << 10];
    let mut end = len;
    while end > from {
        let start = end.saturating_sub(part.len() as u64).max(from);
        let read = &mut part[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(read)?;
        if let Some(i) = read.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + i as u64 + 1);
        }
        end = start;
    }
    Ok(from)
}

/// An error at a file; a full disk may be freed, a missing permission stays missing.
pub(crate) fn failed(path: &std::path::Path, e: &std::io::Error) -> ConnectorError {
    use std::io::ErrorKind::*;
    let what = format!("cannot write `{}`", path.display());
    match e.kind() {
        PermissionDenied | ReadOnlyFilesystem | NotADirectory | IsADirectory | NotFound | InvalidInput
        | AlreadyExists => ConnectorError::fatal(what, e),
        _ => ConnectorError::transient(what, e),
    }
}

struct Writer {
    file: File,
    path: PathBuf,
    target: String,
    /// Bytes of the file that are this run's, the checkpoint's, or were there before and stay.
    bytes: u64,
    /// How many of them were there before this sink.
    foreign: Option<u64>,
    /// The first of them.
    head: Vec<u8>,
    /// What is not has been cut off: with the first writing, when all sinks are open and the run has begun.
    cut: bool,
    lines: Vec<u8>,
    encoder: Encoder,
}

impl Writer {
    fn write_out(&mut self) -> Result<(), ConnectorError> {
        let fail = |e: std::io::Error| failed(&self.path, &e);
        if !self.cut {
            self.file.set_len(self.bytes).map_err(fail)?;
            self.file.seek(SeekFrom::Start(self.bytes)).map_err(fail)?;
            self.cut = true;
        }
        tidemill_engine::fault::io("jsonl-write").map_err(fail)?;
        self.file.write_all(&self.lines).map_err(fail)?;
        self.bytes += self.lines.len() as u64;
        let of_head = self.lines.len().min(HEAD_MAX - self.head.len());
        self.head.extend_from_slice(&self.lines[..of_head]);
        self.lines.clear();
        Ok(())
    }
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, rows: RecordBatch) -> Result<(), ConnectorError> {
        self.lines.extend_from_slice(self.encoder.encode(&rows).bytes());
        if self.lines.len() >= BUFFER_MAX { self.write_out() } else { Ok(()) }
    }

    async fn flush(&mut self, _: i64) -> Result<(), ConnectorError> {
        self.write_out()
    }

    async fn checkpoint(&mut self, _: u64) -> Result<Value, ConnectorError> {
        self.write_out()?;
        let fail = |e| failed(&self.path, &e);
        let file = self.file.try_clone().map_err(fail)?;
        let synced = tokio::task::spawn_blocking(move || file.sync_data()).await;
        synced.map_err(std::io::Error::other).and_then(|r| r).map_err(fail)?;
        let (path, head) = (Some(self.target.clone()), Some(xxh3_64(&self.head)));
        Ok(json!(Remembered { bytes: self.bytes, path, head, foreign: self.foreign }))
    }

    async fn close(&mut self) -> Result<(), ConnectorError> {
        self.write_out()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{Case, check_sink, context, rows};

    fn plan(path: &str, base: &std::path::Path) -> Result<SinkPlan, Problems> {
        Jsonl::plan(
            Params { path: path.into(), origin: true, existing: Existing::default() },
            &crate::conformance::stream(),
            &crate::conformance::plan_context(base),
        )
    }

    #[tokio::test]
    async fn lines_are_there_once_whatever_crashes() {
        let folder = tempfile::tempdir().unwrap();
        let case = Case {
            plan: &|base| plan("out/rows.jsonl", base).unwrap(),
            contents: &|base| {
                let text = std::fs::read_to_string(base.join("out/rows.jsonl")).unwrap_or_default();
                text.lines().map(str::to_owned).collect()
            },
        };
        let lines = check_sink(folder.path(), &case).await;
        let first: Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(first["ts"], "2024-01-01T00:00:00Z");
        assert_eq!(first["symbol"], "S0");
        assert_eq!(first["_seq"], 0);
    }

    /// Opens the sink over a file that holds `before`, with what a checkpoint (`restored`) or an earlier run (`former`)
    /// remembers; writes two rows; the file, and what the next checkpoint remembers.
    async fn over(
        before: &str,
        existing: Existing,
        checkpoint: u64,
        restored: Option<Value>,
        former: Option<Value>,
    ) -> Result<(String, Value), ConnectorError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rows.jsonl");
        std::fs::write(&file, before).unwrap();
        let sink = JsonlSink { path: file.clone(), target: "rows.jsonl".into(), origin: false, existing };
        let shard = |value: Option<Value>| value.map(|v| (0, v)).into_iter().collect::<Vec<_>>();
        let cx = SinkContext { former: shard(former), ..context(folder.path(), checkpoint, shard(restored)) };
        let opened = sink.open(cx).await;
        assert_eq!(std::fs::read_to_string(&file).unwrap(), before, "nothing is cut by opening");
        let mut writer = opened?;
        writer.write(rows(0..2)).await?;
        writer.flush(i64::MAX).await?;
        let remembered = writer.checkpoint(checkpoint + 1).await?;
        Ok((std::fs::read_to_string(&file).unwrap(), remembered))
    }

    #[tokio::test]
    async fn a_file_that_is_not_remembered_is_not_cut() {
        let foreign = "somebody's line\n".repeat(300);
        let refused = over(&foreign, Existing::Fail, 0, None, None).await.unwrap_err().to_string();
        assert!(refused.contains("existing: append") && refused.contains("rows.jsonl"), "{refused}");
        let (replaced, memory) = over(&foreign, Existing::Replace, 0, None, None).await.unwrap();
        assert_eq!(replaced.lines().count(), 2);
        let (appended, behind) = over(&foreign, Existing::Append, 0, None, None).await.unwrap();
        assert_eq!(appended, foreign.clone() + &replaced);
        // A restart of the run that appended cuts back to what was there and what it wrote, not further.
        let crashed = appended.clone() + "half a li";
        let (again, _) = over(&crashed, Existing::Append, 3, Some(behind), None).await.unwrap();
        assert_eq!(again, appended + &replaced);
        // A renamed sink, another path, and a memory of another sink's path: all of them remember nothing of this file.
        let mut elsewhere = memory.clone();
        elsewhere["path"] = "other.jsonl".into();
        assert!(over(&foreign, Existing::Fail, 3, None, None).await.is_err());
        assert!(over(&foreign, Existing::Fail, 3, Some(elsewhere.clone()), None).await.is_err());
        assert!(over(&foreign, Existing::Fail, 0, None, Some(elsewhere)).await.is_err());
        // Another file in the place of the remembered one.
        let other =
            over(&foreign, Existing::Replace, 3, Some(memory.clone()), None).await.unwrap_err().to_string();
        assert!(other.contains("begins otherwise"), "{other}");
        assert!(over(&foreign, Existing::Fail, 0, None, Some(memory.clone())).await.is_err());
        // A run that begins from nothing starts over what an earlier run of the sink wrote.
        let (over_own, _) = over(&replaced, Existing::Fail, 0, None, Some(memory)).await.unwrap();
        assert_eq!(over_own, replaced);
        // Checkpoints of older versions remember the length only.
        let (old, _) = over(&replaced, Existing::Fail, 3, Some(json!({"bytes": 0})), None).await.unwrap();
        assert_eq!(old, replaced);
    }

    /// Given a file that was there before a job with `existing: append` wrote behind it, when the job has ended and is run again
    /// from nothing, then its own lines are written again and those before them are as they were.
    #[tokio::test]
    async fn a_run_from_nothing_starts_over_its_own_lines_and_keeps_those_before() {
        let foreign = "a line of the user's\n".repeat(3);
        let (first, memory) = over(&foreign, Existing::Append, 0, None, None).await.unwrap();
        for existing in [Existing::Append, Existing::Fail] {
            let (again, memory) = over(&first, existing, 0, None, Some(memory.clone())).await.unwrap();
            assert_eq!(again, first);
            let (third, _) = over(&again, existing, 0, None, Some(memory)).await.unwrap();
            assert_eq!(third, first);
        }
        // Also where a restart from a checkpoint lies between.
        let (more, memory) = over(&first, Existing::Append, 3, Some(memory), None).await.unwrap();
        assert!(more.starts_with(&first) && more.len() > first.len());
        let (again, memory) = over(&more, Existing::Append, 0, None, Some(memory)).await.unwrap();
        assert_eq!(again, first);
        // `replace` removes them; a memory of an older version does not say what was there, so nothing is removed.
        let (replaced, _) = over(&first, Existing::Replace, 0, None, Some(memory.clone())).await.unwrap();
        assert_eq!(replaced.lines().count(), 2);
        let mut older = memory;
        older.as_object_mut().unwrap().remove("foreign");
        let (kept, _) = over(&first, Existing::Append, 0, None, Some(older)).await.unwrap();
        assert_eq!(kept, first.clone() + &replaced);
    }

    #[tokio::test]
    async fn behind_a_source_that_cannot_be_read_again_every_whole_line_stays() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path();
        let sink = plan("rows.jsonl", base).unwrap().sink;
        let live = |start: u64, resumed: bool, restored: Vec<(usize, Value)>| SinkContext {
            resumed,
            replayable: false,
            ..context(base, start, restored)
        };
        let read = || std::fs::read_to_string(base.join("rows.jsonl")).unwrap();
        // Killed in the middle of a line, behind the checkpoint that every run takes before its first row.
        let mut writer = sink.open(live(0, false, Vec::new())).await.unwrap();
        let begun = writer.checkpoint(1).await.unwrap();
        writer.write(rows(0..5)).await.unwrap();
        writer.flush(i64::MAX).await.unwrap();
        drop(writer);
        let five = read();
        std::fs::write(base.join("rows.jsonl"), format!("{five}{{\"ts\":")).unwrap();
        let mut writer = sink.open(live(1, true, vec![(0, begun)])).await.unwrap();
        writer.write(rows(10..12)).await.unwrap();
        let remembered = writer.checkpoint(2).await.unwrap();
        writer.write(rows(12..15)).await.unwrap();
        writer.flush(i64::MAX).await.unwrap();
        drop(writer);
        let ten = read();
        assert!(ten.starts_with(&five) && ten.lines().count() == 10, "{ten}");
        // Killed behind a checkpoint.
        let mut writer = sink.open(live(2, true, vec![(0, remembered.clone())])).await.unwrap();
        writer.write(rows(20..21)).await.unwrap();
        writer.close().await.unwrap();
        drop(writer);
        assert!(read().starts_with(&ten) && read().lines().count() == 11);
        // What can be read again is cut, as ever; a run that begins from nothing begins the file again.
        let mut writer = sink.open(context(base, 2, vec![(0, remembered.clone())])).await.unwrap();
        writer.close().await.unwrap();
        drop(writer);
        assert_eq!(read().lines().count(), 7);
        let fresh = SinkContext { former: vec![(0, remembered)], ..live(0, false, Vec::new()) };
        let mut writer = sink.open(fresh).await.unwrap();
        writer.close().await.unwrap();
        assert_eq!(read(), "");
    }

    #[tokio::test]
    async fn what_is_wrong_with_the_file_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path();
        assert!(plan("s3://bucket/x", base).is_err() && plan("", base).is_err() && plan(".", base).is_err());
        std::fs::write(base.join("file"), "x").unwrap();
        let sink = plan("file/rows.jsonl", base).unwrap().sink;
        let error = sink.open(context(base, 0, Vec::new())).await.err().unwrap();
        assert!(matches!(&error, ConnectorError::Fatal(m) if m.contains("file/rows.jsonl")), "{error}");
        // A file that lost what the checkpoint knew.
        let sink = plan("rows.jsonl", base).unwrap().sink;
        let cut = sink.open(context(base, 3, vec![(0, json!({"bytes": 10}))])).await.err().unwrap();
        assert!(cut.to_string().contains("has 0 bytes, but 10 had been written"), "{cut}");
        // Two at once.
        let mut first = sink.open(context(base, 0, Vec::new())).await.unwrap();
        first.write(rows(0..5)).await.unwrap();
        let second = sink.open(context(base, 0, Vec::new())).await.err().unwrap();
        assert!(matches!(&second, ConnectorError::Transient(m) if m.contains("another run")), "{second}");
        // A full disk.
        if std::path::Path::new("/dev/full").exists() {
            let full = plan("/dev/full", base).unwrap().sink;
            let full = async {
                let mut writer = full.open(context(base, 0, Vec::new())).await?;
                writer.write(rows(0..5)).await?;
                writer.flush(5).await
            };
            let error = full.await.unwrap_err();
            assert!(error.to_string().contains("/dev/full"), "{error}");
        }
    }
}
