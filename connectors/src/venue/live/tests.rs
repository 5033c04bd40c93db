//! A feed that goes on from its log: every frame is a row, so the rows say which frames were taken.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use serde_json::{Value, json};
use tidemill_engine::clock::Clock;
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::source::Source;

use super::SessionLimits;
use crate::capture::Raw;
use crate::capture::reader::Capture;
use crate::capture::record::{Header, LiveBlock, encode};
use crate::capture::serve::{ServeOptions, Server};
use crate::capture::session::sessions;
use crate::capture::writer::CaptureWriter;
use crate::conformance::{Drive, PartitionRead, read_source};
use crate::venue::feed::{Feed, FeedParams};
use crate::venue::frame::{Frame, FrameKind};
use crate::venue::protocol::{Endpoint, Output, Protocol};

const RUN: u64 = 7 | 1 << 63;

fn frame(i: usize, kind: FrameKind) -> Frame {
    let data = Bytes::from(format!("message {i}"));
    Frame { received_ns: 1_700_000_000_000_000_000 + i as i64 * 1000, connection: 0, kind, data }
}

/// A connection that was opened and never closed.
fn frames(n: usize) -> Vec<Frame> {
    (0..n).map(|i| frame(i, if i == 0 { FrameKind::Opened } else { FrameKind::Received })).collect()
}

/// Every frame is a row; connects where it is told to.
struct Rows(Raw, Option<String>);

impl Protocol for Rows {
    fn endpoints(&self) -> Vec<Endpoint> {
        let endpoint = |url: &String| Endpoint {
            url: url.clone(),
            hello: Vec::new(),
            send_gap_ns: 0,
            ping: None,
            stale_ns: 60_000_000_000,
            group: 0,
        };
        self.1.iter().map(endpoint).collect()
    }
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }
    fn on_frame(&mut self, frame: &Frame, out: &mut Output) {
        self.0.on_frame(frame, out);
    }
    fn rows(&self) -> usize {
        self.0.rows()
    }
    fn finish(&mut self) -> RecordBatch {
        self.0.finish()
    }
    fn state_is_whole(&self) -> bool {
        true
    }
}

fn feed(base: &Path, url: Option<String>, frames: u64) -> Arc<dyn Source> {
    let params = FeedParams { capture: Some("log".into()), ..FeedParams::default() };
    Arc::new(Feed {
        make: Arc::new(move || Box::new(Rows(Raw::new(), url.clone()))),
        params,
        session: SessionLimits { frames, ..super::SESSION },
        job: "j".into(),
        node: "n".into(),
        base: base.into(),
    })
}

async fn read(
    source: &Arc<dyn Source>,
    position: Option<Value>,
    run: u64,
    rows: usize,
) -> Result<PartitionRead, ConnectorError> {
    let restored: BTreeMap<u32, Value> = position.map(|position| (0, position)).into_iter().collect();
    let drive = Drive { restored, rows_max: rows, chunk_rows: 16, run, generation: 2, ..Drive::default() };
    let columns = Raw::new().schema();
    let reading = read_source(source, &columns, drive);
    let read = tokio::time::timeout(std::time::Duration::from_secs(120), reading).await;
    Ok(read.expect("the rows come")?.remove(&0).unwrap())
}

/// Numbers and texts of rows.
fn texts(read: &PartitionRead) -> Vec<(u64, String)> {
    let text = read.rows.column_by_name("text").unwrap().as_string::<i32>();
    read.seqs.iter().copied().zip(text.iter().flatten().map(str::to_owned)).collect()
}

fn header(session_ns: i64) -> Header {
    Header { job: "j".into(), node: "n".into(), session_ns, run: RUN, generation: 1, ..Header::default() }
}

/// Writes a log as a process does that flushes every five frames; gives its file.
async fn write(base: &Path, frames: &[Frame]) -> PathBuf {
    let clock = Clock::Manual(Arc::new(AtomicI64::new(1_700_000_000_000_000_000)));
    let mut writer = CaptureWriter::start("log", base, header(5), clock).await.unwrap();
    for five in frames.chunks(5) {
        for frame in five {
            writer.write(frame).await.unwrap();
        }
        writer.flush().await.unwrap();
    }
    writer.finish().await.unwrap();
    let name = format!("{:019}-00000.frames.zst", 5);
    base.join("log/n/2023-11-14").join(name)
}

fn position(rows: u64) -> Value {
    json!({"rows": rows, "capture": {"session_ns": 5, "frames": rows}})
}

