//! The archive as a whole, on a folder and on a store that fails when told to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::array::{AsArray, DictionaryArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use tidemill_engine::clock::Clock;
use tidemill_engine::row;
use tidemill_engine::storage::Location;

use crate::compact::{self, CompactOptions};
use crate::read::{self, Choice};
use crate::*;

mod faulty;
mod house;
mod ranges;

use faulty::Faulty;

const DAY: i64 = 86_400_000_000_000;

fn schema() -> SchemaRef {
    let mut fields = row::system_fields();
    fields.push(Arc::new(Field::new("symbol", row::symbol_type(), false)));
    fields.push(Arc::new(Field::new("n", DataType::Int64, false)));
    Arc::new(Schema::new(fields))
}

/// Rows of (time, symbol, number); the number is also `_seq`.
fn rows(of: &[(i64, &str, i64)]) -> RecordBatch {
    let symbols: DictionaryArray<Int32Type> = of.iter().map(|r| Some(r.1)).collect();
    RecordBatch::try_new(
        schema(),
        vec![
            row::ts_array(of.iter().map(|r| r.0).collect()),
            row::u64_array(of.iter().map(|_| row::origin("trades", 0)).collect()),
            row::u64_array(of.iter().map(|r| r.2 as u64).collect()),
            Arc::new(symbols),
            Arc::new(Int64Array::from_iter_values(of.iter().map(|r| r.2))),
        ],
    )
    .unwrap()
}

fn layout() -> Layout {
    Layout::new(&schema(), &["date", "symbol"])
}

/// A dataset in memory whose puts can be told to fail.
struct Bench {
    store: Arc<Faulty>,
    now_ms: Arc<AtomicI64>,
}

impl Bench {
    fn new() -> Self {
        // The store stamps files with the machine's time: they are a minute old at once.
        let now_ns = Clock::System.now_ns() + 60_000_000_000;
        Self { store: Arc::new(Faulty::default()), now_ms: Arc::new(AtomicI64::new(now_ns)) }
    }

    fn catalog(&self) -> Catalog {
        let location = Location {
            store: self.store.clone(),
            path: Path::from("archive"),
            display: "memory:archive".into(),
            local: false,
        };
        Catalog::at(location).with_clock(Clock::Manual(self.now_ms.clone()))
    }

    /// Opened anew: nothing is remembered.
    fn dataset(&self) -> Dataset {
        self.catalog().dataset("trades").unwrap()
    }

    fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::Relaxed) / 1_000_000
    }

    fn pass(&self, ms: i64) {
        self.now_ms.fetch_add(ms * 1_000_000, Ordering::Relaxed);
    }

    /// A file as a sink puts it.
    async fn put(&self, path: &str, batch: &RecordBatch) {
        let mut bytes = Vec::new();
        let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(batch).unwrap();
        writer.close().unwrap();
        let path = Path::parse(format!("archive/trades/{path}")).unwrap();
        self.store.put(&path, bytes.into()).await.unwrap();
    }

    async fn seen(&self) -> BTreeMap<i64, usize> {
        seen(&self.dataset().snapshot().await.unwrap()).await
    }
}

/// How often each number is in a snapshot; every file is checked against what the snapshot says of it.
async fn seen(snapshot: &Snapshot) -> BTreeMap<i64, usize> {
    let mut all = BTreeMap::new();
    for file in snapshot.files() {
        let mut batches = read::rows(snapshot.dataset(), file, Choice::all(schema())).await.unwrap();
        let (mut count, mut last) = (0, None);
        while let Some(batch) = batches.try_next().await.unwrap() {
            count += batch.num_rows() as u64;
            for n in batch.column(4).as_primitive::<Int64Type>().values() {
                *all.entry(*n).or_default() += 1;
            }
            for i in 0..batch.num_rows() {
                let key = (row::ts(&batch)[i], row::seq(&batch)[i]);
                assert!(last <= Some(key), "rows of a file are sorted");
                last = Some(key);
                for (name, value) in &file.partition {
                    match name.as_str() {
                        "symbol" => assert_eq!(row::text(batch.column(3), i), Some(value.as_str())),
                        _ => assert_eq!(&date(key.0), value),
                    }
                }
            }
        }
        if let Some(rows) = file.rows {
            assert_eq!(rows, count, "{}", file.path);
        }
    }
    all
}

fn date(ts: i64) -> String {
    chrono::DateTime::from_timestamp_nanos(ts).format("%Y-%m-%d").to_string()
}

fn once(numbers: impl IntoIterator<Item = i64>) -> BTreeMap<i64, usize> {
    numbers.into_iter().map(|n| (n, 1)).collect()
}

async fn fill(
    dataset: &Dataset,
    key: RangeKey,
    range: (i64, i64),
    batches: &[RecordBatch],
) -> Result<RangeReport, ArchiveError> {
    let options = WriteOptions { row_group_rows: 1000, ..WriteOptions::default() };
    let mut writer = RangeWriter::new(dataset, "backfill", key, range.0, range.1, options).await?;
    for batch in batches {
        writer.write(batch.clone()).await?;
    }
    writer.finish(true).await
}

