//! Rows of several partitions, mixed up by late rows and folders, come back in order of offsets.

use std::path::Path;

use arrow::array::{DictionaryArray, Int64Array, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use super::merge::Merge;
use super::*;

fn columns() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("ts", row::ts_type(), false),
        Field::new("symbol", row::symbol_type(), false),
        Field::new("n", DataType::Int64, false),
    ]))
}

/// A row: source, partition, offset, time.
type Row = (&'static str, u32, u64, i64);

fn value(row: &Row) -> i64 {
    (u64::from(row.1) * 1_000_000 + row.2) as i64
}

fn write(path: &Path, rows: &[Row], group_rows: usize) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let schema = row::stream_schema(columns().fields());
    let symbols: DictionaryArray<Int32Type> =
        rows.iter().map(|r| Some(["A", "B", "C"][r.2 as usize % 3])).collect();
    let batch = RecordBatch::try_new(
        schema.clone(),
        vec![
            row::ts_array(rows.iter().map(|r| r.3).collect()),
            row::u64_array(rows.iter().map(|r| row::origin(r.0, r.1)).collect()),
            row::u64_array(rows.iter().map(|r| r.2).collect()),
            Arc::new(symbols),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(value))),
        ],
    )
    .unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group_rows)).build();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, schema, Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn history(folder: &Path, source: Option<&str>, on_gap: OnGap) -> History {
    let dataset = Catalog::open(&folder.display().to_string(), Path::new("")).unwrap().as_dataset();
    History { dataset, source: source.map(str::to_owned), on_gap, memory_bytes: 64 << 20, columns: columns() }
}

async fn read(past: &Past) -> Vec<(u64, i64)> {
    let mut merge = Merge::new(past).unwrap();
    let mut all = Vec::new();
    while let Some((rows, seqs)) = merge.next().await.unwrap() {
        assert_eq!(rows.schema(), columns());
        let n = rows.column(2).as_primitive::<Int64Type>().values();
        all.extend(seqs.into_iter().zip(n.iter().copied()));
    }
    all
}

/// Files in order of time and by symbol, as a sink with folders leaves them; some rows are there twice.
#[tokio::test]
async fn each_partition_is_in_order_of_offsets_whatever_the_files() {
    let mut seed = 11u64;
    let mut next = |n: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % n
    };
    let folder = tempfile::tempdir().unwrap();
    // Partition 1 is far behind partition 0, and has holes; late rows are up to 500 offsets back in time.
    let mut rows: Vec<Row> = Vec::new();
    for offset in 0..60_000u64 {
        rows.push(("trades", 0, offset + 1_000_000, (offset * 10) as i64 - next(5000) as i64));
        if next(3) > 0 {
            rows.push(("trades", 1, offset, (offset * 10) as i64 - next(5000) as i64));
        }
    }
    let mut expected: BTreeMap<u32, Vec<(u64, i64)>> = BTreeMap::new();
    rows.iter().for_each(|r| expected.entry(r.1).or_default().push((r.2, value(r))));
    rows.sort_by_key(|r| (r.3, r.1, r.2));
    for (i, part) in rows.chunks(17_000).enumerate() {
        for symbol in 0..3u64 {
            let mut own: Vec<Row> = part.iter().filter(|r| r.2 % 3 == symbol).copied().collect();
            if i == 1 {
                own.push(own[7]);
            }
            write(&folder.path().join(format!("symbol={symbol}/{i}.parquet")), &own, 3000 + 500 * i);
        }
    }
    let history = history(folder.path(), None, OnGap::Fail);
    let archive = Arc::new(history.load(|_| true).await.unwrap());
    assert_eq!(archive.bounds(0), Some(1_000_000..1_060_000));
    assert_eq!(archive.bounds(2), None);
    for (partition, expected) in &expected {
        let bounds = archive.bounds(*partition).unwrap();
        assert_eq!(bounds, expected[0].0..expected[expected.len() - 1].0 + 1);
        for from in [bounds.start, bounds.start + 1, bounds.start + 31_000, bounds.end - 1, bounds.end] {
            let past = Past::new(&history, &archive, "t", *partition, from..bounds.end, Default::default());
            let wanted: Vec<_> = expected.iter().filter(|r| r.0 >= from).copied().collect();
            assert!(read(&past).await == wanted, "partition {partition} from {from}");
        }
        // The bound is kept: what does not fit is an error, and not buffered.
        let tight = History { memory_bytes: 1000, ..history.clone() };
        let past = Past::new(&tight, &archive, "t", *partition, bounds, Default::default());
        let mut merge = Merge::new(&past).unwrap();
        let error = loop {
            match merge.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("1000 bytes cannot be enough"),
                Err(e) => break e.to_string(),
            }
        };
        assert!(error.contains("history.memory_mb"), "{error}");
    }
}