async fn replayed(base: &Path) -> PartitionRead {
    let params = FeedParams { replay: Some("log".into()), ..FeedParams::default() };
    let source: Arc<dyn Source> = Arc::new(Feed {
        make: Arc::new(|| Box::new(Rows(Raw::new(), None))),
        params,
        session: super::SESSION,
        job: "j".into(),
        node: "n".into(),
        base: base.into(),
    });
    read(&source, None, 1, usize::MAX).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_behind_the_checkpoint_comes_from_the_log_wherever_it_was_torn() {
    let whole = tempfile::tempdir().unwrap();
    let all = frames(40);
    let bytes = std::fs::read(write(whole.path(), &all).await).unwrap();
    let start = header(5).block().unwrap().len();
    for cut in (start + 60..=bytes.len()).step_by(17).chain([bytes.len()]) {
        let folder = tempfile::tempdir().unwrap();
        let file = write(folder.path(), &[]).await;
        std::fs::write(&file, &bytes[..cut]).unwrap();
        let capture = Capture::own("log", folder.path(), "n").await.unwrap().unwrap();
        let mut reader = capture.file(0).await.unwrap();
        let mut n = 0;
        while let Ok(Some(frames)) = reader.frames() {
            n += frames.len();
        }
        // Whole flushes, each of five frames.
        assert!(n % 5 == 0 && n <= 40, "{n}");
        if n == 0 {
            continue;
        }
        let known = [0, 1, n / 2, n][cut % 4];
        let mut expected: Vec<(u64, String)> =
            (known..n).map(|i| (i as u64, format!("message {i}"))).collect();
        expected.push((n as u64, "the process that had opened it ended".into()));
        let source = feed(folder.path(), None, 1_000_000);
        for again in 0..3 {
            // Killed before the first checkpoint, there is no position: the run tells which log is its own.
            let from = (known > 0).then(|| position(known as u64));
            let read = read(&source, from, RUN, expected.len()).await.unwrap();
            assert_eq!(texts(&read), expected, "cut at {cut}, restart {again}");
            let last = &read.positions.last().unwrap().2;
            assert_eq!(last["rows"], n + 1);
            assert_eq!(last["capture"], json!({"session_ns": 5, "frames": n + 1}));
            // The process that was believed dead wakes up and goes on writing.
            let mut block = LiveBlock::new().unwrap();
            let mut records = Vec::new();
            encode(&frame(1000 + again, FrameKind::Received), &mut records);
            let late = [block.push(&records).unwrap(), block.finish().unwrap()].concat();
            let grown = [std::fs::read(&file).unwrap(), late].concat();
            std::fs::write(&file, grown).unwrap();
        }
        let mut whole: Vec<_> = (0..n).map(|i| (i as u64, format!("message {i}"))).collect();
        whole.push(expected.last().unwrap().clone());
        assert_eq!(texts(&replayed(folder.path()).await), whole, "cut at {cut}, replayed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_run_reads_no_log_and_a_log_that_is_gone_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), &frames(20)).await;
    let source = feed(folder.path(), None, 1_000_000);
    let lost = json!({"rows": 30, "capture": {"session_ns": 5, "frames": 30}});
    let error = read(&source, Some(lost), RUN, 1).await.err().unwrap().to_string();
    assert!(error.contains("knows 30 frames of session 5") && error.contains("--from none"), "{error}");
    let strange = json!({"rows": 3, "capture": {"session_ns": 4, "frames": 3}});
    let error = read(&source, Some(strange), RUN, 1).await.err().unwrap().to_string();
    assert!(error.contains("no such session"), "{error}");
    std::fs::remove_file(&file).unwrap();
    let error = read(&source, Some(position(3)), RUN, 1).await.err().unwrap().to_string();
    assert!(error.contains("capture of `n`") && error.contains("--from none"), "{error}");
}

/// Given a checkpoint or a log of one feed, when the graph connects to another, then it does not go on from them.
#[tokio::test(flavor = "multi_thread")]
async fn another_feed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |url: &str| feed(folder.path(), Some(url.into()), 1_000_000);
    let header = Header { addresses: vec!["127.0.0.1/trades".into()], ..header(5) };
    let clock = Clock::Manual(Arc::new(AtomicI64::new(1_700_000_000_000_000_000)));
    let mut writer = CaptureWriter::start("log", folder.path(), header, clock).await.unwrap();
    for frame in frames(20) {
        writer.write(&frame).await.unwrap();
    }
    writer.finish().await.unwrap();
    // Without a checkpoint, the log of the run says which feed it is.
    let error = read(&at("ws://127.0.0.1:9/quotes"), None, RUN, 20).await.err().unwrap().to_string();
    assert!(error.contains("capture of `n`") && error.contains("127.0.0.1/trades"), "{error}");
    let same = read(&at("ws://127.0.0.1:9/trades?key=2"), None, RUN, 20).await.unwrap();
    let position = &same.positions.last().unwrap().2;
    assert_eq!(position["feed"], json!(["127.0.0.1/trades"]));
    let other = read(&at("wss://other.example/trades"), Some(position.clone()), RUN, 1).await;
    let error = other.err().unwrap().to_string();
    assert!(error.contains("the checkpoint is of the feed at 127.0.0.1/trades"), "{error}");
    assert!(error.contains("connects to other.example/trades") && error.contains("--from none"), "{error}");
}

/// The log of a feed whose protocol can begin anywhere is cut into short sessions, and is one stream all the same.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_follow_one_another_are_one_stream_and_a_restart_reads_the_last() {
    let mut served = frames(400);
    served[0].data = Bytes::from_static(b"wss://venue.example.com/feed");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = ServeOptions { speed: Some(0.000_5), ..ServeOptions::default() };
    let server = Server::start(served, listener, options).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let url = Some(format!("ws://{}/feed", server.address));
    let source = feed(folder.path(), url, 50);
    let live = read(&source, None, RUN, 300).await.unwrap();
    assert_eq!(live.seqs, (0..live.seqs.len() as u64).collect::<Vec<_>>());
    let capture = Capture::own("log", folder.path(), "n").await.unwrap().unwrap();
    let found = sessions(&capture, 0..capture.files.len()).await;
    assert!(found.len() > 3 && found.iter().skip(1).all(|s| s.header.open == [0]), "{found:?}");
    let replayed = replayed(folder.path()).await;
    assert_eq!(texts(&replayed)[..live.seqs.len()], texts(&live));
    // A restart from the last position closes the connection that the last session found open.
    let (rows, _, position) = live.positions.last().unwrap().clone();
    let source = feed(folder.path(), None, 50);
    let rest = replayed.seqs.len() - rows + 1;
    let again = read(&source, Some(position), RUN, rest).await.unwrap();
    let mut expected = texts(&replayed).split_off(rows);
    expected.push((replayed.seqs.len() as u64, "the process that had opened it ended".into()));
    assert_eq!(texts(&again), expected);
}