#[tokio::test]
async fn a_catalog_lists_what_holds_files_or_a_log() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path();
    for path in ["a/date=2024-01-01/x.parquet", "b/readme.txt", "_hidden/x.parquet", "c d/x.parquet"] {
        let path = base.join("archive").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"x").unwrap();
    }
    let catalog = Catalog::open("archive", base).unwrap();
    catalog.dataset("made").unwrap().create_or_open(&layout()).await.unwrap();
    assert_eq!(catalog.datasets().await.unwrap(), ["a", "made"]);
    assert_eq!(Catalog::open("nowhere", base).unwrap().datasets().await.unwrap(), [""; 0]);
    let said = catalog.existing("made2").await.unwrap_err().to_string();
    assert!(said.contains("no dataset `made2`") && said.ends_with("there are: a, made"), "{said}");
    for inside in ["archive/a", "archive/made"] {
        let said = Catalog::open(inside, base).unwrap().datasets().await.unwrap_err().to_string();
        assert!(said.contains("is a dataset, not an archive"), "{said}");
    }
    for name in ["", "a/b", "_x", "..", "a b"] {
        assert!(catalog.dataset(name).is_err(), "{name}");
    }
    assert_eq!(catalog.dataset("made").unwrap().schema().await.unwrap(), schema());
}

/// On disk: names with special characters come back, and what is written is there for another process.
#[tokio::test]
async fn a_folder_keeps_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Catalog::open("archive", folder.path()).unwrap().dataset("trades").unwrap();
    open().create_or_open(&layout()).await.unwrap();
    let batch = rows(&[(5, "BTC/USD", 1), (DAY + 1, "A B%=é", 3), (3, "BTC/USD", 2)]);
    fill(&open(), RangeKey::all(), (0, 2 * DAY), &[batch]).await.unwrap();
    let snapshot = open().snapshot().await.unwrap();
    assert_eq!(seen(&snapshot).await, once(1..=3));
    let partitions: Vec<_> = snapshot.files().iter().map(|f| f.partition[1].1.as_str()).collect();
    assert_eq!(partitions, ["BTC/USD", "A B%=é"]);
    assert_eq!((snapshot.rows(), snapshot.ts()), (Some(3), Some((3, DAY + 1))));
    let options = CompactOptions { older_than_ms: 0, ..CompactOptions::default() };
    assert!(compact::plan(&snapshot, i64::MAX, &options).is_empty());
}

#[tokio::test]
async fn many_commits_read_back_and_two_writers_never_lose_one() {
    let bench = Bench::new();
    let dataset = bench.dataset();
    dataset.create_or_open(&layout()).await.unwrap();
    let writer = |key: &'static str| {
        let dataset = bench.dataset();
        async move {
            for i in 0..50i64 {
                let batch = rows(&[(i * 10, key, i + if key == "A" { 0 } else { 1000 })]);
                let key = RangeKey::all().with("symbol", key);
                fill(&dataset, key, (i * 10, i * 10 + 10), &[batch]).await.unwrap();
            }
        }
    };
    tokio::join!(writer("A"), writer("B"));
    let snapshot = bench.dataset().snapshot().await.unwrap();
    assert_eq!(snapshot.version(), 101);
    assert_eq!(seen(&snapshot).await, once((0..50).chain(1000..1050)));
    let ranges: Vec<_> = snapshot.ranges().iter().map(|r| (r.key.to_string(), r.from, r.to)).collect();
    assert_eq!(ranges, [("symbol=A".to_owned(), 0, 500), ("symbol=B".to_owned(), 0, 500)]);
    // A few files tell it all, and they tell the same as the whole history.
    bench.store.gets_of_log();
    let whole = bench.dataset().state().await.unwrap();
    assert_eq!(bench.store.gets_of_log(), 1 + 5, "the checkpoint at 96, and what came after");
    assert_eq!(*dataset.state().await.unwrap(), *whole);
    // A hole in the log is never read over.
    bench.store.delete(&Path::from("archive/trades/_tidemill/00000000000000000100.json")).await.unwrap();
    let said = bench.dataset().state().await.unwrap_err().to_string();
    assert!(said.contains("is missing from the log"), "{said}");
}

#[tokio::test]
async fn listing_ten_thousand_files_costs_one_pass() {
    let bench = Bench::new();
    let one = rows(&[(1, "A", 1)]);
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, one.schema(), None).unwrap();
    writer.write(&one).unwrap();
    writer.close().unwrap();
    let bytes = bytes::Bytes::from(bytes);
    for i in 0..10_000u64 {
        let path = format!(
            "archive/trades/date=1970-01-01/symbol=A/j.s.after-{i:020}-0000-0000.g0000000001.parquet"
        );
        bench.store.put(&Path::from(path), bytes.clone().into()).await.unwrap();
    }
    let snapshot = bench.dataset().snapshot().await.unwrap();
    assert_eq!(snapshot.files().len(), 10_000);
    // The log before and after, and the files once; no file is opened.
    assert_eq!((bench.store.lists(), bench.store.gets()), (3, 0));
    let groups = compact::plan(&snapshot, i64::MAX, &CompactOptions::default());
    // All but those near the newest checkpoint.
    assert_eq!(groups.iter().map(|g| g.files.len()).sum::<usize>(), 9_991);
}

#[test]
fn an_archive_of_a_newer_version_says_so() {
    let layout = Layout {
        columns: vec![layout::Column { name: "ts".into(), data_type: "Quux(3)".into(), nullable: false }],
        partition_by: Vec::new(),
        sort: Vec::new(),
    };
    let said = layout.schema().unwrap_err().to_string();
    assert!(said.contains("a type that this version does not know: column `ts`, `Quux(3)`"), "{said}");
}