#[tokio::test]
async fn rows_of_several_sources_must_be_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("a.parquet"), &[("trades", 0, 5, 0), ("other", 0, 9, 1)], 10);
    let error = history(folder.path(), None, OnGap::Fail).load(|_| true).await.err().unwrap().to_string();
    assert!(error.contains("rows of 2 sources") && error.contains("history.source"), "{error}");
    let archive = history(folder.path(), Some("other"), OnGap::Fail).load(|_| true).await.unwrap();
    assert_eq!(archive.bounds(0), Some(9..10));
}

#[tokio::test]
async fn the_cut_is_the_offset_behind_the_last_archived() {
    let folder = tempfile::tempdir().unwrap();
    let rows: Vec<Row> = (100..200).map(|o| ("trades", 0, o, o as i64)).collect();
    write(&folder.path().join("a.parquet"), &rows, 10);
    let fail = history(folder.path(), None, OnGap::Fail);
    let go_on = history(folder.path(), None, OnGap::Continue);
    let archive = fail.load(|_| true).await.unwrap();
    let place = |history: &History, partition, at, low, high| {
        history.place(&archive, "t", partition, at, low, high).map_err(|e| e.to_string())
    };
    for (at, low, high, expected) in [
        // A fresh job: archive, then Kafka; Kafka alone where it has more.
        (None, 150, 300, (Some(100..200), 200)),
        (None, 200, 200, (Some(100..200), 200)),
        (None, 100, 300, (None, 100)),
        (None, 0, 300, (None, 0)),
        // Restarted in the history: goes on there, though Kafka may have it too.
        (Some((120, true)), 150, 300, (Some(120..200), 200)),
        (Some((120, true)), 0, 300, (Some(120..200), 200)),
        (Some((200, true)), 150, 300, (None, 200)),
        // Restarted in Kafka: stays there, unless it has been forgotten.
        (Some((160, false)), 150, 300, (None, 160)),
        (Some((140, false)), 150, 300, (Some(140..200), 200)),
        (Some((250, false)), 150, 300, (None, 250)),
        // Older than the archive, but Kafka has it.
        (Some((50, true)), 40, 300, (None, 50)),
    ] {
        assert_eq!(place(&fail, 0, at, low, high), Ok(expected), "{at:?} {low} {high}");
    }
    for (partition, at, low, high, offsets, behind) in [
        (0, None, 210, 300, "offsets 200 to 209", (Some(100..200), 210)),
        (0, Some((50, true)), 150, 300, "offsets 50 to 99", (Some(100..200), 200)),
        (0, Some((205, false)), 210, 300, "offsets 205 to 209", (None, 210)),
        (1, None, 7, 300, "offsets 0 to 6", (None, 7)),
    ] {
        let error = place(&fail, partition, at, low, high).unwrap_err();
        assert!(error.contains(offsets) && error.contains("on_gap: continue"), "{error}");
        assert_eq!(place(&go_on, partition, at, low, high), Ok(behind));
    }
    // The topic was created again: going on would give wrong rows.
    let error = place(&go_on, 0, None, 120, 150).unwrap_err();
    assert!(error.contains("created again"), "{error}");
    assert_eq!(place(&fail, 1, None, 0, 10), Ok((None, 0)));
}
