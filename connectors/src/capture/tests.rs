//! A capture written, read, torn, gone on with, and replayed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use arrow::array::AsArray;
use arrow::datatypes::UInt64Type;
use bytes::Bytes;
use serde_json::json;
use tidemill_engine::clock::Clock;

use super::record::Header;
use super::writer::CaptureWriter;
use super::*;
use crate::conformance::{Drive, another_input_is_refused, check_source, read_source};

fn frame(i: i64) -> Frame {
    let kind = match i % 7 {
        0 => FrameKind::Opened,
        3 => FrameKind::Response { url: format!("https://x/{i}"), status: 200 },
        6 => FrameKind::Closed,
        _ => FrameKind::Received,
    };
    let data = Bytes::from(format!("message {i}"));
    Frame { received_ns: 1_700_000_000_000_000_000 + i * 1000, connection: (i % 3) as u32, kind, data }
}

async fn write(folder: &Path, header: Header, frames: impl Iterator<Item = Frame>) {
    let clock = Clock::Manual(Arc::new(AtomicI64::new(1_700_000_000_000_000_000)));
    let mut writer = CaptureWriter::start(".", folder, header, clock).await.unwrap();
    for (i, frame) in frames.enumerate() {
        writer.write(&frame).await.unwrap();
        if i % 10 == 9 {
            writer.flush().await.unwrap();
        }
    }
    writer.finish().await.unwrap();
}

fn header(session_ns: i64, restored: bool, rows: u64) -> Header {
    Header { node: "n".into(), session_ns, restored, rows, ..Header::default() }
}

async fn plan(folder: &Path) -> SourcePlan {
    let cx =
        PlanContext { job: "j".into(), node: "n".into(), base: folder.into(), clock: Default::default() };
    let params = serde_json::from_value(json!({"url": "."})).unwrap();
    Capture::plan(params, &cx).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_frame_is_a_row_and_a_replay_owes_what_every_source_owes() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), header(5, false, 0), (0..500).map(frame)).await;
    let plan = plan(folder.path()).await;
    assert!(plan.bounded);
    let read = &check_source(&plan).await[&0];
    assert_eq!(read.seqs, (0..500).collect::<Vec<u64>>());
    let column = |name: &str| read.rows.column_by_name(name).unwrap();
    for i in 0..500 {
        let frame = frame(i as i64);
        assert_eq!(column("text").as_string::<i32>().value(i).as_bytes(), frame.data);
        assert_eq!(column("connection").as_primitive::<UInt64Type>().value(i), u64::from(frame.connection));
    }
    assert_eq!(column("kind").as_string::<i32>().value(3), "response");
    assert_eq!(column("url").as_string::<i32>().value(3), "https://x/3");
    assert_eq!(column("url").as_string::<i32>().value(9), "message 0", "what its connection was opened with");
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_went_on_from_a_checkpoint_replace_what_they_had_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    // A run of 40 rows was killed; the next went on from row 25, and was killed at 60; the next from row 50.
    write(folder.path(), header(1, false, 0), (0..40).map(frame)).await;
    write(folder.path(), header(2, true, 25), (125..160).map(frame)).await;
    write(folder.path(), header(3, true, 50), (250..270).map(frame)).await;
    // One that began afresh.
    write(folder.path(), header(4, false, 0), (300..310).map(frame)).await;
    let plan = plan(folder.path()).await;
    let read = check_source(&plan).await.remove(&0).unwrap();
    assert_eq!(read.seqs, (0..80).collect::<Vec<u64>>());
    let text = read.rows.column_by_name("text").unwrap().as_string::<i32>();
    let got: Vec<&str> = text.iter().flatten().collect();
    let expected: Vec<String> =
        (0..25).chain(125..150).chain(250..270).chain(300..310).map(|i| format!("message {i}")).collect();
    assert_eq!(got, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_capture_is_refused_and_one_that_has_grown_is_not() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, later, fewer] = folders.each_ref().map(|folder| folder.path());
    write(one, header(5, false, 0), (0..500).map(frame)).await;
    write(one, header(6, false, 0), (500..600).map(frame)).await;
    write(later, header(7, false, 0), (0..500).map(frame)).await;
    // The first run was lost.
    write(fewer, header(6, false, 0), (500..600).map(frame)).await;
    let drive = || Drive { chunk_rows: 90, ..Drive::default() };
    for other in [later, fewer] {
        let names = ["of a capture of which", "does not begin with them"];
        another_input_is_refused(&plan(one).await, &plan(other).await, drive(), &names).await;
    }
    let planned = plan(one).await;
    let read = read_source(&planned.source, &planned.columns, drive()).await.unwrap();
    let restored = [(0, read[&0].positions.last().unwrap().2.clone())].into();
    write(one, header(8, false, 0), (600..610).map(frame)).await;
    let planned = plan(one).await;
    let rest = read_source(&planned.source, &planned.columns, Drive { restored, ..drive() }).await.unwrap();
    assert_eq!(rest[&0].seqs, (600..610).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_file_reads_up_to_the_tear_and_info_says_so() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), header(1, false, 0), (0..40).map(frame)).await;
    write(folder.path(), header(2, false, 0), (100..110).map(frame)).await;
    let capture = reader::Capture::open(".", folder.path(), "n").await.unwrap();
    assert_eq!((capture.files.len(), capture.feed.as_str()), (2, "n"));
    let whole = info::info(&capture).await.unwrap();
    assert_eq!((whole.opened + whole.closed + whole.received + whole.responses, whole.torn.len()), (50, 0));
    assert_eq!((whole.runs, whole.connections), (2, 3));
    let file = folder.path().join("n/2023-11-14").join(&capture.files[0].name);
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 3]).unwrap();
    let torn = info::info(&capture).await.unwrap();
    // Its checksum is gone, its frames are all behind whole marks.
    assert_eq!((torn.opened + torn.closed + torn.received + torn.responses, torn.torn.len()), (50, 1));
    assert!(torn.torn[0].contains("is torn"), "{}", torn.torn[0]);
    let plan = plan(folder.path()).await;
    let read = read_source(&plan.source, &plan.columns, Drive::default()).await.unwrap();
    assert_eq!(read[&0].seqs.len(), 50);
}

