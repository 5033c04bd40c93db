use std::path::Path as FsPath;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::json;

use super::*;
use crate::conformance::{Case, check_sink, context, plan_context, rows, stream};

fn plan(with: serde_json::Value, base: &FsPath) -> Result<SinkPlan, Vec<String>> {
    let params = serde_json::from_value(with).unwrap();
    Parquet::plan(params, &stream(), &plan_context(base))
        .map_err(|p| p.iter().map(|p| p.to_string()).collect())
}

/// Every row of every file below a folder, with the file's Hive folder in front.
fn contents(folder: &FsPath) -> Vec<String> {
    let mut rows = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&at) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            assert!(path.extension().is_some_and(|e| e == "parquet"), "{path:?} is left over");
            let file = std::fs::File::open(&path).unwrap();
            let hive = at.strip_prefix(folder).unwrap().display().to_string();
            for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
                let mut encoder = tidemill_engine::json::Encoder::new(
                    crate::conformance::schema(),
                    tidemill_engine::json::EncodeOptions { origin: true, lines: false },
                );
                let batch = batch.unwrap();
                rows.extend(
                    encoder.encode(&batch).iter().map(|r| format!("{hive} {}", String::from_utf8_lossy(r))),
                );
            }
        }
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn files_hold_each_row_once_whatever_crashes() {
    for by in [json!([]), json!(["date"]), json!(["date", "symbol"])] {
        let folder = tempfile::tempdir().unwrap();
        let with = json!({"url": "archive", "partition_by": by, "row_group_rows": 16});
        let case = Case {
            plan: &|base| plan(with.clone(), base).unwrap(),
            contents: &|base| contents(&base.join("archive")),
        };
        let rows = check_sink(folder.path(), &case).await;
        assert_eq!(rows.len(), 480);
        if by == json!(["date", "symbol"]) {
            assert!(rows[0].starts_with("date=2024-01-01/symbol=S%202%2Fx "), "{}", rows[0]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn big_files_are_cut_and_stay_invisible_until_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path();
    let with = json!({"url": "a", "compression": "none", "dictionary": false, "file_mb": 10, "row_group_rows": 20_000});
    let sink = plan(with, base).unwrap().sink;
    let mut writer = sink.open(context(base, 0, Vec::new())).await.unwrap();
    for i in 0..130 {
        writer.write(rows(i * 10_000..(i + 1) * 10_000)).await.unwrap();
    }
    let visible = || {
        std::fs::read_dir(base.join("a"))
            .unwrap()
            .filter(|e| e.as_ref().unwrap().path().extension().unwrap() == "parquet")
            .count()
    };
    assert_eq!(visible(), 0);
    assert!(std::fs::read_dir(base.join("a")).unwrap().count() > 0, "no part of a big file was sent early");
    let kept = writer.checkpoint(1).await.unwrap();
    let files = kept["files"].as_array().unwrap();
    assert!(files.len() > 1 && visible() == files.len(), "{kept}");
    assert_eq!(files.iter().map(|f| f["rows"].as_u64().unwrap()).sum::<u64>(), 1_300_000);
    for file in files {
        let path = base.join("a").join(file["path"].as_str().unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), file["bytes"].as_u64().unwrap());
        let batches = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(&path).unwrap())
            .unwrap()
            .build()
            .unwrap();
        let ts: Vec<i64> = batches
            .flat_map(|b| {
                let ts =
                    arrow::compute::cast(b.unwrap().column(0), &arrow::datatypes::DataType::Int64).unwrap();
                ts.as_primitive::<Int64Type>().values().to_vec()
            })
            .collect();
        assert!(ts.is_sorted());
        assert_eq!(
            (ts[0], ts[ts.len() - 1]),
            (file["min_ts"].as_i64().unwrap(), file["max_ts"].as_i64().unwrap())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_is_fenced_and_its_files_go() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path();
    let sink = plan(json!({"url": "a"}), base).unwrap().sink;
    let open = async |generation, start| {
        sink.open(SinkContext { generation, ..context(base, start, Vec::new()) }).await
    };
    std::fs::create_dir_all(base.join("a")).unwrap();
    std::fs::write(base.join("a/foreign.parquet"), b"not ours").unwrap();
    let mut zombie = open(1, 0).await.unwrap();
    zombie.write(rows(0..10)).await.unwrap();
    let mut heir = open(2, 0).await.unwrap();
    zombie.checkpoint(1).await.unwrap();
    heir.write(rows(0..10)).await.unwrap();
    heir.checkpoint(1).await.unwrap();
    heir.committed(1).await.unwrap();
    std::fs::remove_file(base.join("a/foreign.parquet")).expect("files of others stay");
    assert_eq!(contents(&base.join("a")).len(), 10);
    // One that opens late finds files that are not its own, and touches none.
    let late = open(1, 0).await.err().unwrap();
    assert!(late.to_string().contains("existing: replace"), "{late}");
    let late = SinkContext { fresh: false, start_checkpoint: 1, ..context(base, 0, Vec::new()) };
    sink.open(late).await.unwrap();
    assert_eq!(contents(&base.join("a")).len(), 10);
}

/// Given files of a run whose clock was ahead and whose checkpoints are lost, when a run begins from nothing, then `existing`
/// decides, and nothing is fenced for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_ahead_fences_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path();
    for (existing, rows_after) in [("append", Some(20)), ("replace", Some(10)), ("fail", None)] {
        let url = format!("a-{existing}");
        let sink = plan(json!({"url": url, "existing": existing}), base).unwrap().sink;
        let open = async |generation, start, existing_start| {
            let cx = SinkContext {
                generation,
                run: generation,
                fresh: start == existing_start,
                ..context(base, start, Vec::new())
            };
            sink.open(cx).await
        };
        let mut ahead = open(1_000_000, 0, 0).await.unwrap();
        ahead.write(rows(0..10)).await.unwrap();
        ahead.checkpoint(1).await.unwrap();
        let now = open(5, 0, 0).await;
        match rows_after {
            None => assert!(now.err().unwrap().to_string().contains("existing: replace")),
            Some(expected) => {
                let mut now = now.unwrap();
                // Another sink may refuse to open: then what was there must be there still.
                assert_eq!(contents(&base.join(&url)).len(), 10, "{existing}");
                now.started().await.unwrap();
                now.write(rows(0..10)).await.unwrap();
                now.checkpoint(1).await.unwrap();
                assert_eq!(contents(&base.join(&url)).len(), expected, "{existing}");
                // Its restart is not fenced either.
                open(6, 1, 0).await.unwrap();
            }
        }
    }
}

/// Given a backfill over more days than files may be open, when the checkpoint comes, then every row is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_of_many_days_keeps_few_files_open() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path();
    let sink = plan(json!({"url": "a", "partition_by": ["date"]}), base).unwrap().sink;
    let mut writer = sink.open(context(base, 0, Vec::new())).await.unwrap();
    // An hour a row: 24 rows a day, 1300 days, each written in two pieces with the day after in between.
    for day in 0..1300 {
        writer.write(rows(day * 24 + 12..day * 24 + 36)).await.unwrap();
        writer.write(rows(day * 24..day * 24 + 12)).await.unwrap();
    }
    writer.checkpoint(1).await.unwrap();
    assert_eq!(contents(&base.join("a")).len(), 1300 * 36);
}

/// Given a put whose answer was lost, when the store's client has tried again and met its own file, then that is no fence.
#[tokio::test(flavor = "multi_thread")]
async fn a_put_that_meets_its_own_file_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let store = object_store::local::LocalFileSystem::new_with_prefix(folder.path()).unwrap();
    let upload = async |bytes: &[u8]| {
        let mut upload = super::upload::Upload::new("f".into());
        upload.push(&store, bytes.to_vec()).await?;
        upload.complete(&store).await
    };
    upload(b"rows").await.unwrap();
    upload(b"rows").await.unwrap();
    let other = upload(b"sows").await.unwrap_err();
    assert!(matches!(other, ConnectorError::Fenced(_)), "{other}");
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_source_that_cannot_be_read_again_whole_files_stay() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path();
    let sink = plan(json!({"url": "a"}), base).unwrap().sink;
    let open = async |generation, replayable| {
        let cx = SinkContext { generation, replayable, resumed: true, ..context(base, 3, Vec::new()) };
        sink.open(cx).await.unwrap()
    };
    // Its files are put, and it is killed before the checkpoint is committed.
    let mut killed = open(2, false).await;
    killed.write(rows(0..10)).await.unwrap();
    killed.checkpoint(4).await.unwrap();
    let mut next = open(3, false).await;
    next.write(rows(10..15)).await.unwrap();
    next.checkpoint(4).await.unwrap();
    next.committed(4).await.unwrap();
    assert_eq!(contents(&base.join("a")).len(), 15);
    // What comes again is removed, as ever.
    open(4, true).await;
    assert_eq!(contents(&base.join("a")).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path();
    let with = json!({"url": "", "partition_by": ["sybmol", "price"], "compression": "rar", "file_mb": 0});
    let problems = plan(with, base).err().unwrap();
    let paths: Vec<&str> = problems.iter().map(|p| p.split(':').next().unwrap()).collect();
    assert_eq!(
        paths,
        ["partition_by[0]", "partition_by[1]", "compression", "file_mb", "url"],
        "{problems:?}"
    );
    assert!(problems[0].contains("did you mean `symbol`?"), "{problems:?}");
    std::fs::write(base.join("file"), b"").unwrap();
    let sink = plan(json!({"url": "file/a"}), base).unwrap().sink;
    let error = sink.open(context(base, 0, Vec::new())).await.err().unwrap();
    assert!(matches!(&error, ConnectorError::Fatal(m) if m.contains("file/a")), "{error}");
    // The folder turns into a file while the job runs.
    let sink = plan(json!({"url": "b"}), base).unwrap().sink;
    let mut writer = sink.open(context(base, 0, Vec::new())).await.unwrap();
    writer.write(rows(0..5)).await.unwrap();
    std::fs::remove_dir(base.join("b")).unwrap();
    std::fs::write(base.join("b"), b"").unwrap();
    let error = writer.checkpoint(1).await.unwrap_err();
    assert!(error.to_string().contains("b/job.out.after-"), "{error}");
}