#[tokio::test]
async fn a_capture_that_is_not_there_or_not_meant_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let none = reader::Capture::open("nowhere", folder.path(), "n").await.err().unwrap();
    assert!(none.contains("no capture"), "{none}");
    for node in ["a", "b"] {
        write(folder.path(), Header { node: node.into(), ..Header::default() }, (0..3).map(frame)).await;
    }
    assert_eq!(reader::Capture::open(".", folder.path(), "b").await.unwrap().feed, "b");
    let which = reader::Capture::open(".", folder.path(), "c").await.err().unwrap();
    assert!(which.contains("captures of a, b, none of `c`"), "{which}");
    // The same run may not be written twice.
    let header = Header { node: "a".into(), ..Header::default() };
    let twice = CaptureWriter::start(
        ".",
        folder.path(),
        header,
        Clock::Manual(Arc::new(1_700_000_000_000_000_000i64.into())),
    );
    assert!(twice.await.is_err());
}

#[tokio::test]
async fn the_recorded_sessions_come_in_whole() {
    let Some(data) = recorded() else { return };
    let folder = tempfile::tempdir().unwrap();
    let files = ["binance.ws.1.0.gz", "binance.http.0.0.gz"].map(|name| data.join(name));
    let frames = import::read(&files).unwrap();
    // Counted with zcat and wc: every line of both files is a frame.
    let mut lines = 0;
    for file in &files {
        let mut text = String::new();
        let mut unpacked = flate2::read::MultiGzDecoder::new(std::fs::File::open(file).unwrap());
        std::io::Read::read_to_string(&mut unpacked, &mut text).unwrap();
        lines += text.lines().filter(|l| !l.is_empty()).count();
    }
    assert_eq!(frames.len(), lines);
    assert!(frames.is_sorted_by_key(|f| f.received_ns) && frames.iter().all(|f| f.connection == 0));
    import::write(&frames, "session", folder.path()).await.unwrap();
    let capture = reader::Capture::open("session", folder.path(), "trades").await.unwrap();
    assert_eq!(serve::load(&capture).await.unwrap(), frames);
}

/// The folder of recorded sessions, or `None` where it is absent (said loudly; a failure in CI).
fn recorded() -> Option<std::path::PathBuf> {
    let data = std::env::var_os("TIDEMILL_DATA")
        .map_or_else(|| "../../shared/data".into(), std::path::PathBuf::from);
    let feeds = data.join("feeds");
    if feeds.is_dir() {
        return Some(feeds);
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "in CI nothing may be skipped");
    eprintln!("SKIPPED, NOT TESTED: no recorded sessions in {}", feeds.display());
    None
}
